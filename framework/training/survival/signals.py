"""SIGTERM and SIGUSR1 ask a run to stop: the step is finished, a checkpoint written, and the job ends with code 75."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from framework.errors import StopAskedError

ASKING = (signal.SIGTERM, signal.SIGUSR1)


class StopAsked:
    """Whether this rank was asked to stop; the ranks agree on it with the sum they take over each step's loss.

    Attributes:
        name: of the signal that came; empty: none.
    """

    def __init__(self) -> None:
        self.name = ""

    def __bool__(self) -> bool:
        return bool(self.name)

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Take the signals, also if this process was started with them blocked, as some launchers do."""
        before: dict[signal.Signals, Any] = {number: signal.signal(number, self._take) for number in ASKING}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
        after = before
        try:
            yield
        except StopAskedError:
            after = dict.fromkeys(ASKING, signal.SIG_IGN)  # a launcher may send one to ranks that end last
            raise
        finally:
            for number, handler in after.items():
                signal.signal(number, handler)

    def _take(self, number: int, _: FrameType | None) -> None:
        self.name = signal.Signals(number).name
