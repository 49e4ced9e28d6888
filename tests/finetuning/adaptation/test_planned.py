"""What a plan says of a fine-tuning's parameters, against the models that are trained, and the papers."""

import pytest
import torch

from framework.config import AdaptationConfig, AdapterConfig, FreezeConfig, ModelConfig
from framework.finetuning.adaptation.adapt import adapt
from framework.finetuning.adaptation.planned import PACKED_BYTES, adapted_shapes
from framework.model.transformer import Transformer
from tests.model.shapes import CONFIGS


@pytest.mark.parametrize(
    "config",
    [
        AdaptationConfig(),
        AdaptationConfig(AdapterConfig("lora", rank=3)),
        AdaptationConfig(AdapterConfig("lora", targets=["attention.query", "mlp.*"])),
        AdaptationConfig(freeze=FreezeConfig(layers=1, embeddings=True)),
    ],
    ids=["all", "lora", "some layers", "frozen"],
)
def test_shapes_are_those_of_the_model(config):
    shape = CONFIGS["llama"]
    trained, frozen, packed = adapted_shapes(shape, config)
    model = Transformer(shape)
    adapt(model, config, seed=0)
    named = {name: (tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()}
    assert trained == {name: size for name, (size, trains) in named.items() if trains}
    assert frozen == {name: size for name, (size, trains) in named.items() if not trains}
    assert packed == 0


@pytest.mark.parametrize(("rank", "published"), [(1, 4_718_592), (8, 37_748_736)])
def test_updates_of_gpt3_have_the_published_number(rank, published):
    """4.7 and 37.7 million on queries and values (arXiv:2106.09685, table 4)."""
    shape = ModelConfig(
        *(50257, 12288, 96, 96),
        norm="layernorm",
        activation="gelu",
        position="learned",
        maximum_positions=2048,
        **dict.fromkeys(("attention_bias", "attention_output_bias", "mlp_bias"), True),
    )
    adapter = AdapterConfig("lora", rank=rank, targets=["attention.query", "attention.value"])
    trained, _, _ = adapted_shapes(shape, AdaptationConfig(adapter))
    assert sum(a * b for a, b in trained.values()) == published


def test_a_classifier_has_a_score_in_place_of_the_output_projection():
    trained, frozen, _ = adapted_shapes(CONFIGS["llama"], AdaptationConfig(AdapterConfig("lora")), classifies=True)
    assert "score.weight" in trained
    assert "output.weight" not in trained | frozen


def test_weights_in_4_bits_have_the_bytes_that_bitsandbytes_gives_them():
    pytest.importorskip("bitsandbytes")
    from framework.finetuning.adaptation.lora import RowDropout
    from framework.finetuning.adaptation.quantized import QuantizedLoraLinear

    layer = QuantizedLoraLinear("a", torch.nn.Linear(512, 1024), 1, 1.0, RowDropout(0.0, 0))
    layer.load_state_dict({"weight": torch.randn(1024, 512)}, strict=False)
    assert layer.stored_bytes() == pytest.approx(1024 * 512 * PACKED_BYTES, rel=1e-3)
    _, frozen, packed = adapted_shapes(CONFIGS["llama"], AdaptationConfig(AdapterConfig("qlora")))
    assert packed > 0
    assert not any(name.endswith("query.weight") for name in frozen)
