"""An HTTP server for a directory that answers range requests and lists what it holds, and on demand misbehaves."""

import hashlib
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = str | int | None  # an HTTP status | "reset" | "short" | "garbage" | "ignore range" | None


class FaultyServer:
    """`with FaultyServer(directory) as server`: files at `server.url`.

    Attributes:
        fault: called with the number of the request (from 1) and its path before each answer.
        requests: (path, range header) of every request so far.
        busiest: most requests that were being answered at one time.
    """

    def __init__(self, directory: Path) -> None:
        self.fault: Callable[[int, str], Fault] = lambda number, path: None
        self.requests: list[tuple[str, str | None]] = []
        self.busiest = 0
        self._busy = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(directory))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FaultyServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(outer, directory: Path) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with outer._lock:
                    outer.requests.append((self.path, self.headers.get("Range")))
                    number = len(outer.requests)
                    outer._busy += 1
                    outer.busiest = max(outer.busiest, outer._busy)
                try:
                    self._answer(outer.fault(number, self.path))
                finally:
                    with outer._lock:
                        outer._busy -= 1

            do_HEAD = do_GET

            def _answer(self, fault: Fault) -> None:
                file = directory / self.path.lstrip("/")
                if isinstance(fault, int):
                    return self._send(fault, b"")
                if file.is_dir() and fault is None:
                    links = (f'<a href="{name.name}{"/" * name.is_dir()}">x</a>' for name in sorted(file.iterdir()))
                    return self._send(200, "".join(links).encode(), kind="text/html")
                if not file.exists():
                    return self._send(404, b"")
                content, status = file.read_bytes() if file.is_file() else b"a page", 200
                version = hashlib.sha256(content).hexdigest()
                if self.headers.get("Range") and fault != "ignore range":
                    first, last = self.headers["Range"].removeprefix("bytes=").split("-")
                    content, status = content[int(first) : int(last) + 1 if last else None], 206
                if fault == "garbage":
                    content = bytes(len(content))
                if fault == "reset":
                    self.close_connection = True
                    return self.connection.shutdown(socket.SHUT_RDWR)
                return self._send(status, content, cut=fault == "short", version=version)

            def _send(
                self, status: int, content: bytes, cut: bool = False, kind: str = "text/plain", version: str = ""
            ) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Content-Type", kind)
                if version:
                    self.send_header("ETag", version)
                self.end_headers()
                if self.command == "HEAD":
                    return
                self.wfile.write(content[: len(content) // 2] if cut else content)
                self.close_connection = cut

            def log_message(self, *_: object) -> None:
                """Quiet."""

        return Handler
