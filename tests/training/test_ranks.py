"""Which rank is named as slow, and what counts as its own time, by a clock that only the test moves."""

import time
from collections import OrderedDict

import pytest
import torch
from torch import nn

from framework.training.watching.ranks import LOOKS, SILENCE, OwnTime, SlowRanks, Standing, own_work, spread


def standings(*seconds):
    return [Standing(value, {"memory/peak_bytes": 1}, f"host-{rank}") for rank, value in enumerate(seconds)]


def lines(looks):
    slow_ranks = SlowRanks()
    return [slow_ranks.look(standings(*seconds)) for seconds in looks]


def test_a_rank_that_stays_slow_is_named_and_then_left_in_peace():
    said = lines([(1.0, 1.1, 2.0, 0.9)] * (LOOKS + SILENCE))
    assert [number for number, line in enumerate(said, start=1) if line] == [LOOKS, LOOKS + SILENCE]
    assert "rank 2 on host-2 is slow" in said[LOOKS - 1]
    assert "took it 2 s, the others 1 s" in said[LOOKS - 1]


@pytest.mark.parametrize(
    "looks",
    [
        [(1.0, 1.1, 1.2)] * 30,  # within what is usual
        [(1.0, 2.0, 1.0)] * (LOOKS - 1) + [(1.0, 1.0, 1.0)],  # not for long
        [(1.0, 2.0, 1.0), (2.0, 1.0, 1.0)] * 10,  # now one, now another
        [(3.0,)] * 30,  # alone
    ],
)
def test_no_other_is_named(looks):
    assert not any(lines(looks))


def test_of_two_ranks_the_slow_one_is_named():
    assert lines([(1.0, 1.5)] * LOOKS)[-1].startswith("rank 1 on host-1 ")


def test_the_record_says_how_ranks_differ():
    assert spread(standings(2.0, 5.0, 3.0)) == {
        "train/rank_seconds": 3.0,
        "train/rank_seconds_spread": 3.0,
        "train/slowest_rank": 1,
    }
    assert spread(standings(2.0)) == {}


class Takes(nn.Module):
    """Takes so many seconds of the test's clock."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.clock, self.seconds = clock, seconds

    def forward(self, x):
        self.clock[0] += self.seconds
        return x


@pytest.mark.parametrize(
    ("whole", "compiled", "expected"),
    [
        (True, False, 0.5 + 2 * 3.0 + 2 * 200.0),
        (False, False, 0.5 + 2 * 3.0),
        (False, True, 0.5 + 2 * 3.0),
    ],
)
def test_own_time_is_reading_and_forward_passes_without_the_wait_for_weights(whole, compiled, expected, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    first = Takes(clock, 1.0)
    block = nn.Sequential(Takes(clock, 1.5), Takes(clock, 0.5))
    model = nn.Sequential(OrderedDict(first=first, blocks=nn.Sequential(block)))

    def wait(*_):  # as ZeRO-3 does: before a module for its weights, and after it
        clock[0] += 50.0

    for module in (first, block):
        module.register_forward_pre_hook(wait)
        module.register_forward_hook(wait)
    own = OwnTime(own_work(model, whole, compiled), cuda=False)
    with own.counted():
        clock[0] += 0.5
    clock[0] += 1000.0  # the wait for the others to have read
    with own.measured():
        for _ in range(2):
            model(torch.zeros(1))
            clock[0] += 10_000.0  # the backward pass
    model(torch.zeros(1))  # another step
    assert own.seconds() == expected


def test_within_compiled_blocks_nothing_is_hooked():
    block = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    model = nn.Sequential(OrderedDict(embedding=nn.Linear(1, 1), blocks=nn.ModuleList([block])))
    assert own_work(model, whole=False, compiled=True) == [block, model.embedding]
    assert own_work(model, whole=False, compiled=False) == [model.embedding, *block]
