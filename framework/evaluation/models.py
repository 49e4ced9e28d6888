"""Model directories to evaluate: what they are called, which files they are, and how they are loaded."""

from dataclasses import dataclass
from pathlib import Path

from framework import distributed
from framework.distributed import together
from framework.errors import UserError
from framework.evaluation.subject import Subject
from framework.inference.generation import load_any
from framework.model.config_json import from_json
from framework.model.huggingface import parameter_shapes
from framework.model.identity import digest_of
from framework.model.tokenizer import read_json


@dataclass(frozen=True)
class Model:
    """A model directory that is evaluated: its name here, where it is, which it is and what it is."""

    name: str
    path: str
    digest: str
    family: str
    parameters: int
    vocabulary: int
    positions: int  # as its config.json has them


def models_of(paths: list[str]) -> list[Model]:
    """The models in directories; every rank must call, rank 0 reads the files.

    Raises:
        UserError: there is no such directory, or a file of it is missing or not supported.
    """
    named = list(zip(names_of(paths), paths, strict=True))
    lead = distributed.rank() == 0
    found: list[Model] = distributed.broadcast(
        together(lambda: [_model(name, path) for name, path in named] if lead else [])
    )
    return found


def _model(name: str, path: str) -> Model:
    file = Path(path) / "config.json"
    if not file.parent.is_dir():
        raise UserError(f"{path}: is no directory; give a model directory")
    family, config = from_json(read_json(file), str(file))
    parameters = sum(shape.numel() for shape in parameter_shapes(config).values())
    digest = digest_of(file.parent)
    return Model(name, path, digest, family.model_type, parameters, config.vocabulary_size, config.maximum_positions)


def names_of(paths: list[str]) -> list[str]:
    """A short name for each: of the run that a `model` directory lies in, else its own; the path where two agree."""
    parts = [Path(path).absolute().parts for path in paths]
    short = [part[-2] if part[-1] == "model" and len(part) > 2 else part[-1] for part in parts]
    return [path if short.count(name) > 1 else name for name, path in zip(short, paths, strict=True)]


def open_subject(path: str, name: str, batch_tokens: int) -> Subject:
    """Load a model directory, on a GPU in the dtype of its files, else on the CPU in fp32; every rank must call.

    Raises:
        UserError: a file is missing or damaged, or the tokenizer is another model's.
    """
    return together(lambda: _open(path, name, batch_tokens))


def _open(path: str, name: str, batch_tokens: int) -> Subject:
    model, tokenizer = load_any(path)
    rows = model.config.vocabulary_size
    if tokenizer.size > rows:
        raise UserError(
            f"{path}: its tokenizer has {tokenizer.size} ids, but the model {rows} embeddings; they are of two "
            "models; copy the directory anew"
        )
    weight = next(model.parameters())
    return Subject(
        name, model, model.config, tokenizer, device=weight.device, dtype=weight.dtype, batch_tokens=batch_tokens
    )
