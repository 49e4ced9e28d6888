"""Learning rates against transformers' schedules, which count from the same warm-up."""

import itertools

import pytest
import torch
from transformers.optimization import (
    get_cosine_with_min_lr_schedule_with_warmup,
    get_inverse_sqrt_schedule,
    get_wsd_schedule,
)

from framework.config import ScheduleConfig
from framework.training.optimization.schedule import learning_rate_factor


def peer_factors(scheduler_of, steps):
    """A peer's factor at each update from 1 on."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = scheduler_of(optimizer)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        yield optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(("steps", "warmup", "floor"), [(100, 10, 0.1), (37, 0, 0.0), (20, 20, 0.5), (1, 0, 0.1)])
def test_cosine(steps, warmup, floor):
    schedule = ScheduleConfig(name="cosine", steps=steps, warmup_steps=warmup, minimum_ratio=floor)
    expected = peer_factors(
        lambda o: get_cosine_with_min_lr_schedule_with_warmup(o, warmup, steps, min_lr_rate=floor), steps
    )
    assert [learning_rate_factor(schedule, n) for n in range(1, steps + 1)] == pytest.approx(list(expected))


@pytest.mark.parametrize(
    ("steps", "warmup", "decay", "floor"), [(100, 10, 30, 0.1), (50, 0, 50, 0.0), (30, 5, 25, 0.2)]
)
@pytest.mark.parametrize(("shape", "theirs"), [("linear", "linear"), ("one_minus_sqrt", "1-sqrt")])
def test_warmup_stable_decay(steps, warmup, decay, floor, shape, theirs):
    schedule = ScheduleConfig("warmup_stable_decay", steps, warmup, decay, floor, shape)
    expected = peer_factors(
        lambda o: get_wsd_schedule(o, warmup, decay, num_training_steps=steps, min_lr_ratio=floor, decay_type=theirs),
        steps,
    )
    factors = [learning_rate_factor(schedule, n) for n in range(1, steps + 1)]
    assert factors[:warmup] == pytest.approx([n / warmup for n in range(1, warmup + 1)])  # theirs begins at the floor
    assert factors[warmup:] == pytest.approx(list(expected)[warmup:])


@pytest.mark.parametrize("warmup", [10, 0])
def test_inverse_square_root(warmup):
    schedule = ScheduleConfig("inverse_square_root", steps=300, warmup_steps=warmup, minimum_ratio=0.0)
    expected = list(peer_factors(lambda o: get_inverse_sqrt_schedule(o, warmup, timescale=warmup or None), 300))
    assert [learning_rate_factor(schedule, n) for n in range(1, 301)] == pytest.approx(expected)


def test_an_inverse_square_root_ends_in_a_decay_and_never_falls_below_the_minimum():
    cooled = ScheduleConfig("inverse_square_root", 100, 4, 36, minimum_ratio=0.01)
    assert learning_rate_factor(cooled, 64) == 0.25
    assert learning_rate_factor(cooled, 82) == pytest.approx((0.25 + 0.01) / 2)
    assert learning_rate_factor(cooled, 100) == pytest.approx(0.01)
    held = ScheduleConfig("inverse_square_root", 10_000, 4, minimum_ratio=0.1)
    assert [learning_rate_factor(held, n) for n in (16, 400, 10_000)] == [0.5, 0.1, 0.1]


def test_constant_is_the_peak_after_the_warm_up():
    schedule = ScheduleConfig(name="constant", steps=50, warmup_steps=4)
    assert [learning_rate_factor(schedule, n) for n in range(1, 8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert learning_rate_factor(schedule, 50) == 1


@pytest.mark.parametrize("name", ["cosine", "warmup_stable_decay", "inverse_square_root"])
def test_the_last_update_has_the_minimum_and_no_step_jumps(name):
    schedule = ScheduleConfig(name, steps=200, warmup_steps=20, decay_steps=60, minimum_ratio=0.1)
    factors = [learning_rate_factor(schedule, n) for n in range(1, 201)]
    assert factors[-1] == pytest.approx(0.1)
    assert max(factors) == factors[19] == 1
    assert all(abs(after - before) <= 1 / 20 + 1e-12 for before, after in itertools.pairwise(factors))
