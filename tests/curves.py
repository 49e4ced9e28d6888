"""What a run was, step by step, and what it means that two runs are the same."""

import pytest

BOUND = 1e-5  # relative; floating-point sums in another order are allowed, nothing else


def curve(records):
    """Everything about each step that must not change by one bit."""
    return [(r["step"], r["train/loss"], r["train/gradient_norm"], r["data/batch_hash"]) for r in records]


def assert_same_curve(records, reference, bound=BOUND):
    """The same steps on the same tokens; losses and gradient norms within the bound; and something was learnt."""
    assert_same_steps(records, reference, bound)
    assert reference[-1]["train/loss"] < reference[0]["train/loss"]


def assert_same_steps(records, reference, bound=BOUND):
    """Those of runs too short to learn."""
    assert [r["step"] for r in records] == [r["step"] for r in reference] == list(range(1, len(reference) + 1))
    assert [r["data/batch_hash"] for r in records] == [r["data/batch_hash"] for r in reference]
    for record, expected in zip(records, reference, strict=True):
        for name in ("train/loss", "train/gradient_norm"):
            assert record[name] == pytest.approx(expected[name], rel=bound)
