"""A look at machines before a run: `configs/doctor.yaml`."""

from dataclasses import dataclass

from framework.checks import require_choice, require_positive


@dataclass
class DoctorConfig:
    """`python -m framework.doctor`: what would break a run on these machines."""

    directory: str = "runs"  # where runs will write (run.directory): its disk is measured
    data: str = ""  # what data.path will be, a directory or URL; empty: not looked at
    format: str = "table"  # table | json
    wait: float = 30.0  # seconds that ranks wait for one another
    timeout: float = 10.0  # seconds that a connection between ranks, or a collective, may take
    disk_megabytes: int = 64  # written and read to measure a disk
    network_megabytes: int = 16  # of an all-reduce, to measure the network

    def check(self, world_size: int = 1) -> None:
        require_choice("format", self.format, ("table", "json"))
        for name in ("wait", "timeout", "disk_megabytes", "network_megabytes"):
            require_positive(name, getattr(self, name))
