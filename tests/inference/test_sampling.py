import pytest
import torch

from framework.inference.sampling import distribution, draw

PROBABILITIES = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2])
LOGITS = PROBABILITIES.log() + 3.0


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=1e-6)


def test_temperature_one_is_the_softmax():
    close(distribution(LOGITS, temperature=1.0), PROBABILITIES.tolist())


def test_temperature_sharpens():
    squared = PROBABILITIES**2
    close(distribution(LOGITS, temperature=0.5), (squared / squared.sum()).tolist())


@pytest.mark.parametrize("temperature", [0.0, 1e-6])
def test_temperature_zero_is_the_largest(temperature):
    close(distribution(LOGITS, temperature=temperature), [0.0, 1.0, 0.0, 0.0, 0.0])
    close(distribution(LOGITS * 1e4, temperature=temperature), [0.0, 1.0, 0.0, 0.0, 0.0])


def test_temperature_zero_takes_the_first_of_equals():
    close(distribution(torch.tensor([1.0, 2.0, 2.0]), temperature=0.0), [0.0, 1.0, 0.0])


def test_top_k_keeps_the_likeliest():
    close(distribution(LOGITS, temperature=1.0, top_k=2), [0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65, 0.0])
    close(distribution(LOGITS, temperature=1.0, top_k=9), PROBABILITIES.tolist())
    close(distribution(torch.zeros(4), temperature=1.0, top_k=2), [0.5, 0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.01, [1]), (0.39, [1]), (0.41, [1, 3]), (0.6, [1, 3]), (0.7, [1, 3, 4]), (0.99, [0, 1, 2, 3, 4])],
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    expected = torch.zeros(5)
    expected[kept] = PROBABILITIES[kept] / PROBABILITIES[kept].sum()
    close(distribution(LOGITS, temperature=1.0, top_p=top_p), expected.tolist())


def test_top_p_counts_what_temperature_and_top_k_left():
    # 0.4, 0.25 and 0.2 remain, of which the first is 0.47 and the first two are 0.76.
    close(distribution(LOGITS, temperature=1.0, top_k=3, top_p=0.5), [0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65, 0.0])
    close(distribution(LOGITS, temperature=1.0, top_k=3, top_p=0.45), [0.0, 1.0, 0.0, 0.0, 0.0])


def test_rows_are_independent_and_the_logits_untouched():
    rows = torch.stack([LOGITS, LOGITS.flip(0)])
    before = rows.clone()
    result = distribution(rows, temperature=0.7, top_k=3, top_p=0.8)
    assert torch.equal(result[0], result[1].flip(0))
    assert torch.equal(rows, before)


def test_draws_follow_the_probabilities_and_the_seed():
    generator = torch.Generator().manual_seed(0)
    draws = [draw(PROBABILITIES, generator) for _ in range(4000)]
    shares = torch.bincount(torch.tensor(draws), minlength=5) / 4000
    torch.testing.assert_close(shares, PROBABILITIES, rtol=0, atol=0.03)
    again = torch.Generator().manual_seed(0)
    assert [draw(PROBABILITIES, again) for _ in range(20)] == draws[:20]
