"""`deterministic=true`: every run of one layout is every other, to the last bit of its checkpoint."""

import json

import pytest
import torch

from tests import launch
from tests.curves import curve
from tests.launch import pretrain

EIGHT_STEPS = ("deterministic=true", "run.stop_after=8", "checkpoint.every=8")


def hashes(run):
    """Of the tensors in the last checkpoint."""
    files = json.loads((run / "checkpoints" / "step-00000008" / "manifest.json").read_text())["files"]
    return {name: entry["sha256"] for name, entry in files.items() if name.endswith(".safetensors")}


def assert_equal_runs(runs, data, *overrides, ranks):
    slug = "-".join(["twice", str(ranks), *(o.replace("=", "-") for o in overrides)])
    first, second = (pretrain(runs, data, f"{slug}-{n}", *EIGHT_STEPS, *overrides, ranks=ranks) for n in (1, 2))
    assert curve(first) == curve(second)
    assert hashes(runs / f"{slug}-1") == hashes(runs / f"{slug}-2") != {}


@pytest.mark.slow
def test_two_runs_are_equal_with_several_threads(runs, data, monkeypatch):
    monkeypatch.setitem(launch.ENVIRONMENT, "OMP_NUM_THREADS", "2")
    assert_equal_runs(runs, data, "zero=stage1", ranks=1)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_two_runs_are_equal_on_two_ranks(runs, data, stage):
    assert_equal_runs(runs, data, f"zero=stage{stage}", ranks=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_runs_are_equal_on_a_gpu(runs, data, precision):
    assert_equal_runs(runs, data, "zero=stage1", f"precision={precision}", ranks=1)
