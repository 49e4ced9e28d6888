import math
from functools import partial

import pytest
import torch

import kernels
from framework.config import LossConfig, ModelConfig
from framework.model.cache import KeyValueCache
from framework.model.loss import summed_losses
from framework.model.transformer import Transformer, initialize, positions_in_documents
from tests.model.shapes import CONFIGS, DECODERS, SMALL, random_model, random_tokens

every_shape = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


@every_shape
@torch.no_grad()
def test_documents_in_one_row_do_not_see_each_other(config):
    model = random_model(config)
    document = torch.tensor([[0] * 9 + [1] * 14 + [2] * 7, [4] * 30], dtype=torch.int32)
    tokens = random_tokens(config, 2, 30)
    logits = model(tokens, document)
    changed = tokens.clone()
    changed[0, 9:23] = (changed[0, 9:23] + 1) % config.vocabulary_size
    logits_changed = model(changed, document)

    assert torch.equal(logits[0, :9], logits_changed[0, :9])
    assert torch.equal(logits[0, 23:], logits_changed[0, 23:])
    assert torch.equal(logits[1], logits_changed[1])
    assert not torch.equal(logits[0, 9:23], logits_changed[0, 9:23])


@every_shape
@torch.no_grad()
def test_a_document_in_a_row_gives_what_it_gives_alone(config):
    model = random_model(config).double()
    tokens = random_tokens(config, 1, 30)
    document = torch.tensor([[3] * 9 + [7] * 14 + [8] * 7], dtype=torch.int32)
    packed = model(tokens, document)
    for start, end in ((0, 9), (9, 23), (23, 30)):
        torch.testing.assert_close(packed[:, start:end], model(tokens[:, start:end]), rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_token_sees_what_follows_in_an_encoder_alone():
    for config in CONFIGS.values():
        model = random_model(config)
        tokens = random_tokens(config, 1, 20)
        changed = tokens.clone()
        changed[0, -1] = (changed[0, -1] + 1) % config.vocabulary_size
        unmoved = torch.equal(model(tokens)[:, :-1], model(changed)[:, :-1])
        assert unmoved == config.causal


def test_an_encoder_has_no_cache():
    with pytest.raises(ValueError, match=r"model\.causal is false"):
        KeyValueCache(CONFIGS["encoder"], 1, 8, dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("config", DECODERS.values(), ids=DECODERS.keys())
@torch.no_grad()
def test_decoding_with_a_cache_equals_one_pass(config):
    model = random_model(config).double()
    tokens = random_tokens(config, 2, 21)
    cache = KeyValueCache(config, 2, 21, dtype=torch.float64, device="cpu")
    pieces = [model(tokens[:, :8], cache=cache), model(tokens[:, 8:11], cache=cache)]
    pieces += [model(tokens[:, t : t + 1], cache=cache) for t in range(11, 21)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="capacity of 21"):
        model(tokens[:, :1], cache=cache)
    with pytest.raises(ValueError, match="document or cache"):
        model(tokens, torch.zeros_like(tokens, dtype=torch.int32), cache)


@every_shape
def test_implementations_of_attention_agree_in_loss_and_gradients(config):
    tokens = random_tokens(config, 2, 20)
    document = torch.tensor([[0] * 13 + [1] * 7, [0] * 20], dtype=torch.int32)
    gradients = {}
    for name in ("reference", "sdpa"):
        model = random_model(config).double()
        with kernels.use(name):
            total, _, _ = model(tokens, document, head=partial(summed_losses, labels_BT=tokens, config=LossConfig()))
        (total / tokens.numel()).backward()
        gradients[name] = [parameter.grad for parameter in model.parameters()]
    for one, other in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_positions_restart_with_each_document():
    document = torch.tensor([[0, 0, 0, 1, 2, 2], [3, 3, 1, 1, 1, 1]], dtype=torch.int32)
    assert positions_in_documents(kernels.documents(document)).tolist() == [[0, 1, 2, 0, 0, 1], [0, 1, 0, 1, 2, 3]]


def test_initial_weights_depend_on_seed_and_name_alone():
    config = ModelConfig(**SMALL)
    model, again, other = (Transformer(config) for _ in range(3))
    initialize(model, config, 1)
    torch.manual_seed(99)
    initialize(again, config, 1)
    initialize(other, config, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.embedding.weight, other.embedding.weight)

    deeper = Transformer(ModelConfig(**SMALL | {"layers": 3}))
    initialize(deeper, config, 1)
    assert torch.equal(deeper.blocks[1].mlp.up.weight, model.blocks[1].mlp.up.weight)


def test_initial_weights_have_their_deviations():
    config = ModelConfig(**SMALL | {"hidden_size": 256, "layers": 3}, attention_bias=True, norm="layernorm")
    model = Transformer(config)
    initialize(model, config, 0)
    block = model.blocks[2]
    assert block.attention.query.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert block.attention.output.weight.std().item() == pytest.approx(0.02 / math.sqrt(6), rel=0.03)
    assert block.mlp.down.weight.std().item() == pytest.approx(0.02 / math.sqrt(6), rel=0.03)
    assert torch.equal(block.attention.query.bias, torch.zeros(256))
    assert torch.equal(model.norm.weight, torch.ones(256))
    assert torch.equal(model.norm.bias, torch.zeros(256))


def test_parameter_names_are_those_of_existing_checkpoints():
    names = [name for name, _ in Transformer(CONFIGS["qwen3"]).named_parameters() if "blocks.1" not in name]
    assert names == [
        "embedding.weight",
        "blocks.0.attention_norm.weight",
        "blocks.0.attention.query.weight",
        "blocks.0.attention.key.weight",
        "blocks.0.attention.value.weight",
        "blocks.0.attention.output.weight",
        "blocks.0.attention.query_norm.weight",
        "blocks.0.attention.key_norm.weight",
        "blocks.0.mlp_norm.weight",
        "blocks.0.mlp.gate.weight",
        "blocks.0.mlp.up.weight",
        "blocks.0.mlp.down.weight",
        "norm.weight",
    ]
    gpt2 = [name for name, _ in Transformer(CONFIGS["gpt2 untied"]).named_parameters()]
    assert {"positions.weight", "output.weight", "blocks.0.mlp.up.bias", "blocks.0.attention.query.bias"} <= set(gpt2)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_bf16_stays_near_fp32_at_late_positions(name):
    """A rotation computed in bf16 would put positions beyond 256 in the same place."""
    config = ModelConfig(**vars(CONFIGS[name]) | {"maximum_positions": 600})
    model = random_model(config)
    tokens = random_tokens(config, 1, 600)
    with torch.no_grad():
        exact = model(tokens)
        rounded = model.bfloat16()(tokens)
    assert rounded.dtype == torch.bfloat16
    deviation = (rounded.float() - exact)[:, 300:].std() / exact.std()
    assert deviation < 0.05


@pytest.mark.slow
def test_compiles_to_one_graph():
    model = random_model(CONFIGS["qwen3 windowed"])
    tokens = random_tokens(model.config, 2, 16)
    document = torch.tensor([[0] * 5 + [1] * 11, [0] * 16], dtype=torch.int32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, document), model(tokens, document), rtol=0, atol=1e-5)
