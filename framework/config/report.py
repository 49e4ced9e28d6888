"""A report on a run: `configs/report.yaml`."""

from dataclasses import dataclass

from framework.checks import require


@dataclass
class ReportConfig:
    """`python -m framework.report`: `report.html` of a run, from its files, also while it goes."""

    path: str = ""  # the run directory, such as runs/first

    def check(self, world_size: int = 1) -> None:
        require(world_size == 1, "torchrun", f"started {world_size} processes", "report runs as one")
        require(bool(self.path), "path", "is missing", "give a run directory, e.g. path=runs/demo")
