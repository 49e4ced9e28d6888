"""Maximal update parametrisation (muP): learning rates found on a narrow model serve a wide one.

Yang et al. 2022, arXiv:2203.03466, table 8, for Adam and optimizers whose updates have a size of their own like its
(Lion, Muon matched to AdamW). A model `width_ratio` times as wide as its base has, against the usual

    hidden matrices    standard deviation / sqrt(width_ratio), learning rate / width_ratio
    output             logits / width_ratio
    attention          scores by 1 / head size, in place of its root, equal at the head size of the base

and embeddings, norms and biases as they were. At the width of its base, a model is the usual one.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from framework.config import ModelConfig


def is_hidden_matrix(name: str, dimensions: int) -> bool:
    """Whether both sides of a parameter grow with the width: the matrices of the blocks."""
    return name.startswith("blocks.") and dimensions == 2


def width_ratio(config: ModelConfig) -> float:
    """How many times as wide as its base a model is; 1 where it has none."""
    return config.hidden_size / config.mup_base_width if config.mup_base_width else 1.0


def output_multiplier(config: ModelConfig) -> float:
    """Factor on the normalised residual stream before the output projection."""
    return 1 / width_ratio(config)


def query_multiplier(config: ModelConfig) -> float:
    """Factor on queries, where attention divides scores by the root of the head size."""
    if not (config.mup_base_width and config.mup_base_head_size):
        return 1.0
    return math.sqrt(config.mup_base_head_size / config.head_size)


def fold(state: Mapping[str, Tensor], config: ModelConfig) -> tuple[Mapping[str, Tensor], ModelConfig]:
    """Weights and shape of the usual model that computes the same: what a Hugging Face family can hold.

    The multipliers go into the last norm and into the query projection, or the query norm where there is one; the
    products are made in fp32.
    """
    if not config.mup_base_width:
        return state, config
    folded = dict(state)
    query = ".attention.query_norm." if config.qk_norm else ".attention.query."
    for name, tensor in state.items():
        factor = 1.0
        if name.startswith("norm."):
            factor = output_multiplier(config)
        elif query in name:
            factor = query_multiplier(config)
        if factor != 1.0:
            folded[name] = (tensor.to(torch.float32) * factor).to(tensor.dtype)
    return folded, replace(config, mup_base_width=0, mup_base_head_size=0)
