"""Model directories: Hugging Face checkpoints that count as written only once they gave the same logits back."""

import importlib.util
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import framework
from framework.config import ModelConfig
from framework.errors import UserError
from framework.model.card import model_card
from framework.model.classifier import Classes, Classifier
from framework.model.config_json import classes_from_json, from_json, to_json
from framework.model.families import check_exportable, family_of
from framework.model.integers import Integers, Scheme, from_files
from framework.model.integers import from_json as scheme_from_json
from framework.model.tensor_names import OUTPUTS, TensorRule, tensor_rules
from framework.model.tokenizer import load_tokenizer, read_json
from framework.model.tokenizer_files import TextForm, check_tokenizer_files, write_tokenizer_files
from framework.model.transformer import Transformer
from framework.model.verifying import own_logits, probe, require_equal, transformers_logits
from framework.model.weights import read_weights, write_weights
from framework.model.width import fold

__all__ = ["ModelDirectory", "assemble", "check_exportable", "read_model_directory", "write_model_directory"]

_NO_WEIGHTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # constants that old checkpoints hold


class ModelDirectory(NamedTuple):
    """What a model directory holds."""

    config: ModelConfig
    state: dict[str, Tensor]  # under our names, in the dtype of the files
    tokenizer: Path  # where the tokenizer files are, for `load_tokenizer` and `write_model_directory`


def assemble(
    config: ModelConfig,
    state: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
    classes: Classes | None = None,
) -> Transformer:
    """A model with these weights, on the device where they are, without initialising any first.

    With `classes` it is a `Classifier`.
    """
    with torch.device("meta"):
        model = _module(config, classes)
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
    return model.eval()


def _module(config: ModelConfig, classes: Classes | None) -> Transformer:
    return Transformer(config) if classes is None else Classifier(config, len(classes.names))


# --------------------------------------------------------------------------------------- reading


def read_model_directory(path: str | os.PathLike[str], *, classifiers: bool = False) -> ModelDirectory:
    """Read a Hugging Face directory of the GPT-2, Llama, Mistral, Qwen3 or EuroBERT family, ours or another's.

    classifiers: whether the caller takes a classifier too; `classes_of` says what it is.

    Raises UserError naming the file and the key or tensor that is missing, damaged or not supported.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise UserError(f"{directory}: is no directory; give a model directory")
    file = directory / "config.json"
    family, config = from_json(read_json(file), str(file))
    classes = classes_of(directory)
    if classes is not None and not classifiers:
        raise UserError(f"{directory}: is a classifier, which predicts no tokens; give a language model's directory")
    tensors, held = read_tensors(directory)
    tensors |= {name: integers.weight() for name, integers in held.items()}
    state: dict[str, Tensor] = {}
    shapes = parameter_shapes(config, classes)
    for rule in tensor_rules(family, config, classes is not None):
        state |= rule.to_ours(_taken(tensors, rule, shapes, directory))
    if config.tied_embeddings:
        tensors.pop("lm_head.weight", None)
    unknown = [name for name in tensors if not name.endswith(_NO_WEIGHTS)]
    if unknown:
        raise UserError(f"{directory}: tensor {unknown[0]} has no place in a {family.model_type} model of {file}")
    return ModelDirectory(config, state, directory)


def integers_of(path: str | os.PathLike[str]) -> tuple[Scheme, dict[str, Integers]] | None:
    """How a model directory holds its weights as integers, and those by our names; None where it does not.

    `read_model_directory` gives what they stand for. Raises as that does.
    """
    directory = Path(path)
    file = directory / "config.json"
    scheme = scheme_from_json(read_json(file), str(file))
    if scheme is None:
        return None
    family, config = from_json(read_json(file), str(file))
    rules = tensor_rules(family, config, classes_of(path) is not None)
    held = read_tensors(directory)[1]
    return scheme, {rule.ours[0]: held[rule.theirs] for rule in rules if rule.theirs in held}


def read_tensors(directory: Path) -> tuple[dict[str, Tensor], dict[str, Integers]]:
    """By the family's names the tensors of a model directory, and those of its weights that are held as integers."""
    file = directory / "config.json"
    data = read_json(file)
    family, scheme = from_json(data, str(file))[0], scheme_from_json(data, str(file))
    tensors = {_with_prefix(name, family.prefix): tensor for name, tensor in read_weights(directory).items()}
    return (tensors, {}) if scheme is None else from_files(tensors, scheme, str(directory))


def classes_of(path: str | os.PathLike[str]) -> Classes | None:
    """What the classifier in a model directory tells apart; None for another model. Raises as the reading does."""
    file = Path(path) / "config.json"
    return classes_from_json(read_json(file), str(file))


def parameter_shapes(config: ModelConfig, classes: Classes | None = None) -> dict[str, torch.Size]:
    """Shape of every parameter by name, of a classifier where there are `classes`, without allocating any."""
    with torch.device("meta"):
        return {name: parameter.shape for name, parameter in _module(config, classes).named_parameters()}


def _with_prefix(name: str, prefix: str) -> str:
    return name if name.startswith((prefix, *OUTPUTS)) else prefix + name


def _taken(tensors: dict[str, Tensor], rule: TensorRule, shapes: dict[str, torch.Size], directory: Path) -> Tensor:
    """Take a rule's tensor out of those of the directory."""
    if rule.theirs not in tensors:
        raise UserError(f"{directory}: tensor {rule.theirs} is missing; copy the directory anew, or mend config.json")
    tensor = tensors.pop(rule.theirs)
    expected = rule.shape(shapes)
    if list(tensor.shape) != expected:
        raise UserError(
            f"{directory}: tensor {rule.theirs} is {list(tensor.shape)}, but config.json makes it {expected}; "
            "the two are of different models"
        )
    return tensor


