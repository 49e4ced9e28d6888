"""Where the nodes of a job meet: is it an address that all of them mean, and are all of them there?

A launcher would wait ten minutes for a node that is not there, and takes this machine for all of them where it was
told nothing else. So before it starts, node 0 listens where its launcher is about to, and the other nodes come and say
which node of how many they are. When all are there, all go on and the port is free again; else each node ends with one
line.

`framework.launcher` does so before torchrun. For other launchers `python -m framework.rendezvous` does it alone, with
NODES, NODE_RANK, MASTER_ADDR and MASTER_PORT from the environment, and exit code 2 if nodes cannot meet.
"""

import errno
import ipaddress
import json
import os
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from framework.errors import UserError

WAIT = 30.0  # seconds that the nodes wait for one another; NODES_WAIT says otherwise
LOOK = 0.5  # seconds between two attempts to reach node 0
GREETING = 5.0  # seconds that a connection, and a word over it, may take
LONGEST_WORD = 10_000  # bytes


@dataclass(frozen=True)
class Meeting:
    """What a node knows of its job.

    Attributes:
        nodes: how many there are.
        node: the number of this one.
        address, port: where node 0 listens.
        asked_as: what the user calls the address.
        wait: seconds that nodes wait for one another.
    """

    nodes: int
    node: int
    address: str
    port: int
    asked_as: str = "MASTER_ADDR"
    wait: float = WAIT

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise UserError(f"{self.asked_as.replace('ADDR', 'PORT')}: is {self.port}; it must lie in 1 to 65535")

    def __str__(self) -> str:
        return f"{self.asked_as}={self.address}, port {self.port}"


def patience() -> float:
    """Seconds that nodes wait for one another, as the environment says."""
    given = os.environ.get("NODES_WAIT", str(WAIT))
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UserError(f"NODES_WAIT: {given!r} is no number of seconds; set it to one, or leave it out for {WAIT:g}")
    return seconds


def meet(meeting: Meeting) -> None:
    """Return on all nodes once all are there.

    Raises:
        UserError: they cannot meet; all that could be reached hear why.
    """
    deadline = time.monotonic() + meeting.wait
    targets = addresses(meeting, deadline)
    if meeting.node == 0:
        with _listen(meeting, targets) as listener:
            _receive(meeting, listener, deadline)
    else:
        require_elsewhere(meeting, targets)
        _visit(meeting, targets, deadline)


def reach(meeting: Meeting) -> None:
    """Return once something listens at the address, or if it is this machine's own; for launchers that number nodes.

    Raises:
        UserError: it is an address of this machine alone, or nothing answers there.
    """
    deadline = time.monotonic() + meeting.wait
    targets = addresses(meeting, deadline)
    if {number for numbers in own_addresses().values() for number in numbers} & set(targets):
        return
    while True:
        for number in targets:
            try:
                socket.create_connection((number, meeting.port), timeout=GREETING).close()
                return
            except OSError as error:
                problem = error.strerror or str(error)
        if time.monotonic() > deadline:
            raise UserError(
                f"{meeting}: cannot be reached ({problem}, for {meeting.wait:g} s, NODES_WAIT); correct the address, "
                "or see whether the job was started there, and whether a firewall is between"
            )
        time.sleep(LOOK)


def addresses(meeting: Meeting, deadline: float) -> list[str]:
    """The IP addresses that the name of node 0 stands for; a name may take until `deadline` to be known.

    Raises:
        UserError: there are none, or it is one of this machine alone.
    """
    while True:
        try:
            found = socket.getaddrinfo(meeting.address, meeting.port, type=socket.SOCK_STREAM)
            break
        except (OSError, UnicodeError) as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{meeting}: no such host ({getattr(error, 'strerror', None) or error}); give the name or the "
                    "address of node 0 as the other nodes see it"
                ) from error
        time.sleep(LOOK)
    numbers = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for number in numbers:
        if is_loopback(number):
            means = "" if number == meeting.address else f" is {number} here (see /etc/hosts), which"
            raise UserError(
                f"{meeting}:{means} means this machine alone on every machine, and there are {meeting.nodes} nodes; "
                f"give an address of node 0 that the others reach{_own() if meeting.node == 0 else ''}"
            )
    return numbers


