"""The same run on any layout: ranks, ZeRO stages and accumulation do not change the loss curve.

Every run here is a real job of real processes over gloo. 20 updates in fp32 from the same
configuration; compared are loss and gradient norm of each step and the hash of what the step was trained on.
"""

import pytest

from tests.curves import assert_same_curve, curve
from tests.launch import pretrain

LAYOUTS = {
    "1 rank, stage 0": (1, ["zero=stage0"]),
    "4 ranks, stage 3": (4, ["zero=stage3"]),
}
MORE_LAYOUTS = {
    f"{ranks} ranks, stage {stage}, micro-batch {micro}": (ranks, [f"zero=stage{stage}", f"batch.micro={micro}"])
    for ranks in (1, 2, 4)
    for stage in (0, 1, 2, 3)
    for micro in (4, 1)
} | {
    "accumulation 4 on 2 ranks": (2, ["zero=stage1", "batch.micro=2"]),
    "no accumulation": (1, ["zero=stage1", "batch.micro=16"]),
}


def slug(layout):
    """A run's name."""
    return layout.replace(",", "").replace(" ", "-")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_does_not_matter(runs, data, reference, layout):
    ranks, overrides = LAYOUTS[layout]
    assert_same_curve(pretrain(runs, data, slug(layout), *overrides, ranks=ranks), reference)


@pytest.mark.slow
@pytest.mark.parametrize("layout", MORE_LAYOUTS)
def test_no_layout_matters(runs, data, reference, layout):
    ranks, overrides = MORE_LAYOUTS[layout]
    assert_same_curve(pretrain(runs, data, slug(layout), *overrides, ranks=ranks), reference)


@pytest.mark.slow
def test_the_deepspeed_launcher_starts_the_same_run(runs, data, reference):
    records = pretrain(runs, data, "launcher", "zero=stage2", "run.stop_after=5", ranks=2, launcher="deepspeed")
    assert curve(records) == curve(reference)[:5]
