"""Today's source gives the curves that were kept: to the last bit on processors of a maker whose curves were."""

import json
import platform
import subprocess
import sys

import pytest
import torch

from tests.golden import curves
from tests.launch import ENVIRONMENT, ROOT

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="the curves are those of x86-64 processors with AVX2",
)
MEANT = "if this was meant: python -m tests.golden.curves --write"


@pytest.fixture(scope="module")
def found():
    command = [sys.executable, "-m", "tests.golden.curves"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[curves.maker()]


@pytest.fixture(scope="module")
def kept():
    return json.loads(curves.FILE.read_text())


@pytest.mark.parametrize("family", curves.MODELS)
def test_the_curve_is_the_one_that_was_kept(found, kept, family):
    if curves.maker() not in kept:
        pytest.skip(f"no curve was kept of a processor by {curves.maker() or 'an unknown maker'}")
    assert found[family] == kept[curves.maker()][family], MEANT


@pytest.mark.parametrize("family", curves.MODELS)
def test_curves_of_other_makers_differ_by_rounding_alone(found, kept, family):
    for of_maker in kept.values():
        for now, then in zip(found[family], of_maker[family], strict=True):
            assert now["data/batch_hash"] == then["data/batch_hash"], MEANT
            numbers = ("train/loss", "train/gradient_norm")
            expected = pytest.approx([then[name] for name in numbers], rel=1e-6)  # fp32 has its last bit at 1e-7
            assert [now[name] for name in numbers] == expected, MEANT
