"""The same run anywhere: ranks, ZeRO stages, accumulation and resuming do not change the loss curve.

Every run here is a real job of real processes over gloo. 20 updates in fp32 from the same
configuration; compared are the loss of each step and the hash of what the step was trained on.
"""

import shutil

import pytest

from tests.launch import pretrain
from tests.synthetic import make_data

BOUND = 1e-5  # relative; floating-point sums in another order are allowed, nothing else

LAYOUTS = {
    "1 rank, stage 0": (1, ["zero=stage0"]),
    "2 ranks, stage 2": (2, ["zero=stage2"]),
    "4 ranks, stage 3": (4, ["zero=stage3"]),
    "no accumulation": (1, ["zero=stage1", "batch.micro=16"]),
    "accumulation 2 on 2 ranks": (2, ["zero=stage3", "batch.micro=4"]),
    "accumulation 4 on 2 ranks": (2, ["zero=stage1", "batch.micro=2"]),
}
MORE_LAYOUTS = {
    f"{ranks} ranks, stage {stage}, micro-batch {micro}": (ranks, [f"zero=stage{stage}", f"batch.micro={micro}"])
    for ranks in (1, 2, 4)
    for stage in (0, 1, 2, 3)
    for micro in (4, 1)
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), {"web": 300, "books": 60}, {"web": 60, "books": 16})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def reference(runs, data):
    """Two ranks, stage 2, undisturbed."""
    return pretrain(runs, data, "reference", "zero=stage2", ranks=2)


def assert_same_curve(records, reference):
    assert [r["step"] for r in records] == [r["step"] for r in reference] == list(range(1, 21))
    assert [r["data/batch_hash"] for r in records] == [r["data/batch_hash"] for r in reference]
    for record, expected in zip(records, reference, strict=True):
        for name in ("train/loss", "train/gradient_norm"):
            assert record[name] == pytest.approx(expected[name], rel=BOUND)
    assert reference[-1]["train/loss"] < reference[0]["train/loss"]


def slug(layout):
    """A run's name."""
    return layout.replace(",", "").replace(" ", "-")


def curve(records):
    return [(r["step"], r["train/loss"], r["train/gradient_norm"], r["data/batch_hash"]) for r in records]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_does_not_matter(runs, data, reference, layout):
    ranks, overrides = LAYOUTS[layout]
    assert_same_curve(pretrain(runs, data, slug(layout), *overrides, ranks=ranks), reference)


@pytest.mark.slow
@pytest.mark.parametrize("layout", MORE_LAYOUTS)
def test_no_layout_matters(runs, data, reference, layout):
    ranks, overrides = MORE_LAYOUTS[layout]
    assert_same_curve(pretrain(runs, data, slug(layout), *overrides, ranks=ranks), reference)


def test_the_deepspeed_launcher_starts_the_same_run(runs, data, reference):
    records = pretrain(runs, data, "launcher", "zero=stage2", ranks=2, launcher="deepspeed")
    assert curve(records) == curve(reference)


@pytest.fixture(scope="module")
def stopped(runs, data):
    """Two ranks, stage 2, stopped after 10 steps."""
    pretrain(runs, data, "stopped", "zero=stage2", "run.stop_after=10", ranks=2)
    return runs / "stopped"


def test_resuming_in_the_same_layout_is_exact(runs, data, reference, stopped):
    shutil.copytree(stopped, runs / "same")
    assert curve(pretrain(runs, data, "same", "zero=stage2", ranks=2)) == curve(reference)


@pytest.mark.parametrize(("name", "ranks", "stage"), [("alone", 1, 2), ("four", 4, 3), ("unsharded", 1, 0)])
def test_resuming_in_another_layout(runs, data, reference, stopped, name, ranks, stage):
    shutil.copytree(stopped, runs / name)
    assert_same_curve(pretrain(runs, data, name, f"zero=stage{stage}", ranks=ranks), reference)


def test_one_rank_goes_on_as_four(runs, data, reference):
    pretrain(runs, data, "grown", "zero=stage2", "run.stop_after=10")
    assert_same_curve(pretrain(runs, data, "grown", "zero=stage3", ranks=4), reference)


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_bf16_resumes_exactly(runs, data, stage):
    name, overrides = f"bf16-{stage}", (f"zero=stage{stage}", "precision=bf16", "model.layers=1")
    whole = pretrain(runs, data, name, *overrides, ranks=2)
    pretrain(runs, data, f"{name}-resumed", *overrides, "run.stop_after=10", ranks=2)
    assert curve(pretrain(runs, data, f"{name}-resumed", *overrides, ranks=2)) == curve(whole)
