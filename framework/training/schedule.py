"""Learning rate by step: pure functions, so resuming needs no scheduler state."""

import math

from framework.config import ScheduleConfig


def learning_rate_factor(schedule: ScheduleConfig, step: int) -> float:
    """Share of the peak learning rate at update `step` (the first is 1).

    Linear warm-up from 0, then by name: `cosine` decay to `minimum_ratio` (Loshchilov & Hutter,
    arXiv:1608.03983); `warmup_stable_decay`: constant, then linear over the last `decay_steps`
    (arXiv:2404.06395); `constant`.
    """
    if step <= schedule.warmup_steps:
        return step / schedule.warmup_steps
    floor = schedule.minimum_ratio
    if schedule.name == "cosine":
        span = max(1, schedule.steps - schedule.warmup_steps)
        progress = min(1.0, (step - schedule.warmup_steps) / span)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule.name == "warmup_stable_decay":
        into_decay = step - (schedule.steps - schedule.decay_steps)
        return 1 - (1 - floor) * min(1.0, max(0.0, into_decay / max(1, schedule.decay_steps)))
    return 1.0