def is_loopback(number: str) -> bool:
    """Whether an IP address means, on every machine, that machine."""
    address = ipaddress.ip_address(number.partition("%")[0])
    return address.is_loopback or address.is_unspecified


def own_addresses() -> dict[str, list[str]]:
    """IP addresses of this machine by interface, without loopback."""
    import psutil

    families = (socket.AF_INET, socket.AF_INET6)
    found = {
        name: [entry.address.partition("%")[0] for entry in entries if entry.family in families]
        for name, entries in psutil.net_if_addrs().items()
    }
    return {name: kept for name, all_ in found.items() if (kept := [one for one in all_ if not is_loopback(one)])}


def interface_towards(address: str, port: int) -> str | None:
    """The network interface by which this machine reaches another, or itself under that address; None if unknown."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)  # asks for the route and sends nothing
            source = probe.getsockname()[0]
    except OSError:
        return None
    return next((name for name, numbers in own_addresses().items() if source in numbers), None)


def _own() -> str:
    numbers = [number for all_ in own_addresses().values() for number in all_ if ":" not in number]
    return f"; this machine has {', '.join(numbers)}" if numbers else ""


def require_elsewhere(meeting: Meeting, targets: list[str]) -> None:
    """Raise UserError where a node other than the first is told that it is the first."""
    for name, numbers in own_addresses().items():
        for number in set(numbers) & set(targets):
            raise UserError(
                f"{meeting}: is this machine's own address {number} ({name}), but this is node {meeting.node}; give "
                "the address of node 0, the same on every node"
            )


# ----------------------------------------------------------------------------------------------- node 0


def _listen(meeting: Meeting, targets: list[str]) -> socket.socket:
    problems = []
    for number in targets:
        try:
            return socket.create_server(
                (number, meeting.port),
                family=socket.AF_INET6 if ":" in number else socket.AF_INET,
                backlog=meeting.nodes,
            )
        except OSError as error:
            problems.append(error.errno)
    if errno.EADDRINUSE in problems:
        raise UserError(
            f"{meeting}: another program listens there already; end it (perhaps an earlier start of the job), or "
            "give all nodes another MASTER_PORT"
        )
    if errno.EACCES in problems:
        raise UserError(f"{meeting}: this user may not listen there; give all nodes a MASTER_PORT above 1023")
    raise UserError(
        f"{meeting}: {' and '.join(targets)} is no address of this machine, which is node 0{_own()}; give one of "
        "its own to all nodes, or number the nodes otherwise"
    )


def _receive(meeting: Meeting, listener: socket.socket, deadline: float) -> None:
    """Wait for all other nodes, and tell them that all are there, or what is wrong."""
    guests: dict[int, tuple[str, socket.socket]] = {}
    problem = ""
    _say(f"node 0 of {meeting.nodes} waits for the others at {meeting}, {meeting.wait:g} s at most")
    try:
        while not problem and len(guests) < meeting.nodes - 1:
            listener.settimeout(max(0.0, min(LOOK, deadline - time.monotonic())))
            try:
                connection, (number, *_) = listener.accept()
            except (TimeoutError, BlockingIOError):
                pass
            else:
                problem = _take_in(meeting, guests, connection, number)
            guests = {node: guest for node, guest in guests.items() if not _has_gone(guest[1])}
            missing = sorted(set(range(1, meeting.nodes)) - set(guests))
            if not problem and missing and time.monotonic() > deadline:
                problem = (
                    f"{meeting}: {_listed(missing)} of {meeting.nodes} did not come within {meeting.wait:g} s "
                    "(NODES_WAIT); start the job on all of them, and see that they reach node 0"
                )
    finally:
        for _, connection in guests.values():
            _part(connection, problem)
    if problem:
        raise UserError(problem)
    names = ", ".join([socket.gethostname(), *(guests[node][0] for node in sorted(guests))])
    _say(f"{meeting.nodes} nodes have met: {names}")


def _take_in(
    meeting: Meeting, guests: dict[int, tuple[str, socket.socket]], connection: socket.socket, number: str
) -> str:
    """Hear who has come; returns what is wrong with it."""
    connection.settimeout(GREETING)
    word = _hear(connection)
    if word is None or not {"nodes", "node", "host"} <= set(word):  # some other program that knocks at ports
        connection.close()
        return ""
    name = f"{word['host']} ({number})"
    node = word["node"]
    problem = ""
    if word["nodes"] != meeting.nodes:
        problem = (
            f"{meeting}: node {node}, {name}, was told of {word['nodes']} nodes, node 0 of {meeting.nodes}; "
            "give all the same number"
        )
    elif node in guests and not _has_gone(guests[node][1]):
        problem = (
            f"{meeting}: both {guests[node][0]} and {name} say that they are node {node}; give each node a number "
            f"of its own, 0 to {meeting.nodes - 1}"
        )
    if problem:
        _part(connection, problem)
    else:
        guests[node] = (name, connection)
    return problem


def _has_gone(connection: socket.socket) -> bool:
    try:
        connection.setblocking(False)
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _part(connection: socket.socket, problem: str) -> None:
    """Say the last word, and let the other side hang up first: this port is needed again at once."""
    try:
        connection.settimeout(GREETING)
        connection.sendall(json.dumps({"problem": problem}).encode() + b"\n")
        connection.recv(1)
    except OSError as error:
        _say(f"a node has gone that was there before: {error}")
    connection.close()


# ------------------------------------------------------------------------------------------- other nodes


def _visit(meeting: Meeting, targets: list[str], deadline: float) -> None:
    """Go to node 0, and wait there for the others."""
    told = False
    while True:
        problem: str = "nothing answered"
        for number in targets:
            answer, problem = _ask(meeting, number)
            if answer is not None and "problem" in answer:
                if answer["problem"]:
                    raise UserError(answer["problem"])
                return
        if time.monotonic() > deadline:
            raise UserError(
                f"{meeting}: node {meeting.node} cannot meet node 0 there ({problem}, for {meeting.wait:g} s, "
                "NODES_WAIT); correct the address, or see whether node 0 was started and what ended it, and whether "
                "a firewall is between"
            )
        if not told:
            _say(f"node {meeting.node} of {meeting.nodes} waits for node 0 at {meeting}: {problem}")
            told = True
        time.sleep(LOOK)


def _ask(meeting: Meeting, number: str) -> tuple[dict[str, Any] | None, str]:
    """What node 0 says, once it says something; or what is in the way."""
    try:
        with socket.create_connection((number, meeting.port), timeout=GREETING) as connection:
            word = {"node": meeting.node, "nodes": meeting.nodes, "host": socket.gethostname()}
            connection.sendall(json.dumps(word).encode() + b"\n")
            connection.settimeout(meeting.wait + GREETING)  # it began to wait before, and has the same patience
            answer = _hear(connection)
            return answer, "what listens there is no node 0 that waits"
    except OSError as error:
        return None, error.strerror or str(error)


def _hear(connection: socket.socket) -> dict[str, Any] | None:
    """A line of JSON; None for everything else."""
    try:
        with connection.makefile("rb") as lines:
            word = json.loads(lines.readline(LONGEST_WORD))
    except (OSError, ValueError):
        return None
    return word if isinstance(word, dict) else None


def _listed(nodes: list[int]) -> str:
    return f"node {nodes[0]}" if len(nodes) == 1 else f"nodes {', '.join(map(str, nodes))}"


def _say(line: str) -> None:
    print(f"loam: {line}", file=sys.stderr, flush=True)


def main() -> None:
    """Meet, as the environment says."""
    try:
        nodes, node, port = (_whole(name) for name in ("NODES", "NODE_RANK", "MASTER_PORT"))
        if not os.environ.get("MASTER_ADDR"):
            raise UserError("MASTER_ADDR: is not set; give the address of node 0, the same on every node")
        if not 0 <= node < nodes:
            raise UserError(f"NODE_RANK: is {node}, and there are {nodes} nodes; use 0 to {nodes - 1}")
        if nodes > 1:
            meet(Meeting(nodes, node, os.environ["MASTER_ADDR"], port, wait=patience()))
    except UserError as error:
        _say(f"error: {error}")
        sys.exit(2)


def _whole(name: str) -> int:
    given = os.environ.get(name, "")
    if not given.isdecimal():
        raise UserError(f"{name}: {given!r} is no number; set it")
    return int(given)


if __name__ == "__main__":
    main()
