"""`compress`: prune, quantize, write, read back, and say what was won and what was lost."""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor

from framework.compression import console
from framework.compression.measuring import measure
from framework.compression.pruning import HALF, prune
from framework.compression.quantization import quantize, scheme_of
from framework.compression.writing import write_changed
from framework.config import CompressConfig
from framework.errors import UserError
from framework.evaluation.perplexity import Perplexity
from framework.model.families import family_of
from framework.model.huggingface import classes_of, integers_of, read_model_directory, read_tensors
from framework.model.integers import Integers
from framework.model.tensor_names import TensorRule, tensor_rules
from framework.model.tokenizer import read_json
from framework.model.width import is_hidden_matrix

_GROUPS = (128, 64, 32, 16)
_OUTPUTS = ["lm_head", "score", "dense", "classifier"]  # linear layers beside those of the blocks


def run(config: CompressConfig) -> None:
    """Make the smaller directory, and print size, memory, speed and bits per byte of both.

    Raises:
        UserError: the directory is not supported, is held as integers already, or has matrices that the pattern or the
            groups do not divide.
    """
    source, target = Path(config.model.path), Path(config.output)
    asked = Perplexity(config.perplexity) if config.perplexity.data or config.perplexity.text else None
    rules = _matrices(source)
    chosen = [rule for rule in rules if not any(fnmatchcase(rule.ours[0], pattern) for pattern in config.skip)]
    for pattern in config.skip:
        if not any(fnmatchcase(rule.ours[0], pattern) for rule in rules):
            raise UserError(f"skip: {pattern!r} matches no matrix; they are called like {rules[0].ours[0]}")
    tensors, _ = read_tensors(source)
    inputs = {rule.ours[0]: tensors[rule.theirs].shape[0 if rule.transposed else 1] for rule in chosen}
    _check(config, any(rule.transposed for rule in chosen))
    config.pruning.share = config.pruning.share or HALF
    config.quantization.scales = config.quantization.scales or "hqq"
    _settle(config, inputs)
    told = {name: asdict(part) for name, part in vars(config).items() if name in ("pruning", "quantization")}
    facts = {"compressed": {"from": str(source), "skipped": config.skip, **told}}
    _refuse_other(target, facts)
    before = measure(source, asked, config)
    quantizes = config.quantization.name != "none"
    changed = {rule.theirs: _changed(rule, tensors[rule.theirs], config) for rule in chosen}
    left = [rule.theirs.removesuffix(".weight") for rule in rules if rule not in chosen]
    write_changed(
        *(source, target, changed, scheme_of(config.quantization) if quantizes else None, _OUTPUTS + left),
        facts,
    )
    console.show(before, measure(target, asked, config), target)


def _matrices(source: Path) -> list[TensorRule]:
    """The matrices of the blocks."""
    config, state, _ = read_model_directory(source, classifiers=True)
    if integers_of(source) is not None:
        raise UserError(f"model.path: {source} is held as integers already; give the directory that it was made from")
    rules = tensor_rules(family_of(config), config, classes_of(source) is not None)
    return [rule for rule in rules if is_hidden_matrix(rule.ours[0], state[rule.ours[0]].dim())]


def _check(config: CompressConfig, transposed: bool) -> None:
    if config.quantization.name == "none":
        return
    if importlib.util.find_spec("torchao") is None:
        raise UserError("quantization.name: needs torchao, which is not installed; pip install 'loam[quantization]'")
    if transposed:
        raise UserError(
            "quantization.name: GPT-2 keeps its layers in a form of its own, for which transformers loads no integers; "
            "prune it, or leave it whole"
        )


def _settle(config: CompressConfig, inputs: Mapping[str, int]) -> None:
    """Choose the group, if that is left open; refuse what does not divide the inputs of a matrix, given by its name."""
    if not inputs:
        raise UserError(f"skip: {config.skip} leaves no matrix to change; shorten it")
    for name, count in inputs.items():
        if config.pruning.pattern == "2:4" and count % 4:
            raise UserError(f"pruning.pattern: 2:4 needs inputs in fours, and {name} has {count}; add it to skip")
    if config.quantization.name != "int4":
        return
    fitting = [group for group in _GROUPS if not any(count % group for count in inputs.values())]
    config.quantization.group = config.quantization.group or next(iter(fitting), 0)
    for name, count in inputs.items():
        if not config.quantization.group or count % config.quantization.group:
            told = config.quantization.group or "none of 128, 64, 32 and 16"
            instead = f"choose {fitting[0]}, or " if fitting else ""
            raise UserError(
                f"quantization.group: {told} does not divide the {count} inputs of {name}; {instead}skip it"
            )


def _refuse_other(target: Path, facts: dict[str, Any]) -> None:
    """What was made otherwise is not replaced."""
    file = target / "provenance.json"
    if target.exists() and (not file.exists() or read_json(file).get("compressed") != facts["compressed"]):
        raise UserError(f"output: {target} exists and is not what these settings made; choose another, or remove it")


def _changed(rule: TensorRule, tensor: Tensor, config: CompressConfig) -> Tensor | Integers:
    if config.pruning.pattern != "none":
        ours = {name: prune(part, config.pruning) for name, part in rule.to_ours(tensor).items()}
        tensor = rule.to_theirs(ours)
    return tensor if config.quantization.name == "none" else quantize(tensor, config.quantization)
