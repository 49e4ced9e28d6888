"""What a run with adapters hands over: the adapter by itself, or the weights with the updates added to them."""

import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import framework
from framework.config import AdapterConfig, ModelConfig
from framework.errors import UserError
from framework.finetuning.adaptation.lora import A, B, Updates, assemble_adapted, updates_of
from framework.finetuning.adaptation.peft_files import CONFIG, Adapter, read_adapter, write_files
from framework.finetuning.adaptation.quantized import round_trip
from framework.model.classifier import Classes
from framework.model.families import family_of
from framework.model.huggingface import parameter_shapes
from framework.model.tensor_names import tensor_rules
from framework.model.verifying import probe, require_equal


def whole_state(
    base: Mapping[str, Tensor], trained: Mapping[str, Tensor], adapter: AdapterConfig, config: ModelConfig
) -> dict[str, Tensor]:
    """Every weight that a run with adapters leaves, W + scale * B A in fp32, and those that were trained whole.

    Args:
        base: weights of the directory that the run started from, by our names. Those that were trained on in 4 bits
            are taken as the 4 bits hold them, since that is what the updates were trained beside.
        trained: what `whole_weights` gives; without adapters, whole parameters that replace those of `base`.

    Raises:
        UserError: the merged weights give other logits than the base with the updates beside it, by more than 1e-4 of
            the largest.
    """
    own = {name: tensor for name, tensor in trained.items() if not name.endswith((f".{A}", f".{B}"))}
    updates = updates_of(trained, adapter)
    whole = {**base, **own}
    if not updates:
        return whole
    if adapter.name == "qlora":
        whole |= {f"{name}.weight": round_trip(base[f"{name}.weight"]) for name in updates}
    merged = merge(whole, updates)
    _equal("merged", _hidden(merged, config, {}), _hidden(whole, config, updates))
    return merged


def merge(state: Mapping[str, Tensor], updates: Updates) -> dict[str, Tensor]:
    """Weights with the updates added to them, in fp32; the others as they are."""
    merged = dict(state)
    for name, update in updates.items():
        merged[f"{name}.weight"] = state[f"{name}.weight"].float() + update.product()
    return merged


def write_adapter(
    path: str | os.PathLike[str],
    trained: Mapping[str, Tensor],
    adapter: AdapterConfig,
    config: ModelConfig,
    *,
    base: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    provenance: Mapping[str, Any],
    classes: Classes | None = None,
) -> dict[str, Any]:
    """Write a directory that `peft.PeftModel.from_pretrained` loads, read it back, and only then give it its name.

    Args:
        path: of the directory; one with an adapter in it is replaced.
        trained: what `whole_weights` gives.
        base: path of the model directory that the run started from, and that the adapter belongs to.
        state: its weights, by our names.
        provenance: what is known of the adapter's origin; goes to `provenance.json`.
        classes: what the model tells apart, if it is a classifier; its head, trained whole, goes with the adapter.

    Returns:
        The provenance written, with how the directory was verified.

    Raises:
        UserError: something else than an adapter is at `path`, or what was read back differs; then nothing is left.
    """
    target = Path(path).absolute()
    if target.exists() and not (target / CONFIG).is_file():
        raise UserError(f"{target}: exists and is no adapter; choose another path or remove it")
    rules = tensor_rules(family_of(config), config, classifies=classes is not None)
    extra = {rule.theirs: rule.to_theirs(trained) for rule in rules if set(rule.ours) <= set(trained)}
    updates = updates_of(trained, adapter)
    task = "SEQ_CLS" if classes else "CAUSAL_LM" if config.causal else None
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        write_files(partial, Adapter(updates, extra, os.fspath(base)), config, adapter.dropout, task)
        verdict = _verify(partial, updates, extra, state, config, classes)
        facts = {**provenance, "loam_version": framework.__version__, **verdict}
        (partial / "provenance.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return facts


def _verify(
    directory: Path,
    updates: Updates,
    saved: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    config: ModelConfig,
    classes: Classes | None,
) -> dict[str, Any]:
    """Compare what the files give, on the base, with what was trained: by our reader, and by PEFT where it is there."""
    expected = _hidden(state, config, updates)
    found = read_adapter(directory, config)
    if any(not torch.equal(found.saved[name], tensor) for name, tensor in saved.items()):
        raise UserError(f"{directory}: a module that was saved came back changed; report this with the configuration")
    difference = _equal("read back", _hidden(state, config, found.updates), expected)
    verdict = {"verified_with": "loam", "maximum_difference": difference}
    if importlib.util.find_spec("peft") and importlib.util.find_spec("transformers"):
        difference = _equal("read back by peft", _peft_hidden(directory, config, classes), expected)
        verdict = {"verified_with": "peft", "maximum_difference": difference}
    return verdict


def _equal(how: str, hidden: Tensor, expected: Tensor) -> float:
    return require_equal(how, hidden, expected, of="adapter: {}, its hidden states")


@torch.no_grad()
def _hidden(state: Mapping[str, Tensor], config: ModelConfig, updates: Updates) -> Tensor:
    """Last hidden states, of which every task makes the same from here on; so no output projection is needed."""
    shape = replace(config, tied_embeddings=True)
    backbone = {name: state[name] for name in parameter_shapes(shape)}
    return assemble_adapted(shape, backbone, updates)(probe(config), head=lambda x_BTC, weight_VC: x_BTC)


@torch.no_grad()
def _peft_hidden(directory: Path, config: ModelConfig, classes: Classes | None) -> Tensor:
    import transformers

    # which looks for another package called `kernels` that it could do without, and finds ours
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from peft import PeftModel

    base = json.loads((directory / CONFIG).read_bytes())["base_model_name_or_path"]
    if classes is not None:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            base, dtype=torch.float32, num_labels=len(classes.names)
        )
    else:
        kind = transformers.AutoModelForCausalLM if config.causal else transformers.AutoModelForMaskedLM
        model = kind.from_pretrained(base, dtype=torch.float32)
    adapted: Any = PeftModel.from_pretrained(model, directory).eval().get_base_model()
    return getattr(adapted, adapted.base_model_prefix)(probe(config)).last_hidden_state
