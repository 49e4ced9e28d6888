"""A model directory whose matrices were changed: written, read back, and only then given its name."""

import contextlib
import importlib.util
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import framework
from framework.errors import UserError
from framework.model.card import model_card
from framework.model.huggingface import (
    assemble,
    classes_of,
    partial_directory,
    read_model_directory,
    read_tensors,
    rename,
)
from framework.model.integers import Integers, Scheme, to_files, to_json
from framework.model.tokenizer import read_json
from framework.model.verifying import own_logits, require_equal, transformers_logits
from framework.model.weights import INDEX, read_weights, weight_files, write_weights

Changed = Mapping[str, Tensor | Integers]  # by the family's names


def write_changed(
    source: Path, target: Path, changed: Changed, scheme: Scheme | None, ignored: list[str], facts: dict[str, Any]
) -> dict[str, Any]:
    """Write `source` again with other matrices; tokenizer and all else as they were. What is at `target` is replaced.

    scheme: of the integers among `changed`; ignored: linear layers that are left as numbers; facts: go to
    provenance.json beside those of `source`.

    Returns:
        The provenance written, with how the directory was verified.

    Raises:
        UserError: what was read back differs; then nothing is left behind.
    """
    partial = partial_directory(target.absolute())
    try:
        left = {"config.json", "README.md", "provenance.json", INDEX, *(file.name for file in weight_files(source))}
        for file in source.iterdir():
            if file.is_file() and file.name not in left:
                shutil.copy2(file, partial)
        settings = read_json(source / "config.json")
        if scheme is not None:
            settings["quantization_config"] = to_json(scheme, ignored)
        _write_json(partial / "config.json", settings)
        tensors: dict[str, Tensor] = {}
        for name, tensor in read_weights(source).items():
            new = changed.get(name, tensor)
            if isinstance(new, Integers):
                assert scheme is not None
                tensors |= to_files(name, new, scheme)
            else:
                tensors[name] = new
        sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
        write_weights(partial, sizes, lambda name: tensors[name].contiguous(), 5_000_000_000)
        own = read_json(source / "provenance.json") if (source / "provenance.json").exists() else {}
        facts = {**own, **facts, "loam_version": framework.__version__, **_verify(partial, changed, scheme)}
        _write_json(partial / "provenance.json", facts)
        config, state, _ = read_model_directory(partial, classifiers=True)
        count = sum(tensor.numel() for tensor in state.values())
        card = model_card({"family": settings["model_type"], "parameters": count, **facts}, config, classes_of(partial))
        (partial / "README.md").write_text(card, encoding="utf-8")
        rename(partial, target.absolute())
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return facts


def _verify(directory: Path, changed: Changed, scheme: Scheme | None) -> dict[str, Any]:
    """Read back the integers that were written, and hold logits against those of transformers where it is there."""
    tensors, held = read_tensors(directory)
    for name, new in changed.items():
        old = held.get(name) if isinstance(new, Integers) else tensors.get(name)
        if not _equal(new, old):
            raise UserError(f"{directory}: {name} came back changed; report this with the model's config.json")
    config, state, _ = read_model_directory(directory, classifiers=True)
    classes = classes_of(directory)
    needs = ["transformers", *(["compressed_tensors"] if scheme else [])]
    if not all(map(importlib.util.find_spec, needs)) or (scheme is not None and scheme.activations):
        return {"verified_with": "loam", "maximum_difference": 0.0}
    expected = own_logits(assemble(config, state, classes=classes), directory)
    with contextlib.redirect_stderr(io.StringIO()):  # compressed-tensors shows a bar for each of its steps
        found = transformers_logits(directory, config, classes is not None)
    return {
        "verified_with": "transformers",
        "maximum_difference": require_equal("read back by transformers", found, expected),
    }


def _equal(one: Tensor | Integers, other: Tensor | Integers | None) -> bool:
    if isinstance(one, Integers):
        return isinstance(other, Integers) and one.values.equal(other.values) and one.scale.equal(other.scale)
    return isinstance(other, Tensor) and one.equal(other)


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
