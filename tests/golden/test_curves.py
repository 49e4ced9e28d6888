"""Today's source gives the curves that were kept, to the last bit."""

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


@pytest.fixture(scope="module")
def found():
    command = [sys.executable, "-m", "tests.golden.curves"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("family", curves.MODELS)
def test_the_curve_is_the_one_that_was_kept(found, family):
    kept = json.loads(curves.FILE.read_text())[family]
    assert found[family] == kept, "if this was meant: python -m tests.golden.curves --write"
