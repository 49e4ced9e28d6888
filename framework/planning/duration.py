"""How long a run takes, from a utilisation that is stated."""

from dataclasses import dataclass

from framework.config import TrainingConfig
from framework.planning.network import Network
from framework.planning.work import Work

DAY = 86_400.0
YEAR = 365 * DAY


@dataclass(frozen=True)
class Duration:
    """Of a whole run, validation and checkpoints left out.

    Attributes:
        mfu: share of the peak that it is worked out with: the cluster's, or less, where the network is slower or
            something is computed twice.
        step_seconds: of a mean step.
        tokens_per_second: of all processors together.
        seconds, days: of all steps.
        gpu_hours: of all processors.
        waits_for_network: whether exchange takes longer than computation at the stated utilisation.
    """

    mfu: float
    step_seconds: float
    tokens_per_second: float
    seconds: float
    days: float
    gpu_hours: float
    waits_for_network: bool


def duration_of(
    flops: float,
    work: Work,
    config: TrainingConfig,
    processors: int,
    network: Network | None = None,
    recomputed: float = 0.0,
) -> Duration:
    """Of `flops` at `cluster.mfu` of the processors' peak, and never faster than the network lets it be.

    Those that are `recomputed` take their time at the same rate, and do not count as used.
    """
    peak = config.cluster.tflops(config.precision.dtype) * 1e12 * processors
    compute = (flops + recomputed) / (peak * config.cluster.mfu)
    exchange = (network.seconds or 0.0) * work.steps if network else 0.0
    seconds = max(compute, exchange)
    return Duration(
        mfu=flops / (peak * seconds),
        step_seconds=seconds / work.steps,
        tokens_per_second=work.tokens / seconds,
        seconds=seconds,
        days=seconds / DAY,
        gpu_hours=seconds * processors / 3600,
        waits_for_network=exchange > compute,
    )
