"""How large checkpoints are, how often to write one, and what failures cost in spite of them."""

import math
from dataclasses import dataclass

from framework.config import TrainingConfig
from framework.planning.parameters import Parameters


@dataclass(frozen=True)
class Checkpoints:
    """Of a run.

    Attributes:
        bytes: of one checkpoint: fp32 weights, moments and, if there is one, average of all that is trained.
        disk_bytes: of those that are kept at a time, and the one being written.
        write_seconds: for one, all nodes together.
        hours_between_failures: of the whole job.
        interval_seconds: between two checkpoints, that loses least time.
        interval_steps: the same in steps, for `checkpoint.every`.
        failures: to be expected over the run.
        lost_share: of the time that is lost to checkpoints and failures at that interval, expected.
    """

    bytes: int
    disk_bytes: int
    write_seconds: float
    hours_between_failures: float
    interval_seconds: float
    interval_steps: int
    failures: float
    lost_share: float


def checkpoints_of(
    config: TrainingConfig, parameters: Parameters, gpus: int, step_seconds: float, steps: int
) -> Checkpoints:
    """By Young (1974, doi:10.1145/361147.361115): the interval is sqrt(2 x time to write x time between failures).

    Daly (2006, doi:10.1016/j.future.2004.11.016) adds terms that matter only where writing takes a good part of the
    time between failures. The time lost is a checkpoint in each interval, and in each failure half an interval and a
    restart.
    """
    cluster = config.cluster
    size = 4 * (parameters.whole_trained + parameters.whole_kept)
    write = size / (cluster.disk_gb_per_second * 1e9)
    between = 3600 * cluster.gpu_hours_per_failure / gpus
    interval = max(step_seconds, math.sqrt(2 * write * between))
    total = steps * step_seconds
    lost = write / interval + (interval / 2 + 60 * cluster.restart_minutes) / between
    return Checkpoints(
        bytes=size,
        disk_bytes=size * (config.checkpoint.keep + 1),
        write_seconds=write,
        hours_between_failures=between / 3600,
        interval_seconds=interval,
        interval_steps=max(1, round(interval / step_seconds)),
        failures=total / between,
        lost_share=min(1.0, lost),
    )
