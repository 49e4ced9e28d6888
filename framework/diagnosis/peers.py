"""Which ranks reach which, in what time, and whether their clocks agree: plain sockets, so that one bad pair shows."""

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from framework import rendezvous
from framework.diagnosis.finding import Finding, breaks, doubt

PINGS = 7  # to each peer, of which the quickest counts
CALLERS = 32  # peers called at a time
TIME = struct.Struct("!d")
SLOW = 0.01  # seconds of a round trip above which collectives crawl
SKEW = 1.0  # seconds between clocks above which logs of several machines mislead
WORST_SKEW = 300.0  # seconds: object stores refuse requests signed so far off (S3: 15 minutes)

Clock = Callable[[], float]


@dataclass(frozen=True)
class Answer:
    """Of a peer.

    Attributes:
        seconds: of the quickest round trip; infinite where it was not reached.
        ahead: seconds by which its clock is ahead of this one's, within half a round trip.
        problem: why it was not reached.
    """

    seconds: float
    ahead: float = 0.0
    problem: str = ""


class Station:
    """Answers the calls of other ranks with the time, from a thread.

    Args:
        clock: gives the time of day, in seconds.
    """

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        self._listener = socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=both)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, name="doctor's station", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while connection.recv(1):
                connection.sendall(TIME.pack(self._clock()))

    def close(self) -> None:
        """Answer no more."""
        self._listener.close()


def own_address() -> str:
    """The address under which other machines of the job reach this one."""
    master = os.environ.get("MASTER_ADDR", "127.0.0.1")
    port = int(os.environ.get("MASTER_PORT", "1"))
    interface = os.environ.get("GLOO_SOCKET_IFNAME") or rendezvous.interface_towards(master, port)
    numbers = rendezvous.own_addresses().get(interface or "", [])
    plain = [number for number in numbers if ":" not in number]
    return next(iter([*plain, *numbers]), "127.0.0.1")


def call(address: str, port: int, patience: float, clock: Clock = time.time) -> Answer:
    """Ask a station for the time, several times.

    Args:
        address, port: where it is.
        patience: seconds that connecting, and each answer, may take.
        clock: of this side.
    """
    try:
        with socket.create_connection((address, port), timeout=patience) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            trips = []
            for _ in range(PINGS):
                asked, began = clock(), time.perf_counter()
                connection.sendall(b"?")
                there = TIME.unpack(connection.recv(TIME.size, socket.MSG_WAITALL))[0]
                took = time.perf_counter() - began
                trips.append((took, there - (asked + took / 2)))
    except (OSError, struct.error) as error:
        return Answer(float("inf"), problem=getattr(error, "strerror", None) or str(error))
    seconds, ahead = min(trips)
    return Answer(seconds, ahead)


def call_all(stations: Sequence[dict[str, Any] | None], own: int, patience: float) -> list[Answer | None]:
    """Call every other rank's station; None for this rank's own, and for ranks without one."""

    def one(rank: int) -> Answer | None:
        station = stations[rank]
        if rank == own or station is None:
            return None
        return call(station["address"], station["port"], patience)

    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(one, range(len(stations))))


def check_reach(stations: Sequence[dict[str, Any] | None], answers: Sequence[Sequence[Answer | None]]) -> list[Finding]:
    """Every pair of ranks; `answers[a][b]` is what `a` got from `b`."""
    findings, trips = [], []
    for caller, row in enumerate(answers):
        for called, answer in enumerate(row):
            if answer is None:
                continue
            if answer.problem:
                there = stations[called] or {}
                findings.append(
                    breaks(
                        "network",
                        f"{named(stations, caller)} cannot reach {named(stations, called)} at "
                        f"{there.get('address')}: {answer.problem}",
                        "open all TCP ports between the machines, and see that GLOO_SOCKET_IFNAME and "
                        "NCCL_SOCKET_IFNAME name an interface that all reach",
                    )
                )
            else:
                trips.append((answer.seconds, caller, called))
    if trips:
        seconds, caller, called = max(trips)
        pair = f"{named(stations, caller)} to {named(stations, called)}"
        fact = (
            f"{len(trips)} of {len(trips) + len(findings)} directions reached, slowest {1e6 * seconds:.0f} µs: {pair}"
        )
        remedy = "see whether something between the machines is slow or busy"
        findings.append(doubt("network", fact, remedy) if seconds > SLOW else Finding("network", fact))
    return findings


def check_clocks(stations: Sequence[dict[str, Any] | None], to_first: Sequence[Answer | None]) -> list[Finding]:
    """Clocks against rank 0's; `to_first[r]` is what rank `r` got from rank 0."""
    known = [(abs(a.ahead), a, rank) for rank, a in enumerate(to_first) if a is not None and not a.problem]
    if not known:
        return []
    size, answer, rank = max(known, key=lambda entry: entry[0])
    bound = answer.seconds / 2
    fact = (
        f"that of {named(stations, rank)} is {-answer.ahead:+.3f} s from rank 0's, give or take {1000 * bound:.2f} ms"
    )
    if size - bound > WORST_SKEW:
        return [
            breaks("clocks", fact, "set the clocks, with chrony or systemd-timesyncd: object stores refuse requests")
        ]
    if size - bound > SKEW:
        return [doubt("clocks", fact, "set the clocks, with chrony or systemd-timesyncd: logs mislead")]
    return [Finding("clocks", fact)]


def named(stations: Sequence[dict[str, Any] | None], rank: int) -> str:
    """A rank with its machine."""
    station = stations[rank]
    return f"rank {rank}" + (f" ({station['host']})" if station else "")


def check_names(stations: Sequence[dict[str, Any] | None]) -> list[Finding]:
    """Machines with one name between them."""
    addresses: dict[str, set[str]] = {}
    for station in stations:
        if station is not None:
            addresses.setdefault(station["host"], set()).add(station["address"])
    twins = {host: sorted(where) for host, where in addresses.items() if len(where) > 1}
    return [
        doubt("host names", f"{host} is the name of {', '.join(where)}", "give each machine a name of its own")
        for host, where in twins.items()
    ]
