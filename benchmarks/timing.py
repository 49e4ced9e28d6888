"""How long a call takes: on a GPU by events on the GPU's own clock, elsewhere by the wall clock."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

State = TypeVar("State")

# Written over before each timed call on a GPU. It is many times any L2 there is, so that no call finds its input
# there; and writing it takes the GPU longer than the host needs to send the call's kernels, so that none waits.
FLUSHED_BYTES = 1 << 30


def sample(
    prepare: Callable[[], State], call: Callable[[State], object], device: torch.device, seconds: float
) -> list[float]:
    """Seconds of each of several calls, that together with what precedes them take about `seconds`; 3 to 100 of them.

    prepare: makes what a call consumes, such as the graph that a backward pass goes back through; not timed.
    """
    clock = _on_gpu if device.type == "cuda" else _on_cpu
    began = time.perf_counter()
    clock(prepare, call, device, 2)
    once = (time.perf_counter() - began) / 2
    return clock(prepare, call, device, int(min(max(seconds / once, 3), 100)))


def warm(prepare: Callable[[], State], call: Callable[[State], object], device: torch.device) -> None:
    """Let everything compile, load and reserve that does so at first."""
    for _ in range(3):
        call(prepare())
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _on_gpu(
    prepare: Callable[[], State], call: Callable[[State], object], device: torch.device, count: int
) -> list[float]:
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.int8, device=device)
    events = []
    for _ in range(count):
        state = prepare()
        flushed.zero_()
        flushed.zero_()
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        call(state)
        ended.record()
        events.append((begun, ended))
    torch.cuda.synchronize(device)
    return [begun.elapsed_time(ended) / 1e3 for begun, ended in events]


def _on_cpu(
    prepare: Callable[[], State], call: Callable[[State], object], device: torch.device, count: int
) -> list[float]:
    taken = []
    for _ in range(count):
        state = prepare()
        began = time.perf_counter()
        call(state)
        taken.append(time.perf_counter() - began)
    return taken
