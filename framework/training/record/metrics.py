"""The record of a run: one object a step in `metrics.jsonl`, a line on the console, the tracker."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from framework.training.record.console import Console
from framework.training.record.json_lines import cut_back, json_line, objects
from framework.training.record.report.page import LiveReport
from framework.training.record.tracker import Tracker

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
        self._path = run / "metrics.jsonl"
        self._samples = run / "samples.jsonl"
        self.cut_back_to(resumed_at)
        self._file = self._path.open("a", encoding="utf-8", buffering=1)
        self._console = Console(steps, resumed_at, log_every)
        self._report = LiveReport(run)

    def log(self, record: dict[str, Any], words: list[str], samples: list[dict[str, Any]]) -> None:
        """Record a step.

        Args:
            record: `step`, and metrics by their stable names.
            words: lines that the user should read.
            samples: `step`, `prompt` and `text` of what the model wrote after it.
        """
        self._file.write(json_line(record))
        self._tracker.log(record)
        logger.info(self._console.step(record))
        for line in words:
            self.say(line)
        if samples:
            self._keep(samples)
            self._tracker.log_samples(record["step"], samples)

    def _keep(self, samples: list[dict[str, Any]]) -> None:
        with self._samples.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(sample) + "\n" for sample in samples)
        for sample in samples:
            logger.info("sample at step %d: %r goes on %r", sample["step"], sample["prompt"], sample["text"])

    def sync(self) -> None:
        """Bring the records to the disk, before a checkpoint from which the run goes on without them."""
        os.fsync(self._file.fileno())

    def say(self, message: str) -> None:
        """Something the user should read, on the console and in the log."""
        logger.info(message)
        self._console.say(message)

    def checkpointed(self) -> None:
        """There is a new checkpoint: time to write the report anew."""
        self._report.refresh()

    def later_than(self, step: int) -> list[dict[str, Any]]:
        """The records of later steps."""
        return [record for record in objects(self._path) if record["step"] > step]

    def cut_back_to(self, step: int) -> None:
        """Remove the records and samples of later steps."""
        for path in (self._path, self._samples):
            cut_back(path, step)

    def close(self, summary: dict[str, Any]) -> None:
        """The run is over."""
        self._console.close()
        self._file.close()
        self._tracker.finish(summary)
        self._report.refresh(whatever_it_costs=True)
