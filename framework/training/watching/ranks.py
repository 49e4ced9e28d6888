"""Which rank is slow? All of them wait for it, so every rank's step takes as long as the slowest one's.

What tells them apart is the time in which a rank works without waiting for another: reading its rows, and its
forward passes. It is measured in single steps (`run.log_every`), and compared in one exchange after them.
"""

import socket
import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

LOOKS = 5  # in a row at which a rank must be slow to be named
MARGIN = 1.3  # times the median of the others
SILENCE = 20  # looks before the same rank is named again


def own_work(module: nn.Module, whole: bool, compiled: bool) -> list[nn.Module]:
    """The parts of a model whose forward passes wait for no other rank.

    Args:
        module: the model.
        whole: it is one itself, as under ZeRO 0 to 2 where ranks share neither rows nor layers. Else those are the
            innermost modules, between the gathering of their weights and their release.
        compiled: its blocks are, so that a look into them would cut their graphs; their weights come together.
    """
    if whole:
        return [module]
    blocks = list(module.get_submodule("blocks").children()) if compiled else []
    within = {inner for block in blocks for inner in block.modules()}
    return blocks + [inner for inner in module.modules() if not any(inner.children()) and inner not in within]


class OwnTime:
    """Seconds that this rank spends on its own work within a step: in the forward passes of `modules`, and more."""

    def __init__(self, modules: list[nn.Module], cuda: bool) -> None:
        self._modules = modules
        self._cuda = cuda
        self._seconds = 0.0
        self._began: list[Any] = []
        self._events: list[tuple[Any, Any]] = []  # of work on a GPU: it is queued, and timed there

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Forward passes in here count."""
        handles = []
        for module in self._modules:  # after the hooks that gather weights, and before those that release them
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(module.register_forward_hook(self._leave, prepend=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """What is done on the CPU in here counts."""
        began = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - began

    def seconds(self) -> float:
        """Of all that was measured."""
        if self._events:
            self._events[-1][1].synchronize()
        return self._seconds + sum(start.elapsed_time(end) for start, end in self._events) / 1000

    def _enter(self, *_: Any) -> None:
        self._began.append(self._event() if self._cuda else time.perf_counter())

    def _leave(self, *_: Any) -> None:
        began = self._began.pop()  # what recomputation breaks off never gets here, and stays below
        if self._cuda:
            self._events.append((began, self._event()))
        else:
            self._seconds += time.perf_counter() - began

    def _event(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@dataclass(frozen=True)
class Standing:
    """How a rank stands: `seconds` of own work in a step, the memory of `memory.usage`, and where it runs."""

    seconds: float
    memory: dict[str, int]
    host: str

    @staticmethod
    def here(seconds: float, memory: dict[str, int]) -> "Standing":
        """That of this rank."""
        return Standing(seconds, memory, socket.gethostname())


def spread(ranks: list[Standing]) -> dict[str, float]:
    """What the record says of the ranks of a job: nothing where there is one."""
    if len(ranks) < 2:
        return {}
    seconds = [rank.seconds for rank in ranks]
    return {
        "train/rank_seconds": statistics.median(seconds),
        "train/rank_seconds_spread": max(seconds) - min(seconds),
        "train/slowest_rank": seconds.index(max(seconds)),
    }


class SlowRanks:
    """Names a rank that is slower than the others at one look after another."""

    def __init__(self) -> None:
        self._slow: deque[int | None] = deque(maxlen=LOOKS)
        self._quiet: dict[int, int] = {}  # by rank, looks left without a word about it

    def look(self, ranks: list[Standing]) -> str | None:
        """A line about the rank that has been slow for long, if there is one to be said now."""
        self._quiet = {rank: looks - 1 for rank, looks in self._quiet.items() if looks > 1}
        self._slow.append(_slow_rank([rank.seconds for rank in ranks]))
        slow = self._slow[-1]
        if slow is None or list(self._slow) != [slow] * LOOKS or slow in self._quiet:
            return None
        self._quiet[slow] = SILENCE
        others = statistics.median(rank.seconds for number, rank in enumerate(ranks) if number != slow)
        return (
            f"rank {slow} on {ranks[slow].host} is slow: reading and forward passes of a step took it "
            f"{ranks[slow].seconds:.3g} s, the others {others:.3g} s, and so for {LOOKS} looks; all wait for it"
        )


def _slow_rank(seconds: list[float]) -> int | None:
    """The slowest of several ranks, where it is slower than the others by the margin."""
    if len(seconds) < 2:
        return None
    slowest = seconds.index(max(seconds))
    others = seconds[:slowest] + seconds[slowest + 1 :]
    return slowest if seconds[slowest] > MARGIN * statistics.median(others) else None
