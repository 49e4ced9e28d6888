"""A run that was stopped and taken up again is the run that was not."""

import shutil

import pytest

from tests.curves import assert_same_curve, curve
from tests.launch import pretrain


@pytest.fixture(scope="module")
def stopped(runs, data):
    """Two ranks, stage 2, stopped after 10 steps."""
    pretrain(runs, data, "stopped", "zero=stage2", "run.stop_after=10", ranks=2)
    return runs / "stopped"


def test_resuming_in_the_same_layout_is_exact(runs, data, reference, stopped):
    shutil.copytree(stopped, runs / "same")
    assert curve(pretrain(runs, data, "same", "zero=stage2", ranks=2)) == curve(reference)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ranks", "stage"), [("four", 4, 3), ("alone", 1, 2), ("unsharded", 1, 0)])
def test_resuming_in_another_layout(runs, data, reference, stopped, name, ranks, stage):
    shutil.copytree(stopped, runs / name)
    assert_same_curve(pretrain(runs, data, name, f"zero=stage{stage}", ranks=ranks), reference)


@pytest.mark.slow
def test_one_rank_goes_on_as_four(runs, data, reference):
    pretrain(runs, data, "grown", "zero=stage2", "run.stop_after=10")
    assert_same_curve(pretrain(runs, data, "grown", "zero=stage3", ranks=4), reference)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bf16_resumes_exactly(runs, data, stage):
    name, overrides = f"bf16-{stage}", (f"zero=stage{stage}", "precision=bf16", "model.layers=1", "run.stop_after=6")
    whole = pretrain(runs, data, name, *overrides, ranks=2)
    pretrain(runs, data, f"{name}-resumed", *overrides, "run.stop_after=3", ranks=2)
    assert curve(pretrain(runs, data, f"{name}-resumed", *overrides, ranks=2)) == curve(whole)
