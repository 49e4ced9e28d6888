"""Tiny models of every family, with weights large enough that a wrong rotation or mask shows in the logits."""

import torch

from framework.config import ModelConfig
from framework.model.transformer import Transformer, initialize

SMALL = {"vocabulary_size": 96, "hidden_size": 32, "layers": 2, "heads": 4, "maximum_positions": 64}
ROPE_SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32.0,
}
BIASED = {"attention_bias": True, "attention_output_bias": True}
GPT2 = {"norm": "layernorm", "activation": "gelu", "position": "learned", "mlp_bias": True, **BIASED}

CONFIGS = {
    "gpt2": ModelConfig(**SMALL, **GPT2),
    "gpt2 untied": ModelConfig(**SMALL, **GPT2, tied_embeddings=False),
    "llama": ModelConfig(**SMALL),
    "llama grouped, untied, wide heads": ModelConfig(**SMALL, key_value_heads=2, head_size=16, tied_embeddings=False),
    "llama biases": ModelConfig(**SMALL, **BIASED, mlp_bias=True),
    "llama scaled rotary": ModelConfig(**SMALL, rope_theta=5000.0, rope_scaling=ROPE_SCALING),
    "mistral": ModelConfig(**SMALL, key_value_heads=2, sliding_window=7, tied_embeddings=False),
    "qwen3": ModelConfig(**SMALL, key_value_heads=2, head_size=16, qk_norm=True),
    "encoder": ModelConfig(**SMALL, causal=False),
    "encoder grouped, untied, biases": ModelConfig(
        **SMALL, causal=False, key_value_heads=2, tied_embeddings=False, **BIASED
    ),
    "qwen3 windowed": ModelConfig(**SMALL, qk_norm=True, sliding_window=5, norm_epsilon=1e-6, **BIASED),
}


DECODERS = {name: config for name, config in CONFIGS.items() if config.causal}


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """Every parameter drawn, norms and biases too, so that none can be mistaken for another."""
    model = Transformer(config)
    initialize(model, config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model.eval()


def random_tokens(config: ModelConfig, batch: int, time: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(config.vocabulary_size, (batch, time), generator=torch.Generator().manual_seed(seed))
