"""What a person sees of a run while it goes: one live line, or plain lines where there is no terminal."""

import atexit
import sys
import time
from collections import deque
from datetime import timedelta
from typing import Any

_WINDOW = 50  # steps that the time left is worked out from


class Console:
    """A live line on stderr where that is a terminal; else every `log_every`-th step as a line on stdout.

    Args:
        steps: of the whole run.
        done: of these, when this process began.
        log_every: steps between plain lines.
    """

    def __init__(self, steps: int, done: int, log_every: int) -> None:
        self._steps = steps
        self._log_every = log_every
        self._times = deque([time.monotonic()], maxlen=_WINDOW + 1)
        self._bar: Any = None
        self._task: Any = None
        if sys.stderr.isatty():
            self._bar, self._task = _progress_bar(steps, done)
            atexit.register(self._bar.stop)  # an error must not leave the terminal without its cursor

    def step(self, record: dict[str, Any]) -> str:
        """Show a step; returns the line about it."""
        self._times.append(time.monotonic())
        left = self._left(record["step"])
        line = _line(record, self._steps, left)
        if self._bar is not None:
            self._bar.update(self._task, completed=record["step"], description=_short(record, left))
        elif record["step"] % self._log_every == 0 or record["step"] in (1, self._steps):
            print(line, flush=True)
        return line

    def say(self, message: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(message, highlight=False, markup=False, soft_wrap=True)
        else:
            print(message, flush=True)

    def close(self) -> None:
        """The last step is done."""
        if self._bar is not None:
            self._bar.stop()

    def _left(self, step: int) -> str:
        """Time until the last step, with all that lies between steps: validation, checkpoints."""
        seconds = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        return str(timedelta(seconds=round(seconds * (self._steps - step))))


def _progress_bar(steps: int, done: int) -> tuple[Any, Any]:
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        console=Terminal(stderr=True),
        redirect_stdout=sys.stdout.isatty(),  # what goes to a file shall go there
    )
    bar.start()
    return bar, bar.add_task("", total=steps, completed=done)


def _short(record: dict[str, Any], left: str) -> str:
    return f"left {left}  loss {record['train/loss']:.3f}  {record['train/tokens_per_second']:,.0f} tokens/s"


def _line(record: dict[str, Any], steps: int, left: str) -> str:
    held_out = [
        f"  held-out {words}: " + ", ".join(f"{corpus} {value:.3f}" for corpus, value in found)
        for words, key in (("bits/byte", "bits_per_byte"), ("masked loss", "masked_loss"))
        if (found := [(name.split("/")[1], value) for name, value in record.items() if name.endswith(f"/{key}")])
    ]
    return (
        f"step {record['step']:>{len(str(steps))}}/{steps}  loss {record['train/loss']:.4f}  "
        f"gradient norm {record['train/gradient_norm']:.3f}  rate {record['train/learning_rate']:.2e}  "
        f"{record['train/tokens_per_second']:,.0f} tokens/s  MFU {record['train/mfu']:.1%}  left {left}"
        + "".join(held_out)
    )
