from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch.utils.flop_counter import FlopCounterMode

import kernels
from framework.config import ModelConfig
from framework.model.arithmetic import count_parameters, forward_flops_per_token, training_flops_per_token
from framework.model.transformer import Transformer
from tests.model.shapes import CONFIGS, random_model, random_tokens

PRESETS = Path(__file__).parents[2] / "configs" / "model"
every_shape = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


@every_shape
def test_parameters_are_those_of_the_model(config):
    sizes = {name: parameter.numel() for name, parameter in Transformer(config).named_parameters()}
    tables = sum(size for name, size in sizes.items() if name.split(".")[0] in ("embedding", "positions", "output"))
    count = count_parameters(config)
    assert count.total == sum(sizes.values())
    assert count.embedding == tables


@every_shape
def test_operations_are_those_that_torch_counts(config):
    tokens = random_tokens(config, 2, 24)
    model = random_model(config)
    with kernels.use("reference"):  # torch counts nothing for its own attention on a CPU
        with FlopCounterMode(display=False) as forward:
            total = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten(), reduction="sum")
        with FlopCounterMode(display=False) as backward:
            total.backward()
    assert forward.get_total_flops() == tokens.numel() * forward_flops_per_token(config, 24)
    whole = forward.get_total_flops() + backward.get_total_flops()
    assert whole == tokens.numel() * training_flops_per_token(config, 24)


@pytest.mark.parametrize("name", ["llama", "mistral", "encoder"])
def test_masked_pairs_can_be_left_out(name):
    config = CONFIGS[name]
    visible = kernels.reference.visible_keys(
        24, 24, causal=config.causal, document=None, window=config.sliding_window, device=torch.device("cpu")
    )
    saved = forward_flops_per_token(config, 24) - forward_flops_per_token(config, 24, skip_masked=True)
    masked_keys = (~visible).sum().item() / 24
    assert saved == pytest.approx(4 * config.layers * config.heads * config.head_size * masked_keys)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("gpt2_124m", 124_439_808),
        ("llama_1b", 1_235_814_400),
        ("llama_8b", 8_030_261_248),
        ("mistral_7b", 7_241_732_096),
        ("qwen3_0_6b", 596_049_920),
        ("eurobert_210m", 310_266_624),
    ],
)
def test_presets_have_the_published_number_of_parameters(name, published):
    config = ModelConfig(**yaml.safe_load((PRESETS / f"{name}.yaml").read_text()))
    config.check()
    assert count_parameters(config).total == published


@pytest.mark.parametrize("name", ["tiny", "encoder_tiny"])
def test_tiny_is_tiny(name):
    config = ModelConfig(**yaml.safe_load((PRESETS / f"{name}.yaml").read_text()) | {"vocabulary_size": 4096})
    config.check()
    assert 1_000_000 < count_parameters(config).total < 2_500_000
