import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")


@pytest.fixture(scope="session")
def language(tmp_path_factory):
    from tests.inference.server.models import write_language

    return write_language(tmp_path_factory.mktemp("served") / "language")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    from tests.inference.server.models import write_classifier

    return write_classifier(tmp_path_factory.mktemp("served") / "classifier")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    from tests.inference.server.models import write_encoder

    return write_encoder(tmp_path_factory.mktemp("served") / "encoder")


@pytest.fixture(scope="session")
def server(language):
    """Of `language`, with 4 rows and places for 8 to wait. Its tests leave it idle."""
    from tests.inference.server.running import running

    with running(language, "rows=4", "limits.queue=8", "limits.body=65536") as server:
        yield server
