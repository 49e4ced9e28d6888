"""`profile.steps=[10,12]`: what those steps spend their time on, as a trace to look at and a table to read."""

import logging
from pathlib import Path
from typing import Any

import torch

from framework import distributed
from framework.config import ProfileConfig
from framework.errors import UserError

logger = logging.getLogger("loam")
_ROWS = 15  # operations in the table


class Profiler:
    """Traces the steps that are asked for, each rank its own, to `profile/rank-00000.json.gz` in the run directory."""

    def __init__(self, config: ProfileConfig, run: Path, cuda: bool) -> None:
        self._first, self._last = config.steps or (0, 0)
        self._path = run / "profile" / f"rank-{distributed.rank():05d}.json.gz"
        self._cuda = cuda
        self._profile: Any = None

    def before(self, step: int) -> None:
        """The step is about to begin."""
        if self._profile is None and self._first <= step <= self._last:  # a run taken up amid them traces the rest
            from torch.profiler import ProfilerActivity, profile

            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._cuda else [])]
            self._profile = profile(activities=activities, record_shapes=True)
            self._profile.start()

    def after(self, step: int, last: bool) -> str | None:
        """The step is done, and perhaps the last one of this process; where the traces lie, once they are written."""
        if self._profile is None or not (step == self._last or last):
            return None
        if self._cuda:
            torch.cuda.synchronize()
        self._profile.stop()
        distributed.together(self._write)
        self._profile = None
        return f"traced up to step {step}: {self._path.parent}, to be opened in Perfetto or chrome://tracing"

    def _write(self) -> None:
        try:
            self._path.parent.mkdir(exist_ok=True)
            self._profile.export_chrome_trace(str(self._path))
        except (OSError, RuntimeError) as error:
            raise UserError(f"{self._path}: cannot be written ({error}); free some space") from error
        key = "self_device_time_total" if self._cuda else "self_cpu_time_total"
        table = self._profile.key_averages().table(sort_by=key, row_limit=_ROWS, max_name_column_width=60)
        logger.info("the operations that took most of the steps traced:\n%s", table)
