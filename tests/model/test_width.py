"""muP: activations keep their size over widths, and only with it; and the model is handed over as a usual one."""

import json

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from framework.config import ModelConfig, OptimizerConfig, PretrainConfig
from framework.errors import UserError
from framework.model.huggingface import read_model_directory, write_model_directory
from framework.model.transformer import Transformer, initialize
from framework.training.optimization.optimizer import build_optimizer
from tests.model import small_tokenizer
from tests.model.shapes import CONFIGS, random_model, random_tokens

BASE, HEAD, WIDE, STEPS = 32, 16, 256, 4


def changes(width: int, base: int, optimizer: str, tied: bool) -> dict[str, float]:
    """By how much updates change the activations: mean over tokens of their root mean square, by place."""
    config = ModelConfig(
        *(64, width, 2, width // HEAD),
        intermediate_size=2 * width,
        tied_embeddings=tied,
        mup_base_width=base,
        initializer_range=0.2,
    )
    model = Transformer(config)
    initialize(model, config, seed=0)
    settings = OptimizerConfig(optimizer, weight_decay=0.0)
    updates = build_optimizer(model, PretrainConfig(model=config, optimizer=settings))
    tokens = random_tokens(config, 4, 17)
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    before = activations(model, inputs)
    for _ in range(STEPS):
        updates.zero_grad()
        F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten()).backward()
        for group in updates.param_groups:
            group["lr"] = 0.02 * group["rate"]
        updates.step()
    after = activations(model, inputs)
    return {place: (after[place] - before[place]).square().mean(-1).sqrt().mean().item() for place in before}


@torch.no_grad()
def activations(model: Transformer, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    seen = {}
    places = {"query": model.blocks[1].attention.query, "stream": model.blocks[1]}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, place=place: seen.update({place: out}))
        for place, module in places.items()
    ]
    seen["logits"] = model(tokens)
    for hook in hooks:
        hook.remove()
    return seen


def growth(base: int, optimizer: str, tied: bool) -> dict[str, float]:
    narrow, wide = (changes(width, base, optimizer, tied) for width in (BASE, WIDE))
    return {place: wide[place] / narrow[place] for place in narrow}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "lion"])
def test_coordinates_keep_their_size_over_widths_with_it_and_grow_without(optimizer, tied):
    with_it, without = growth(BASE, optimizer, tied), growth(0, optimizer, tied)
    for place, ratio in with_it.items():
        assert 0.4 < ratio < 2, (place, ratio)
    assert without["query"] > 2.5
    assert without["logits"] > 2.5


def test_at_the_width_of_its_base_it_is_the_usual_model():
    usual, base = ModelConfig(50, 24, 2, 3), ModelConfig(50, 24, 2, 3, mup_base_width=24)
    tokens = random_tokens(usual, 2, 9)
    logits = []
    for config in (usual, base):
        model = Transformer(config)
        initialize(model, config, seed=0)
        logits.append(model(tokens))
        (group, other) = build_optimizer(model, PretrainConfig(model=config)).param_groups
        assert (group["rate"], other["rate"], group["weight_decay"]) == (1.0, 1.0, 0.1)
    assert torch.equal(*logits)


def test_hidden_matrices_alone_learn_slower_and_decay_as_ever():
    config = PretrainConfig(model=ModelConfig(50, 48, 1, 3, tied_embeddings=False, mup_base_width=12))
    model = Transformer(config.model)
    of = {id(p): group for group in build_optimizer(model, config).param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        hidden = name.startswith("blocks.") and parameter.dim() == 2
        assert of[id(parameter)]["rate"] == (0.25 if hidden else 1.0)
        if parameter.dim() == 2:
            assert of[id(parameter)]["rate"] * of[id(parameter)]["weight_decay"] == pytest.approx(0.1)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_is_handed_over_as_a_usual_model(tmp_path, name):
    shape = vars(CONFIGS[name]) | {"vocabulary_size": 360, "mup_base_width": 11, "mup_base_head_size": 5}
    config = ModelConfig(**shape)
    model = random_model(config)
    tokenizer = small_tokenizer.write(tmp_path / "tokenizer")
    write_model_directory(tmp_path / "model", model.state_dict(), config, tokenizer=tokenizer, provenance={})
    tokens = random_tokens(config, 2, 20)
    with torch.no_grad():
        ours = model(tokens)
        family = AutoModelForCausalLM if config.causal else AutoModelForMaskedLM
        theirs = family.from_pretrained(tmp_path / "model", dtype=torch.float32)(tokens).logits
        unscaled = Transformer(CONFIGS[name].__class__(**(shape | {"mup_base_width": 0, "mup_base_head_size": 0})))
        unscaled.load_state_dict(model.state_dict())
        assert (unscaled(tokens) - ours).abs().max() > 0.05  # the multipliers matter
    assert (ours - theirs).abs().max() <= 1e-4 * max(1.0, theirs.abs().max().item())
    assert read_model_directory(tmp_path / "model").config.mup_base_width == 0
    assert "mup" not in (tmp_path / "model" / "config.json").read_text()
    assert json.loads((tmp_path / "model" / "provenance.json").read_text())["verified_with"] == "transformers"


def test_a_head_size_without_a_width_is_refused():
    with pytest.raises(UserError, match=r"^model\.mup_base_head_size: is 8, but model\.mup_base_width=0 asks for no"):
        ModelConfig(50, mup_base_head_size=8).check()
