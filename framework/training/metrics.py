"""The record of a run: one object a step in `metrics.jsonl`, a line on the console, the tracker."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

from framework.training.tracker import Tracker

logger = logging.getLogger("loam")


class Metrics:
    """Writes records; only rank 0 has one.

    Args:
        run: the run directory.
        resumed_at: records of later steps are from before the run was taken up again, and are removed.
        steps: of the whole run.
        log_every: steps between lines where there is no terminal to draw a live line on.
    """

    def __init__(self, run: Path, resumed_at: int, steps: int, log_every: int, tracker: Tracker) -> None:
        self._tracker = tracker
        self._log_every = log_every
        self._steps = steps
        self._path = run / "metrics.jsonl"
        kept = [record for record in read_metrics(self._path) if record["step"] <= resumed_at]
        self._path.write_text("".join(json_line(record) for record in kept))
        self._file = self._path.open("a", buffering=1)
        self._bar: Any = None  # a live line, where there is a terminal to draw it on
        self._task: Any = None
        if sys.stderr.isatty():
            self._bar, self._task = _progress_bar(steps, resumed_at)

    def log(self, record: dict[str, Any]) -> None:
        """Record a step: `step` and metrics by their stable names."""
        self._file.write(json_line(record))
        self._tracker.log(record)
        line = _line(record, self._steps)
        logger.info(line)
        if self._bar is not None:
            self._bar.update(self._task, completed=record["step"], description=_short(record))
        elif record["step"] % self._log_every == 0 or record["step"] in (1, self._steps):
            print(line, flush=True)

    def say(self, message: str) -> None:
        """Something the user should read, on the console and in the log."""
        logger.info(message)
        if self._bar is not None:
            self._bar.console.print(message, highlight=False)
        else:
            print(message, flush=True)

    def later_than(self, step: int) -> list[dict[str, Any]]:
        """The records of later steps."""
        return [record for record in read_metrics(self._path) if record["step"] > step]

    def cut_back_to(self, step: int) -> None:
        """Remove the records of later steps: in place, so that a kill can leave no half of the file."""
        with self._path.open("rb+") as file:
            end = 0
            while (line := file.readline()) and json.loads(line)["step"] <= step:
                end = file.tell()
            file.truncate(end)

    def close(self, summary: dict[str, Any]) -> None:
        """The run is over."""
        if self._bar is not None:
            self._bar.stop()
        self._file.close()
        self._tracker.finish(summary)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a run; a last line that a kill cut off is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def json_line(record: dict[str, Any]) -> str:
    """A record as a line of JSON, which has null for what is not finite."""
    return json.dumps(finite(record)) + "\n"


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """The record with None for what is not finite, of which JSON knows nothing."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }


def _progress_bar(steps: int, done: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True))
    bar.start()
    return bar, bar.add_task("", total=steps, completed=done)


def _short(record: dict[str, Any]) -> str:
    return f"loss {record['train/loss']:.3f}, {record['train/tokens_per_second']:,.0f} tokens/s"


def _line(record: dict[str, Any], steps: int) -> str:
    held_out = [
        f"  held-out {words}: " + ", ".join(f"{corpus} {value:.3f}" for corpus, value in found)
        for words, key in (("bits/byte", "bits_per_byte"), ("masked loss", "masked_loss"))
        if (found := [(name.split("/")[1], value) for name, value in record.items() if name.endswith(f"/{key}")])
    ]
    return (
        f"step {record['step']:>{len(str(steps))}}/{steps}  loss {record['train/loss']:.4f}  "
        f"gradient norm {record['train/gradient_norm']:.3f}  rate {record['train/learning_rate']:.2e}  "
        f"{record['train/tokens_per_second']:,.0f} tokens/s  MFU {record['train/mfu']:.1%}" + "".join(held_out)
    )
