"""A job in which a rank hangs ends soon, and says which rank it is, where, and what the others wait in.

A thread on every rank writes to the job's store, several times within `guard.timeout`, how far its rank has come
(`framework.heartbeat`), and reads what the others wrote. Nobody's progress for that long: the job hangs, and every
thread writes where its rank is. The hung one is the one whose thread is silent (it is stopped, or holds the
interpreter's lock), or else the one that is in no collective.
"""

import faulthandler
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from framework import distributed, failure, job_store
from framework.heartbeat import pulse

logger = logging.getLogger("loam")

HUNG = 70  # exit code
LOOKS = 20  # within a timeout
SHORTEST, LONGEST = 0.1, 5.0  # seconds between two looks
POLL = 0.5  # seconds, once it is known that the job hangs
SILENT = 4  # looks without a word after which a rank counts as silent once the job hangs
WAITING = re.compile(r"\.(wait|synchronize)\(")  # calls into C++ that wait for a collective, or for the GPU
STACK_LINES = 12  # of the hung rank's stack on stderr; its log has all threads


@dataclass
class Sign:
    """What a rank writes to the store.

    Attributes:
        looks: of its thread, so that a silent one shows.
        count, step, activity, patience: of `framework.heartbeat.Pulse`.
        left: it no longer trains, and nobody should wait for it.
        report: where it was when it found that the job hangs.
    """

    looks: int = 0
    count: int = 0
    step: int = 0
    activity: str = ""
    patience: float = 1.0
    left: bool = False
    report: dict[str, Any] | None = None


@dataclass
class Process:
    """Of a rank: enough to end it from another one on the same machine."""

    host: str = field(default_factory=socket.gethostname)
    number: int = field(default_factory=os.getpid)
    started: str = ""

    def is_here(self) -> bool:
        """Whether it runs on this machine, and its number has not gone to another process since."""
        return self.host == socket.gethostname() and bool(self.started) and start_time(self.number) == self.started


