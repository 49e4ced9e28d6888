"""What the real runs of several directories share; nobody may change what they left."""

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Two corpora of random documents, prepared."""
    from tests.synthetic import make_data  # here, for a machine that has a GPU may lack what this needs

    return make_data(tmp_path_factory.mktemp("data"), {"web": 300, "books": 60}, {"web": 60, "books": 16})


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Where run directories go; a name must not come twice."""
    return tmp_path_factory.mktemp("runs")
