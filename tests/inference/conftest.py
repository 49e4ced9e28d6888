from collections.abc import Callable
from pathlib import Path

import pytest

from framework.config import ModelConfig
from framework.model.huggingface import write_model_directory
from tests.model import small_tokenizer
from tests.model.shapes import CONFIGS, random_model


@pytest.fixture(scope="session")
def make_model(tmp_path_factory) -> Callable[[ModelConfig], Path]:
    """Write a random model of a shape, and say where."""

    def make(config: ModelConfig) -> Path:
        folder = tmp_path_factory.mktemp("model")
        tokenizer = small_tokenizer.write(folder / "tokenizer")
        state = random_model(config).state_dict()
        write_model_directory(folder / "m", state, config, tokenizer=tokenizer, provenance={})
        return folder / "m"

    return make


@pytest.fixture(scope="session")
def llama(make_model) -> Path:
    return make_model(ModelConfig(**vars(CONFIGS["llama"]) | {"vocabulary_size": 360}))
