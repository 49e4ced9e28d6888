"""The data of every run of this directory, and the run that the others are compared with."""

import pytest

from tests.launch import pretrain


@pytest.fixture(scope="session")
def reference(runs, data):
    """Two ranks, stage 2, undisturbed: twenty updates in fp32."""
    return pretrain(runs, data, "reference", "zero=stage2", ranks=2)
