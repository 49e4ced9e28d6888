"""Tiny model directories for servers of tests."""

from dataclasses import replace
from pathlib import Path

import torch

from framework.config import ModelConfig
from framework.model.classifier import Classes, Classifier, initialize_score
from framework.model.huggingface import write_model_directory
from framework.model.tokenizer_files import TextForm
from tests.model import small_tokenizer
from tests.model.shapes import CONFIGS, random_model

END = small_tokenizer.RESERVED["<|endoftext|>"]
CLASSES = Classes(("soil", "stone, wet", "tree"))


def sized(name: str, positions: int) -> ModelConfig:
    return replace(CONFIGS[name], vocabulary_size=360, maximum_positions=positions)


def write_language(directory: Path, positions: int = 4096) -> Path:
    """A model that never ends a text by itself where it is greedy: the logit of the token that does is 0."""
    config = replace(sized("llama grouped, untied, wide heads", positions), layers=1)
    model = random_model(config)
    with torch.no_grad():
        model.output.weight[END] = 0
    return write(directory, model.state_dict(), config)


def write_encoder(directory: Path) -> Path:
    config = sized("encoder", 64)
    return write(directory, random_model(config).state_dict(), config)


def write_classifier(directory: Path, classes: Classes = CLASSES) -> Path:
    config = sized("encoder", 64)
    torch.manual_seed(0)
    model = Classifier(config, len(classes.names))
    initialize_score(model, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith(("dense", "score")):
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
            else:
                parameter.mul_(20)
    return write(directory, model.eval().state_dict(), config, form=TextForm(judges_texts=True), classes=classes)


def write(directory: Path, state, config, **more) -> Path:
    tokenizer = small_tokenizer.write(directory.with_name(directory.name + "-tokenizer"))
    write_model_directory(directory, state, config, tokenizer=tokenizer, provenance={}, **more)
    return directory
