"""Start the entry points as a user does: real processes, real launchers."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "COLUMNS": "200"}

# 20 updates of a model with shapes that no rank count divides, on documents from two corpora
SMALL = (
    "schedule.steps=21",
    "run.stop_after=20",
    "schedule.warmup_steps=2",
    "data.sequence_length=32",
    "data.lanes=8",
    "batch.sequences=16",
    "batch.micro=4",
    "checkpoint.every=10",
    "validation.every=100",
    "model.hidden_size=36",
    "model.layers=2",
    "model.heads=3",
    "model.head_size=12",
    "model.intermediate_size=50",
)


def run(
    module: str, *overrides: str, ranks: int = 1, launcher: str = "torchrun", **options
) -> subprocess.CompletedProcess:
    """`python -m MODULE OVERRIDES`, under a launcher where there are several ranks; output captured."""
    return subprocess.run(
        command(module, *overrides, ranks=ranks, launcher=launcher),
        cwd=options.pop("cwd", ROOT),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=150,
        **options,
    )


def command(module: str, *overrides: str, ranks: int = 1, launcher: str = "torchrun") -> list[str]:
    """The command line of `run`."""
    bin_directory = Path(sys.executable).parent
    if launcher == "deepspeed":
        start = [str(bin_directory / "deepspeed"), "--num_accelerators", str(ranks), "--module"]
    elif ranks > 1:
        start = [str(bin_directory / "torchrun"), "--standalone", "--nproc-per-node", str(ranks), "-m"]
    else:
        start = [sys.executable, "-m"]
    return [*start, module, *overrides]


def start_ranks(module: str, *overrides: str, ranks: int, folders: list[Path] | None = None) -> list[subprocess.Popen]:
    """The processes of a job in one process group, without a launcher's own words and signals in between; each
    started in its own folder, where they are given.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = {**ENVIRONMENT, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes: list[subprocess.Popen] = []
    for rank in range(ranks):
        processes.append(
            subprocess.Popen(
                command(module, *overrides),
                cwd=folders[rank] if folders else None,
                env={**job, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                process_group=processes[0].pid if processes else 0,
            )
        )
    return processes


def pretrain(
    runs: Path, data: Path, name: str, *overrides: str, ranks: int = 1, launcher: str = "torchrun"
) -> list[dict]:
    """A small pretraining run that has to succeed; returns the records of its steps."""
    places = (f"run.directory={runs}", f"run.name={name}", f"data.path={data}")
    done = run("framework.pretrain", *SMALL, *places, *overrides, ranks=ranks, launcher=launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    return records(runs / name)


def records(run_directory: Path) -> list[dict]:
    """What `metrics.jsonl` holds."""
    return [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]
