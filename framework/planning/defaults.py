"""What a plan takes where it is told nothing, so that a model, a cluster and a number of tokens are enough."""

import math
from collections.abc import Callable

from framework.checks import require, require_positive
from framework.config import PlanConfig, PretrainConfig
from framework.model.arithmetic import count_parameters
from framework.planning.parameters import Parameters
from framework.planning.plan import memory_limit
from framework.planning.work import CHINCHILLA_TOKENS, steps_for

LENGTH = 4096  # of rows, as of Llama 2's (arXiv:2307.09288, table 1)
# tokens in a batch of models up to so many parameters: GPT-3's, table 2.1 of arXiv:2005.14165
BATCH_TOKENS = ((1e9, 0.5e6), (5e9, 1e6), (100e9, 2e6), (math.inf, 3.2e6))


def settle(config: PlanConfig, given: set[str], parameters: Callable[[PlanConfig], Parameters]) -> None:
    """Rows, batch, steps and micro-batch, in this order.

    Raises:
        UserError: tokens and steps are both given, or neither for a fine-tuning; or the ranks cannot be grouped.
    """
    config.cluster.check()
    config.parallel.check(config.cluster.gpus)
    config.data.sequence_length = config.data.sequence_length or min(LENGTH, config.model.maximum_positions)
    ranks = config.parallel.data_ranks(config.cluster.gpus)
    config.batch.sequences = config.batch.sequences or _sequences(config, ranks)
    require(
        config.purpose != "finetune" or bool(config.data.tokens or config.schedule.steps),
        "data.tokens",
        "is 0",
        "say how many tokens the examples have, of all epochs together, e.g. data.tokens=10e6",
    )
    if not config.data.tokens and not config.schedule.steps:
        config.data.tokens = float(CHINCHILLA_TOKENS * count_parameters(config.model).total)
    settle_steps(config, given)
    if not config.batch.micro:
        share = max(1, config.batch.sequences // ranks)
        limit = memory_limit(config.cluster)
        config.batch.micro = min(8, share) if limit is None else largest(config, parameters(config), limit)


def largest(config: PlanConfig, parameters: Parameters, limit: float) -> int:
    """The largest micro-batch that fits, or 1, of which the plan then says that it does not."""
    from framework.planning.memory import largest_micro

    return largest_micro(config, parameters, config.cluster.gpus, limit) or 1


def settle_steps(config: PretrainConfig, given: set[str]) -> None:
    """`schedule.steps` follows from `data.tokens`, where that is given.

    Raises:
        UserError: both are given.
    """
    if not config.data.tokens:
        return
    require_positive("data.tokens", config.data.tokens)
    require(
        "schedule.steps" not in given,
        "data.tokens",
        f"is {config.data.tokens:g}, and schedule.steps={config.schedule.steps} is given too",
        "leave it out, or set data.tokens=0",
    )
    for name, value in (
        ("batch.sequences", config.batch.sequences),
        ("data.sequence_length", config.data.sequence_length),
    ):
        require_positive(name, value)
    steps = config.schedule.steps = steps_for(config, config.data.tokens)
    ramps = config.schedule.warmup_steps + config.schedule.decay_steps
    require(
        steps >= ramps,
        "data.tokens",
        f"is {config.data.tokens:g}, {steps} steps of {config.batch.sequences} sequences",
        f"schedule.warmup_steps and schedule.decay_steps take {ramps}: give more tokens, or shorten these",
    )


def _sequences(config: PlanConfig, ranks: int) -> int:
    """Of a batch: those of a model of this size, in a number that lanes and ranks allow."""
    if config.purpose == "finetune":
        tokens, lanes = 64.0 * config.data.sequence_length, 1
    else:
        size = count_parameters(config.model).total
        tokens = next(tokens for most, tokens in BATCH_TOKENS if size <= most)
        lanes = config.data.lanes
    unit = math.lcm(lanes, ranks)
    return max(1, round(tokens / config.data.sequence_length / unit)) * unit
