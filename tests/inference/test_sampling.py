"""Distributions against transformers' processors on the same logits; draws against the distribution."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.errors import UserError
from framework.inference.sampling import Sampling, distribution, draw, penalised

PROBABILITIES = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2])
LOGITS = PROBABILITIES.log() + 3.0


def of(logits, **options):
    return distribution(logits[None], [Sampling(**options)])[0]


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=1e-6)


@given(
    st.integers(0, 2**32),
    st.floats(0.05, 5),
    st.integers(0, 60),
    st.floats(0.05, 1),
    st.floats(0, 1),
    st.floats(0.3, 3),
    st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_distributions_are_those_of_transformers(seed, temperature, top_k, top_p, min_p, penalty, flat):
    processors = pytest.importorskip("transformers.generation.logits_process")
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 50, generator=generator) * (0.5 if flat else 4)
    seen = torch.randint(50, (3, 9), generator=generator)
    chain = [processors.RepetitionPenaltyLogitsProcessor(penalty), processors.TemperatureLogitsWarper(temperature)]
    chain += [processors.TopKLogitsWarper(top_k)] if top_k else []
    chain += [processors.TopPLogitsWarper(top_p)] if top_p < 1 else []
    chain += [processors.MinPLogitsWarper(min_p)] if min_p else []
    expected = processors.LogitsProcessorList(chain)(seen, logits).softmax(-1)

    seen_BV = torch.zeros(3, 50, dtype=torch.bool).scatter(1, seen, True)
    ours = torch.stack([penalised(row, mask, penalty) for row, mask in zip(logits, seen_BV, strict=True)])
    sampling = Sampling(temperature, top_k, top_p, min_p, penalty)
    torch.testing.assert_close(distribution(ours, [sampling] * 3), expected, rtol=1e-5, atol=1e-6)


def test_each_row_has_its_own_settings():
    rows = [Sampling(0.7, 3, 0.8), Sampling(0.0), Sampling(1.3, min_p=0.2), Sampling(), Sampling(top_p=0.5)]
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([distribution(row[None], [one]) for row, one in zip(logits, rows, strict=True)])
    before = logits.clone()
    torch.testing.assert_close(distribution(logits, rows), alone, rtol=1e-6, atol=0)
    assert torch.equal(logits, before)


def test_temperature_one_is_the_softmax_and_lower_ones_sharpen():
    close(of(LOGITS), PROBABILITIES.tolist())
    squared = PROBABILITIES**2
    close(of(LOGITS, temperature=0.5), (squared / squared.sum()).tolist())


@pytest.mark.parametrize("temperature", [0.0, 1e-6])
def test_temperature_zero_is_the_largest(temperature):
    close(of(LOGITS, temperature=temperature), [0.0, 1.0, 0.0, 0.0, 0.0])
    close(of(LOGITS * 1e4, temperature=temperature), [0.0, 1.0, 0.0, 0.0, 0.0])


def test_temperature_zero_takes_the_first_of_equals():
    close(of(torch.tensor([1.0, 2.0, 2.0]), temperature=0.0), [0.0, 1.0, 0.0])


def test_top_k_keeps_the_likeliest():
    close(of(LOGITS, top_k=2), [0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65, 0.0])
    close(of(LOGITS, top_k=9), PROBABILITIES.tolist())
    close(of(torch.zeros(4), top_k=2), [0.5, 0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.01, [1]), (0.39, [1]), (0.41, [1, 3]), (0.6, [1, 3]), (0.7, [1, 3, 4]), (0.99, [0, 1, 2, 3, 4])],
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    expected = torch.zeros(5)
    expected[kept] = PROBABILITIES[kept] / PROBABILITIES[kept].sum()
    close(of(LOGITS, top_p=top_p), expected.tolist())


def test_min_p_is_a_share_of_the_likeliest():
    close(of(LOGITS, min_p=0.49), [0.0, 0.4 / 0.85, 0.0, 0.25 / 0.85, 0.2 / 0.85])
    close(of(LOGITS, min_p=1.0), [0.0, 1.0, 0.0, 0.0, 0.0])


def test_the_penalty_makes_what_came_less_likely_on_either_side_of_zero():
    logits, seen = torch.tensor([2.0, -2.0, 2.0, -2.0]), torch.tensor([True, True, False, False])
    assert penalised(logits, seen, 2.0).tolist() == [1.0, -4.0, 2.0, -2.0]


def test_draws_follow_the_probabilities_and_the_seed():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.cat([PROBABILITIES, torch.zeros(3)])
    draws = draw(probabilities.repeat(4000, 1), [generator] * 4000)
    shares = torch.bincount(torch.tensor(draws), minlength=8) / 4000
    torch.testing.assert_close(shares, probabilities, rtol=0, atol=0.03)
    again = torch.Generator().manual_seed(0)
    assert [draw(probabilities[None], [again])[0] for _ in range(20)] == draws[:20]


def test_no_seed_is_another_each_time():
    assert Sampling().generator().initial_seed() != Sampling().generator().initial_seed()
    assert Sampling(seed=7).generator().initial_seed() == 7


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -1.0), ("temperature", float("nan")), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.1),
     ("min_p", -0.1), ("min_p", 1.5), ("repetition_penalty", 0.0), ("seed", -1)],
)  # fmt: skip
def test_settings_out_of_range_are_named(field, value):
    with pytest.raises(UserError, match=rf"^{field}: is"):
        Sampling(**{field: value})
