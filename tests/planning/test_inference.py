"""Plans for answering, against what the model and its cache really hold, and against published figures."""

from itertools import pairwise

import pytest
import torch

from framework.config import ClusterConfig, InferencePlanConfig, ModelConfig, PlanConfig
from framework.model.arithmetic import count_parameters
from framework.model.cache import KeyValueCache
from framework.model.transformer import Transformer
from framework.planning.inference import cache_bytes, plan_inference, weight_bytes
from tests.model.shapes import CONFIGS


@pytest.mark.parametrize("shape", ["llama", "gpt2", "mistral"])
def test_bytes_are_those_of_the_model_and_its_cache(shape):
    config = CONFIGS[shape]
    model = Transformer(config).bfloat16()
    assert weight_bytes(config, "bf16") == sum(parameter.nbytes for parameter in model.parameters())
    cache = KeyValueCache(config, 3, 17, dtype=torch.bfloat16, device="cpu")
    held = sum(tensor.nbytes for tensor in (*cache.keys, *cache.values))
    assert 3 * 17 * cache_bytes(config, "bf16") == held


def test_keys_and_values_of_opt_13b():
    """800 kB a token (arXiv:2309.06180, section 3)."""
    assert cache_bytes(ModelConfig(hidden_size=5120, layers=40, heads=40), "bf16") == 800 * 1024


def plan(**settings: object) -> PlanConfig:
    """Llama 3 8B on one H100."""
    cluster = ClusterConfig(
        peak_tflops=989.4, memory_gb=80, memory_gb_per_second=3350, price=3.0, device="gpu", gpus_per_node=8
    )
    model = ModelConfig(*(128256, 4096, 32, 32, 8), intermediate_size=14336, tied_embeddings=False)
    config = PlanConfig(purpose="inference", cluster=cluster, inference=InferencePlanConfig(**settings))
    for name, value in vars(model).items():
        setattr(config.model, name, value)
    return config


def test_one_answer_at_a_time_waits_for_the_weights():
    """All but a row of the embedding is read for each token."""
    config = plan(batch=1, prompt_tokens=1, output_tokens=1)
    found = plan_inference(config)
    read = 2 * (count_parameters(config.model).total - 128256 * 4096)
    assert found.bound_by == "memory"
    assert found.step_seconds == pytest.approx(read / 3.35e12, rel=1e-3)


def test_what_fits_fills_the_memory():
    found = plan_inference(plan(prompt_tokens=512, output_tokens=512))
    assert found.fits
    assert found.limit is not None
    assert found.batch == found.largest_batch
    assert found.bytes <= found.limit < found.bytes + found.cache_bytes_per_sequence
    one_more = plan_inference(plan(prompt_tokens=512, output_tokens=512, batch=found.batch + 1))
    assert one_more.fits is False


def test_fewer_bits_are_faster_and_leave_room():
    plans = [plan_inference(plan(weights=dtype, batch=1)) for dtype in ("fp32", "bf16", "int8", "int4")]
    for large, small in pairwise(plans):
        assert small.weight_bytes < large.weight_bytes
        assert small.tokens_per_second > large.tokens_per_second
        assert small.largest_batch > large.largest_batch


def test_gpus_that_share_layers_share_weights_and_heads():
    config = plan(batch=1)
    config.cluster.gpus, config.parallel.tensor = 4, 2
    found, alone = plan_inference(config), plan_inference(plan(batch=1))
    assert found.replicas == 2
    assert found.cache_bytes_per_token == alone.cache_bytes_per_token / 2
    embeddings = 2 * 2 * 128256 * 4096  # whole on each
    assert found.weight_bytes - embeddings == (alone.weight_bytes - embeddings) / 2
