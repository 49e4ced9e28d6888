"""The page of a run, from its files: `python -m framework.report path=runs/first`."""

from pathlib import Path

from framework.app import entry
from framework.config import ReportConfig


@entry("report", ReportConfig)
def main(config: ReportConfig) -> None:
    """Write `report.html` into the run directory, and say where it is."""
    from framework.training.record.report.page import write_report

    print(write_report(Path(config.path)))


if __name__ == "__main__":
    main()
