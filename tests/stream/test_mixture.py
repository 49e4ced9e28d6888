"""Shares of tokens: exact at every length, and countable without walking."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.errors import UserError
from framework.stream.mixture import Mixture, floor_sum

GPT3 = {"web": 60, "webtext": 22, "books": 16, "wiki": 3}  # they sum to 101


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.integers(1, 50), st.integers(0, 200), st.integers(0, 200))
def test_floor_sum_is_the_sum_of_floors(count, divisor, step, offset):
    assert floor_sum(count, divisor, step, offset) == sum((step * t + offset) // divisor for t in range(count))


@pytest.mark.parametrize("lanes", [1, 7, 64])
def test_counts_agree_with_walking(lanes):
    mixture = Mixture(GPT3, lanes)
    seen = {(lane, name): 0 for lane in range(lanes) for name in GPT3}
    for sequence in range(5000):
        name = mixture.corpus(sequence)
        assert mixture.drawn_before(sequence, name) == seen[sequence % lanes, name]
        seen[sequence % lanes, name] += 1
    for name in GPT3:
        assert mixture.drawn(5000)[name] == sum(seen[lane, name] for lane in range(lanes))


@pytest.mark.parametrize("weights", [GPT3, {"a": 1, "b": 1}, {"a": 0.003, "b": 0.997}, {"a": 1, "b": 2, "c": 3.7}])
def test_realised_shares_stay_within_a_few_sequences_of_those_asked(weights):
    mixture = Mixture(weights, 64)
    total = sum(weights.values())
    for sequences in itertools.chain(range(1, 3000), (10_000, 1_000_000, 123_456_789)):
        drawn = mixture.drawn(sequences)
        assert sum(drawn.values()) == sequences
        for name, weight in weights.items():
            # 10 of 10,000 is the 0.1 % that is promised; the bound holds from the first sequence on
            assert abs(drawn[name] - sequences * weight / total) < 10


def test_every_lane_draws_from_every_corpus():
    mixture = Mixture(GPT3, 64)
    for lane in range(64):
        drawn = {name: mixture.drawn_before(lane + 64 * 1010, name) for name in GPT3}
        for name, weight in GPT3.items():
            assert abs(drawn[name] - 10 * weight) < 15


def test_the_order_of_the_weights_and_their_scale_do_not_matter():
    one, other = Mixture(GPT3, 64), Mixture({name: GPT3[name] / 101 for name in reversed(GPT3)}, 64)
    assert [one.corpus(i) for i in range(2000)] == [other.corpus(i) for i in range(2000)]


def test_weights_that_are_none_are_refused():
    for weights in ({}, {"a": 0}, {"a": -1, "b": 2}):
        with pytest.raises(UserError, match=r"data\.weights"):
            Mixture(weights, 64)
