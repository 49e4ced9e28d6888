"""Several hosts on one machine: network namespaces on a switch of their own, each with its address, name and disk.

Needs root and iproute2. What runs in one reaches the others by the switch alone; the link of each can be cut.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.launch import ENVIRONMENT, ROOT

NETWORK = "10.77.0"
_numbers = itertools.count()


def missing() -> str:
    """Why there can be no hosts here; empty: there can."""
    if os.geteuid() != 0:
        return "takes root, for network namespaces"
    if not all(shutil.which(tool) for tool in ("ip", "unshare", "mount", "hostname")):
        return "takes ip (iproute2), unshare, mount and hostname"
    name = f"loam-{os.getpid()}-probe"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "network namespaces cannot be made here"
    _ip("netns", "delete", name)
    return ""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Host:
    """A host: `address`, `name`, and `disk`, a directory that it alone sees as /tmp/loam-disk, where it works."""

    def __init__(self, number: int, folder: Path, group: str) -> None:
        self.number = number
        self.name = f"host-{'abc'[number]}"
        self.address = f"{NETWORK}.{number + 1}"
        self.disk = folder / self.name
        self.disk.mkdir()
        self.space = f"{group}-{self.name}"
        self._etc_hosts = folder / f"{self.name}.hosts"
        self.know({})

    def know(self, names: dict[str, str]) -> None:
        """Write its /etc/hosts: names to addresses, beside its own and localhost."""
        lines = {"localhost": "127.0.0.1", self.name: self.address} | names
        self._etc_hosts.write_text("".join(f"{address} {name}\n" for name, address in lines.items()))

    def start(self, *command: str, **variables: str) -> subprocess.Popen:
        """A process on this host, in its directory; its output is captured."""
        setup = (
            'mkdir -p /tmp/loam-disk && mount -t tmpfs none /tmp/loam-disk && mount --bind "$1" /tmp/loam-disk '
            '&& mount --bind "$2" /etc/hosts && hostname "$3" && cd /tmp/loam-disk && shift 3 && exec "$@"'
        )
        places = (str(self.disk), str(self._etc_hosts), self.name)
        return subprocess.Popen(
            ["ip", "netns", "exec", self.space, "unshare", "--uts", "sh", "-c", setup, "sh", *places, *command],
            env={**ENVIRONMENT, "PYTHON": sys.executable, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


class Hosts:
    """`with Hosts(2, folder) as (a, b):` two hosts, and no more afterwards."""

    def __init__(self, count: int, folder: Path) -> None:
        group = f"loam-{os.getpid()}-{next(_numbers)}"
        self._switch = f"{group}-switch"
        self.hosts = [Host(number, folder, group) for number in range(count)]

    def __enter__(self) -> "Hosts":
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")
        for host in self.hosts:
            port = f"port{host.number}"
            _ip("netns", "add", host.space)
            _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.space)
            _ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
            _ip("-n", host.space, "address", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.space, "link", "set", "eth0", "up")
            _ip("-n", host.space, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for space in (self._switch, *(host.space for host in self.hosts)):
            found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True).stdout
            for number in found.split():
                try:
                    os.kill(int(number), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            subprocess.run(["ip", "netns", "delete", space], capture_output=True)

    def __iter__(self):
        return iter(self.hosts)

    def cut(self, host: Host) -> None:
        """Take its cable out."""
        _ip("-n", self._switch, "link", "set", f"port{host.number}", "down")

    def mend(self, host: Host) -> None:
        """Put it back."""
        _ip("-n", self._switch, "link", "set", f"port{host.number}", "up")


def launch(hosts, *arguments: str, script: str = "torchrun_nodes.sh", **variables: str) -> list[subprocess.Popen]:
    """`launch/SCRIPT ARGUMENTS` on each of some hosts, the first of them node 0, with a rank each."""
    job = {"NODES": str(len(hosts)), "MASTER_ADDR": hosts[0].address, "RANKS": "1", "NODES_WAIT": "20", **variables}
    return [
        host.start(str(ROOT / "launch" / script), *arguments, **{**job, "NODE_RANK": str(node)})
        for node, host in enumerate(hosts)
    ]


def ended(processes: list[subprocess.Popen], seconds: float = 120) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each."""
    results = []
    for process in processes:
        out, err = process.communicate(timeout=seconds)
        results.append((process.returncode, out, err))
    return results
