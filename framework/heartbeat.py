"""Signs of life: whoever makes progress says so, and `framework.training.survival.watchdog` listens.

A process makes progress when its count rises. What may take long and cannot say so while it does, is done
`during` an activity with patience.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

WITHOUT_END = math.inf
FIRST_STEP = 3.0  # times as patient with it: kernels are compiled, connections made


@dataclass
class Pulse:
    """Of this process.

    Attributes:
        count: of beats.
        step: of training, the one being worked on.
        activity: what is done besides training steps; empty: nothing.
        patience: how many times `guard.timeout` that may take.
        given_up: the watchdog is ending the process.
    """

    count: int = 0
    step: int = 0
    activity: str = ""
    patience: float = 1.0
    given_up: bool = False


pulse = Pulse()


def beat() -> None:
    """Progress was made."""
    pulse.count += 1


@contextlib.contextmanager
def during(activity: str, patience: float = 1.0) -> Iterator[None]:
    """Be in an activity, which may take `patience` times as long as a step."""
    before = pulse.activity, pulse.patience
    pulse.activity, pulse.patience = activity, patience
    beat()
    try:
        yield
    finally:
        pulse.activity, pulse.patience = before
        beat()


@contextlib.contextmanager
def training(step: int) -> Iterator[None]:
    """Work on a training step; the first one of a process may take `FIRST_STEP` times as long."""
    first = pulse.step == 0
    pulse.step = step
    with during("first step", FIRST_STEP) if first else contextlib.nullcontext():
        beat()
        yield