def start_time(process: int) -> str:
    """When a process of this machine was started, in the kernel's ticks; empty where that is not told."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


class Judge:
    """Judges from the signs of all ranks whether the job hangs; knows no clock but the one it is told.

    Args:
        ranks: how many there are.
        timeout: `guard.timeout`, in seconds.
        interval: seconds between two looks.
    """

    def __init__(self, ranks: int, timeout: float, interval: float) -> None:
        self._timeout = timeout
        self._interval = interval
        self._signs = [Sign() for _ in range(ranks)]
        self._heard = [0.0] * ranks  # when each rank's thread last wrote
        self._progress = 0.0  # when a rank last made any

    def look(self, signs: Sequence[Sign], now: float) -> bool:
        """Take note of the signs; whether the job hangs."""
        for rank, (before, sign) in enumerate(zip(self._signs, signs, strict=True)):
            if sign.looks != before.looks or sign.left:
                self._heard[rank] = now
            if sign.count != before.count or sign.left:
                self._progress = now
        self._signs = list(signs)
        if any(sign.report for sign in signs) or self.silent(now, self._timeout):
            return True
        patience = max(sign.patience for sign in signs)
        return now - self._progress > self._timeout * patience

    def silent(self, now: float, seconds: float) -> list[int]:
        """Ranks whose threads have written nothing for so long."""
        return [rank for rank, heard in enumerate(self._heard) if now - heard > seconds]

    def hung(self, signs: Sequence[Sign], now: float) -> list[int]:
        """The ranks for which the others wait: silent ones, or else those that are in no collective.

        Where NCCL is, ranks may wait outside of a collective, for the GPU; the hung one is then where few are.
        """
        silent = self.silent(now, SILENT * self._interval)
        if silent:
            return silent
        outside = [rank for rank, sign in enumerate(signs) if sign.report and not sign.report["collective"]]
        if len(outside) < len(signs):
            return outside or list(range(len(signs)))
        places = Counter(sign.report["at"] for sign in signs if sign.report)
        fewest = min(places.values())
        few = [rank for rank in outside if (report := signs[rank].report) and places[report["at"]] == fewest]
        return few if len(places) > 1 else outside


class Watchdog:
    """`with Watchdog(timeout):` on every rank, around training. A timeout of 0 watches nothing.

    Args:
        timeout: `guard.timeout`, in seconds.
    """

    _number = 0  # of watchdogs that this process has had: a sweep trains several times

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._interval = min(max(timeout / LOOKS, SHORTEST), LONGEST)
        self._main = threading.get_ident()
        self._stop = threading.Event()
        self._sign = Sign()
        self._ranks = distributed.world_size()
        self._signs = [Sign() for _ in range(self._ranks)]  # as last read
        self._board: Any = None
        self._keys: list[str] = []
        self._processes: list[Process] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Watchdog":
        pulse.step = 0
        if not self._timeout:
            return self
        Watchdog._number += 1
        limit_collectives(self._timeout)
        self._keys = [f"pulse/{Watchdog._number}/{rank}" for rank in range(self._ranks)]
        self._board = distributed.board(max(2.0, 2 * self._interval))
        self._exchange(read=False)
        self._processes = distributed.gather(Process(started=start_time(os.getpid())))  # and now all have written
        # Two, as a store that is stopped does not answer, and lets no request end by itself.
        self._threads = [
            threading.Thread(target=self._keep_exchanging, name="watchdog's signs", daemon=True),
            threading.Thread(target=self._watch, name="watchdog", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._threads or pulse.given_up:
            return
        self._sign.left = True
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=SHORTEST if error else 2 * LONGEST)  # a store that is gone would hold up the bad news
        faulthandler.cancel_dump_traceback_later()

    def _keep_exchanging(self) -> None:
        while not self._stop.wait(POLL if pulse.given_up else self._interval):
            self._exchange()
        self._exchange(read=False)  # that this rank has left

    def _exchange(self, read: bool = True) -> None:
        """Tell the others how far this rank is, and hear how far they are."""
        sign = self._sign
        sign.looks += 1
        sign.count, sign.step, sign.activity, sign.patience = pulse.count, pulse.step, pulse.activity, pulse.patience
        if self._board is None:
            self._signs = [Sign(**asdict(sign))]
            return
        try:
            self._board.set(self._keys[distributed.rank()], json.dumps(asdict(sign)))
            if read:
                self._signs = [Sign(**json.loads(text)) for text in self._board.multi_get(self._keys)]
        except RuntimeError as error:
            logger.warning("watchdog: the job's store does not answer: %s", error)

    def _watch(self) -> None:
        judge = Judge(self._ranks, self._timeout, self._interval)
        now, before = 0.0, time.monotonic()
        while not self._stop.wait(self._interval):
            elapsed, before = time.monotonic() - before, time.monotonic()
            now += min(elapsed, 2 * self._interval)  # while the whole job is suspended, no time passes
            faulthandler.dump_traceback_later(self._timeout, exit=False)  # for a thread that never gets here again
            if judge.look(self._signs, now):
                pulse.given_up = True
                self._end(judge, now)

    # ----------------------------------------------------------------------------------- the end

    def _end(self, judge: Judge, now: float) -> None:
        """Say where this rank is, hear where the others are, tell the user, and end the process."""
        rank = distributed.rank()
        self._sign.report = where(sys._current_frames()[self._main])
        for _ in range(round(3 * SILENT * self._interval / POLL)):
            time.sleep(POLL)
            now += POLL
            judge.look(self._signs, now)
            silent = judge.silent(now, SILENT * self._interval)
            if all(sign.report or number in silent for number, sign in enumerate(self._signs)):
                break
        signs = list(self._signs)
        signs[rank] = self._sign
        hung = judge.hung(signs, now)
        cut_off = rank in hung and signs[rank].report and len(hung) == self._ranks > 1  # nor do its own signs come back
        if cut_off:
            hung = [] if job_store.kept_by_launcher() else [0]
        lines = verdict(signs, hung, self._timeout, [process.host for process in self._processes])
        for line in lines:
            logger.error(line)
        _log_all_stacks()
        speaker = next((number for number in range(self._ranks) if number not in hung), 0)
        if distributed.local_rank() == 0 if cut_off else rank == speaker:  # each machine for itself, or one for all
            print("\n".join(f"loam: {line}" for line in lines), file=sys.stderr, flush=True)
        failure.write_error_file(failure.report_of(lines[0]))
        for number in hung:
            process = self._processes[number]
            if signs[number].report is None and number != rank and process.is_here():
                os.kill(process.number, signal.SIGKILL)  # it cannot end itself, and a launcher would wait for it
        logging.shutdown()
        time.sleep(2 * POLL)  # the store may be in this process, and others have yet to read it
        os._exit(HUNG)


def limit_collectives(timeout: float) -> None:
    """Let collectives fail by themselves too, should no watchdog be left; later than it speaks, and than a hand-off."""
    import torch.distributed as dist

    if dist.is_initialized() and dist.group.WORLD is not None:
        dist.group.WORLD.set_timeout(timedelta(seconds=max(10 * timeout, 3600.0)))


def where(frame: Any) -> dict[str, Any]:
    """Where a thread is: its stack, the line of ours that it is at, and the collective that it waits in, if any."""
    frames = list(traceback.extract_stack(frame))
    ours = [f for f in frames if "/framework/" in f.filename] or frames
    at = f"{'/'.join(Path(ours[-1].filename).parts[-3:])}:{ours[-1].lineno}, {ours[-1].name}"
    collective = ""
    for inner in reversed(frames):
        if "/torch/distributed/" not in inner.filename:
            break
        if "c10d_logger" not in inner.filename:
            collective = inner.name
    if not collective and WAITING.search(frames[-1].line or ""):
        collective = (frames[-1].line or "").strip()  # started before, and now waited for
    return {"at": at, "collective": collective, "stack": traceback.format_list(frames[-STACK_LINES:])}


def verdict(signs: Sequence[Sign], hung: Sequence[int], timeout: float, hosts: Sequence[str] = ()) -> list[str]:
    """What the user reads: which rank hangs and where, and in what the others wait; of several hosts, on which."""
    names = [f"rank {rank}" for rank in range(len(signs))]
    store = "hung: the job's store, which the launcher keeps, does not answer"
    if len(set(hosts)) > 1:
        names = [f"rank {rank} on {host}" for rank, host in enumerate(hosts)]
        store += f": {hosts[0]}, where it is, or the network to it is gone"
    lines = [] if hung else [store]
    for rank in hung:
        sign = signs[rank]
        doing = f"step {sign.step}{f' ({sign.activity})' if sign.activity else ''}"
        if sign.report is None:
            lines.append(
                f"hung: {names[rank]}, last heard of at {doing}: silent, so it was stopped (SIGSTOP), or its machine "
                "is gone, or code that never lets Python run holds it"
            )
            continue
        collective = f" in {sign.report['collective']}" if sign.report["collective"] else ""
        lines.append(f"hung: {names[rank]} at {doing}:{collective} at {sign.report['at']}; its stack:")
        lines += [line for entry in sign.report["stack"] for line in entry.rstrip().splitlines()]
    for rank, sign in enumerate(signs):
        if rank not in hung and sign.report:
            waits = sign.report["collective"] or "no collective"
            lines.append(f"{names[rank]} waits in {waits} (step {sign.step}, {sign.report['at']})")
    lines.append(
        f"no progress for {timeout:g} s (guard.timeout): the job ends; started again it goes on from the newest "
        "checkpoint"
    )
    return lines


def _log_all_stacks() -> None:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for number, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame)).rstrip()
        logger.error("thread %s:\n%s", names.get(number, number), stack)
