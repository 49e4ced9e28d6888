"""The data of every run of this directory, and the run that the others are compared with."""

import pytest

from tests.launch import pretrain
from tests.synthetic import make_data


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), {"web": 300, "books": 60}, {"web": 60, "books": 16})


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def reference(runs, data):
    """Two ranks, stage 2, undisturbed: twenty updates in fp32."""
    return pretrain(runs, data, "reference", "zero=stage2", ranks=2)
