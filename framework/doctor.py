"""What would break a run here? `python -m framework.doctor`, or with all ranks: launch/torchrun.sh framework.doctor.

Exit code 0: nothing found; 1: something would break a run; 2: a mistake in the command line.
"""

import sys

from framework.app import entry
from framework.config import DoctorConfig
from framework.distributed import rank


@entry("doctor", DoctorConfig, apart=True)
def main(config: DoctorConfig) -> None:
    """Look, and say what was found, on rank 0."""
    from framework.diagnosis.console import as_json, show
    from framework.diagnosis.examination import examine

    findings = examine(config)
    if rank() == 0:
        if config.format == "json":
            print(as_json(findings), flush=True)
        else:
            show(findings)
    if any(finding.breaks for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
