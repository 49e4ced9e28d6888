"""Learning rate by step: pure functions, so resuming needs no scheduler state."""

import math

from framework.config import ScheduleConfig

TIMESCALE = 10_000  # steps; of the inverse square root where there is no warm-up to give it one


def learning_rate_factor(schedule: ScheduleConfig, step: int) -> float:
    """Share of the peak learning rate at update `step` (the first is 1).

    Linear warm-up from 0, then by name: `cosine` decay to `minimum_ratio` (Loshchilov & Hutter,
    arXiv:1608.03983); `warmup_stable_decay`: constant, then a decay over the last `decay_steps`
    (arXiv:2404.06395); `inverse_square_root`: as sqrt(warm-up / step) and not below `minimum_ratio`
    (arXiv:1706.03762), then the same decay; `constant`.
    """
    if step <= schedule.warmup_steps:
        return step / schedule.warmup_steps
    floor = schedule.minimum_ratio
    if schedule.name == "cosine":
        span = max(1, schedule.steps - schedule.warmup_steps)
        progress = min(1.0, (step - schedule.warmup_steps) / span)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule.name == "constant":
        return 1.0
    decay_begins = schedule.steps - schedule.decay_steps
    before = _before_decay(schedule, min(step, decay_begins))
    progress = min(1.0, max(0.0, (step - decay_begins) / max(1, schedule.decay_steps)))
    gone = math.sqrt(progress) if schedule.decay_shape == "one_minus_sqrt" else progress
    return before - (before - floor) * gone


def _before_decay(schedule: ScheduleConfig, step: int) -> float:
    if schedule.name == "warmup_stable_decay":
        return 1.0
    timescale = schedule.warmup_steps or TIMESCALE
    since = max(0, step - schedule.warmup_steps)
    return max(schedule.minimum_ratio, math.sqrt(timescale / (timescale + since)))
