"""What arithmetic says of a run before it starts, beside what came of it."""

import math
from dataclasses import dataclass
from pathlib import Path

from framework.config import TrainingConfig
from framework.model.huggingface import parameter_shapes
from framework.planning.memory import memory_of
from framework.planning.parameters import parameters_of
from framework.planning.work import work_of
from framework.training.record.forecast import planned


@dataclass(frozen=True)
class Prediction:
    """Of the whole run.

    Attributes:
        parameters: of the model.
        first_loss: of a model that knows nothing, in nats a token.
        memory: that a rank needs, by its parts, in the moment of an update when most is held.
        tokens: in all steps of the schedule.
        flops: floating-point operations for them, forward and backward.
        seconds_at_peak: time that they take at least, were the processors at their peak all along.
        tokens_per_second: at the utilisation that the cluster's figures state.
    """

    parameters: int
    first_loss: float
    memory: dict[str, float]
    tokens: int
    flops: float
    seconds_at_peak: float
    tokens_per_second: float


def predict(run: Path, config: TrainingConfig, ranks: int, processors: int) -> Prediction:
    """From the configuration and the ranks, and the processors (GPUs or CPU cores) that they have.

    Memory is that of the plan in the run directory; without one, of a run that trains every weight.
    """
    work, peak = work_of(config), config.cluster.tflops(config.precision.dtype) * 1e12 * processors
    plan = planned(run)
    if not plan:
        micro = config.batch.micro_on(config.parallel.data_ranks(ranks))
        plan["memory"] = {
            "parts": memory_of(config, parameters_of(config, parameter_shapes(config.model)), ranks, micro).parts
        }
    return Prediction(
        parameters=work.parameters,
        first_loss=math.log(config.model.vocabulary_size),
        memory={part: held for part, held in plan["memory"]["parts"].items() if held},
        tokens=work.tokens,
        flops=work.flops,
        seconds_at_peak=work.flops / peak,
        tokens_per_second=work.tokens / ((work.flops + work.recomputed_flops) / (peak * config.cluster.mfu)),
    )
