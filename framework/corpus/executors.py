"""Where the tasks of a pipeline run: on the cores of this machine, on Slurm or on Ray.

datatrove does the running; here are the settings it is given, the start of a Ray cluster, and the wait
for a Slurm job, which datatrove leaves to the user.
"""

import contextlib
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from framework.config import ExecutorConfig
from framework.errors import UserError

LOG = "datatrove"  # directory of completions, statistics and logs, beside the tasks
FAILURES = "failures"  # directory with a file for each task that failed, beside the tasks

_SLURM_POLL_SECONDS = 5.0
_SLURM_SETTLE_SECONDS = 30.0  # a shared file system may show the last files of a job that late
_ROOT = Path(__file__).resolve().parents[2]  # where `framework` is imported from, installed or not
_QUEUED = 1000  # array elements of one Slurm job; MaxArraySize is 1001 unless a cluster says otherwise


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def workers_on_this_machine(config: ExecutorConfig, tasks: int) -> int:
    """How many processes of this machine share `tasks` tasks: none but this one unless the executor is local."""
    return min(config.workers or available_cores(), tasks) if config.name == "local" else 1


@contextlib.contextmanager
def cluster(config: ExecutorConfig) -> Iterator[None]:
    """What the executor needs to be there: a Ray cluster, started here or found at `config.ray_address`.

    Raises:
        UserError: Ray or Slurm is not there.
    """
    if config.name == "slurm" and shutil.which("sbatch") is None:
        raise UserError("executor: slurm needs sbatch, which is not on PATH; start on a login node, or executor=local")
    if config.name != "ray":
        yield
        return
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError("executor: ray is not installed; pip install 'loam[ray]', or executor=local") from error
    cores = {} if config.ray_address else {"num_cpus": config.workers or available_cores()}
    try:
        ray.init(
            address=config.ray_address or "local",
            include_dashboard=False if not config.ray_address else None,
            log_to_driver=False,
            logging_level="ERROR",
            **cores,
        )
    except (ConnectionError, ValueError) as error:
        raise UserError(
            f"executor.ray_address: no Ray cluster answers at {config.ray_address!r}; start one, or leave it empty"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def launch(config: ExecutorConfig, label: str, steps: list[PipelineStep], tasks: int, waiting: int, log: Path) -> None:
    """Run a pipeline over its tasks and come back when they are done, or when one has failed.

    Args:
        config: where, and how many at a time.
        label: the job's name on a cluster.
        steps: the pipeline.
        tasks: how many tasks it has.
        waiting: how many of them are still to be done.
        log: datatrove's directory; on a cluster every node must see it.

    Raises:
        Exception: of the task that failed first, where the executor is local (`ProcessExecutor.run`). Ray and
            Slurm keep it to themselves.
    """
    if config.name == "slurm":
        _run_on_slurm(config, label, steps, tasks, log)
    elif config.name == "ray":
        from datatrove.executor.ray import RayPipelineExecutor

        RayPipelineExecutor(
            steps,
            tasks=tasks,
            workers=min(config.workers or waiting, waiting),
            logging_dir=str(log),
            cpus_per_task=config.cpus_per_task,
            mem_per_cpu_gb=config.memory_gigabytes / config.cpus_per_task,
        ).run()
    else:
        from framework.corpus.processes import ProcessExecutor

        workers = workers_on_this_machine(config, waiting)
        ProcessExecutor(steps, tasks=tasks, workers=workers, logging_dir=str(log)).run()


def _run_on_slurm(config: ExecutorConfig, label: str, steps: list[PipelineStep], tasks: int, log: Path) -> None:
    """Submit a job array and wait until its tasks are done, one has failed, or the queue has lost it."""
    from datatrove.executor.slurm import SlurmPipelineExecutor

    executor = SlurmPipelineExecutor(
        steps,
        tasks=tasks,
        time=config.slurm_time,
        partition=config.slurm_partition,
        cpus_per_task=config.cpus_per_task,
        mem_per_cpu_gb=math.ceil(config.memory_gigabytes / config.cpus_per_task),
        workers=config.workers or -1,
        job_name=f"loam-{label.replace(' ', '-')}",
        qos="",  # the cluster's own default
        env_command=f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={_ROOT}:$PYTHONPATH",
        max_array_size=_QUEUED,
        max_array_launch_parallel=True,
        logging_dir=str(log),
        with_srun=False,  # a task is one process on one node, which the batch script is already
    )
    try:
        executor.run()
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"executor: sbatch refused the job (code {error.returncode}; its words stand above); "
            f"check executor.slurm_partition and executor.slurm_time"
        ) from error
    left_queue = math.inf
    while executor.get_incomplete_ranks() and not list((log.parent / FAILURES).glob("*")):
        if not _in_queue(executor.job_name):
            left_queue = min(left_queue, time.monotonic())
            if time.monotonic() - left_queue > _SLURM_SETTLE_SECONDS:
                return
        time.sleep(_SLURM_POLL_SECONDS)


def _in_queue(job_name: str) -> bool:
    """Whether Slurm has elements of the job waiting or running."""
    command = ["squeue", "--me", "--noheader", "--name", job_name]
    return bool(subprocess.run(command, capture_output=True, check=True).stdout.strip())