# --------------------------------------------------------------------------------------- writing


def write_model_directory(
    path: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    config: ModelConfig,
    *,
    tokenizer: str | os.PathLike[str],
    provenance: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = 5_000_000_000,
    form: TextForm | None = None,
    classes: Classes | None = None,
) -> dict[str, Any]:
    """Write a Hugging Face directory, read it back, compare logits, and only then give it its name.

    state: whole parameters under our names (`Transformer.state_dict()`), on any device.
    tokenizer: a `tokenizer.model`, or a directory whose tokenizer files are taken over.
    provenance: what is known of the model's origin; goes to `provenance.json` and the model card.
    form: how a fine-tuned model reads text, where its tokenizer files are to say so.
    classes: what it tells apart, where it is a `Classifier`; `form` then has `judges_texts`.
    dtype: of the weights written. Returns the provenance written, with how the directory was verified.

    A directory already at `path` is replaced after the new one proved sound, and not before. Raises UserError
    if the model belongs to no family, if the tokenizer does not fit, if something else than a model directory
    is at `path`, or if the directory read back differs; then nothing is left behind.
    """
    target = Path(path).absolute()
    check_exportable(config)
    _check_state(state, config, classes)
    if target.exists() and not (target / "config.json").is_file():
        raise UserError(f"{target}: exists and is no model directory; choose another path or remove it")
    partial = partial_directory(target)
    try:
        plain, plain_config = fold(state, config)
        ids = _write_files(partial, plain, plain_config, Path(tokenizer), form, classes, dtype, shard_bytes)
        if config.mup_base_width:
            tokens = probe(config)
            require_equal("with muP folded in", _logits(plain, plain_config, tokens), _logits(state, config, tokens))
        rounded = {name: tensor.to("cpu", dtype) for name, tensor in plain.items()}
        verdict = _verify(partial, assemble(plain_config, rounded, classes=classes), classes is not None)
        facts = {
            **provenance,
            "loam_version": framework.__version__,
            "family": family_of(config).model_type,
            "parameters": sum(tensor.numel() for tensor in state.values()),
            "dtype": _dtype_name(dtype),
            **verdict,
        }
        _write_json(partial / "provenance.json", facts)
        if config.causal and classes is None:  # others write no text
            known = {key: value for key, value in ids.items() if value is not None}
            _write_json(partial / "generation_config.json", known)
        (partial / "README.md").write_text(model_card(facts, config, classes), encoding="utf-8")
        rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return facts


def _check_state(state: Mapping[str, Tensor], config: ModelConfig, classes: Classes | None) -> None:
    expected = parameter_shapes(config, classes)
    odd = sorted(set(expected) ^ set(state)) or [name for name in expected if state[name].shape != expected[name]]
    if odd:
        raise ValueError(f"state does not fit the model's config, first at {odd[0]}")


def _write_files(
    directory: Path,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer: Path,
    form: TextForm | None,
    classes: Classes | None,
    dtype: torch.dtype,
    shard: int,
) -> dict[str, Any]:
    """Tokenizer, configuration and weights; returns the token ids of the tokenizer."""
    ids = write_tokenizer_files(tokenizer, directory, form)
    mask = ids.pop("mask_token_id")
    if mask is not None and not config.causal:
        ids["mask_token_id"] = mask
    size = load_tokenizer(directory).size
    if size > config.vocabulary_size:
        raise UserError(
            f"model.vocabulary_size: is {config.vocabulary_size}, but {tokenizer} has {size} ids; "
            "take the tokenizer that the model was trained with"
        )
    _write_json(directory / "config.json", to_json(config, classes) | ids | {"torch_dtype": _dtype_name(dtype)})
    rules = {rule.theirs: rule for rule in tensor_rules(family_of(config), config, classes is not None)}
    sizes = {name: sum(state[ours].numel() for ours in rule.ours) * dtype.itemsize for name, rule in rules.items()}
    write_weights(directory, sizes, lambda name: rules[name].to_theirs(state).to("cpu", dtype), shard)
    return ids


def partial_directory(target: Path) -> Path:
    """A new directory beside `target`, to be given its name once it is whole; what was left by a kill is removed."""
    import psutil

    for old in target.parent.glob(f".{target.name}.partial-*"):
        process = old.name.rpartition("-")[2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(old, ignore_errors=True)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    return partial


def rename(partial: Path, target: Path) -> None:
    """Give the sound directory its name; one that is there steps aside first, so that no mixture ever exists."""
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    target.rename(old)
    partial.rename(target)
    shutil.rmtree(old)


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ------------------------------------------------------------------------------------- verifying


def _verify(directory: Path, model: Transformer, classifies: bool) -> dict[str, Any]:
    """Compare the logits of the weights as they were (rounded to their dtype) with those of the directory, in fp32."""
    expected = own_logits(model, directory)
    config, state, _ = read_model_directory(directory, classifiers=True)
    name, logits = "loam", own_logits(assemble(config, state, classes=classes_of(directory)), directory)
    difference = require_equal(f"read back by {name}", logits, expected)
    if importlib.util.find_spec("transformers"):
        check_tokenizer_files(directory)
        name, logits = "transformers", transformers_logits(directory, config, classifies)
        difference = require_equal(f"read back by {name}", logits, expected)
    return {"verified_with": name, "maximum_difference": difference}


@torch.no_grad()
def _logits(state: Mapping[str, Tensor], config: ModelConfig, tokens: Tensor) -> Tensor:
    return assemble(config, {name: tensor.to("cpu") for name, tensor in state.items()})(tokens)
