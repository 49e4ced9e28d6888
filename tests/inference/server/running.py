"""A server as a user starts it, and one without a process."""

import contextlib
import re
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from framework.config import ServeConfig
from tests.launch import ENVIRONMENT, ROOT, command


@dataclass
class Server:
    """`url` without /v1; `model`: as it is called."""

    process: subprocess.Popen
    url: str
    model: str
    errors: Path

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def metric(self, name: str) -> float:
        """The sum over its labels that match; 0 for none."""
        text = httpx.get(self.url + "/metrics", timeout=60).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(name, line))

    def resident(self) -> int:
        """MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) // 1024

    def end(self) -> int:
        """Exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def running(model: Path, *overrides: str, key: str | None = None) -> Iterator[Server]:
    """`python -m framework.serve` on a free port."""
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "LOAM_API_KEY"}
    environment |= {} if key is None else {"LOAM_API_KEY": key}
    with tempfile.NamedTemporaryFile("w", suffix=".log") as errors:
        process = subprocess.Popen(
            command("framework.serve", f"model.path={model}", "port=0", *overrides),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            told = process.stdout.readline()
            found = re.search(r"at (http://\S+)/ and", told)
            assert found, told + Path(errors.name).read_text()
            yield Server(process, found[1], str(model), Path(errors.name))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@contextlib.asynccontextmanager
async def in_process(
    config: ServeConfig, *, key: str | None = None, check_host: bool = False
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application itself, without a port; an answer comes as a whole."""
    from framework.inference.server.app import create_app
    from framework.inference.server.guard import Guard
    from framework.inference.server.metrics import Metrics
    from framework.inference.server.served import load

    served = load(config)(lambda: None)
    metrics = Metrics(lambda: served.thread.running, lambda: served.thread.waiting)
    guard = Guard(create_app(served, metrics, lambda: "ok"), config.limits, metrics, key, check_host)
    served.thread.start()
    transport = httpx.ASGITransport(guard)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=60) as client:
            client.served, client.guard = served, guard
            yield client
    finally:
        served.thread.stop()
