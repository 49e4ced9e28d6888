"""From configuration to a server that runs until a signal: the port, the model, the end."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from framework.config import ServeConfig
from framework.errors import UserError
from framework.inference.server.app import create_app
from framework.inference.server.guard import Guard
from framework.inference.server.metrics import Metrics
from framework.inference.server.served import Served, load

KEY = "LOAM_API_KEY"
_READING = 2.0  # seconds that clients have to read what ends their answers, when the server has to end

logger = logging.getLogger("loam")


def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT, and until what runs then has ended; a second signal ends the process at once.

    Raises UserError where the port cannot be had, the model not be read, or others could come in without a key.
    """
    key = os.environ.get(KEY)
    if key is not None and not key.strip():
        raise UserError(f"{KEY}: is set but empty; give it a key, or unset it")
    if key is None and not _is_local(config.host):
        raise UserError(
            f"host: {config.host} lets other machines in, and {KEY} is not set; set it to a key that clients have to "
            "give, or leave host=127.0.0.1"
        )
    with _bind(config.host, config.port) as bound:  # before the model is read, which may take minutes
        failed = asyncio.run(_Serving(config, key, bound).run(load(config)))
    if failed:
        sys.exit(1)


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"host: {host} has no address ({error.strerror}); try 127.0.0.1") from error
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UserError(f"host: {host} is no address of this machine; try 127.0.0.1, or 0.0.0.0 for all") from error
        remedy = f"port={port + 1} or port=0, which finds a free one" if port < 65535 else "another one"
        raise UserError(f"port: {port} of {host} cannot be had ({error.strerror}); try {remedy}") from error
    return bound


class _Uvicorn(uvicorn.Server):
    """Leaves signals to `_Serving`, and says when it listens."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not here."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As ever."""
        await super().startup(sockets)
        self._listening()


class _Serving:
    """A server's life, in its event loop."""

    def __init__(self, config: ServeConfig, key: str | None, bound: socket.socket) -> None:
        self._config, self._key, self._socket = config, key, bound
        self._failed = False
        self._ending: asyncio.Task[None] | None = None

    async def run(self, ready: Callable[[Callable[[], None]], Served]) -> bool:
        """Until the end; whether it was a failure."""
        _log_to_stderr()
        self._served = ready(self._fail)
        thread = self._served.thread
        metrics = Metrics(lambda: thread.running, lambda: thread.waiting)
        app = create_app(self._served, metrics, self._health)
        limits = self._config.limits
        self._guard = Guard(app, limits, metrics, self._key, check_host=self._key is None)
        self._server = _Uvicorn(
            uvicorn.Config(
                self._guard,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                limit_concurrency=limits.connections,
                timeout_graceful_shutdown=int(_READING),
            ),
            self._tell,
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signal, number)
        thread.start()
        await self._server.serve(sockets=[self._socket])
        thread.stop()
        return self._failed

    def _tell(self) -> None:
        host, port = self._socket.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        what = f"{self._served.kind}, {self._served.card['id']}"
        print(f"loam: serving {what}, at {url}/ and, for OpenAI's clients, {url}/v1", flush=True)

    def _health(self) -> str:
        if self._failed:
            return "failed"
        return "draining" if self._guard.draining else "ok"

    def _signal(self, number: int) -> None:
        if self._ending is not None:
            print(f"loam: ended at once, with {self._guard.requests} requests under way", file=sys.stderr, flush=True)
            os._exit(1)
        self._guard.draining = True
        running, grace = self._guard.requests, self._config.limits.grace
        if running:
            print(
                f"loam: {signal.Signals(number).name}: {running} requests have {grace:g} s to end; again ends at once",
                file=sys.stderr,
                flush=True,
            )
        self._ending = asyncio.get_running_loop().create_task(self._end(grace))

    async def _end(self, grace: float) -> None:
        """Leave the requests under way their time; then let their texts end where they are."""
        await self._idle(grace)
        if self._guard.requests:
            logger.warning("%d requests did not end within limits.grace and are cut off", self._guard.requests)
            self._served.thread.cut_off()
            await self._idle(_READING)
        self._server.should_exit = True

    async def _idle(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._guard.requests:
                    await asyncio.sleep(0.02)

    def _fail(self) -> None:
        """The model raised: what is under way was told so, and somebody has to start anew."""
        self._failed = self._guard.draining = True
        self._server.should_exit = True


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("loam", "uvicorn"):
        logging.getLogger(name).addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
