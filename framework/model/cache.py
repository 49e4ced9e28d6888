"""Keys and values of the tokens seen so far, so that decoding computes only the new ones."""

import torch
from torch import Tensor

from framework.config import ModelConfig


class KeyValueCache:
    """Contiguous buffers [batch, capacity, key-value heads, head size] for each layer.

    `length` is the number of positions that hold a token. A forward pass appends to every layer through
    `update` and then moves `length` once, through `advance`. Raises ValueError for a bidirectional model.
    """

    def __init__(
        self, config: ModelConfig, batch: int, capacity: int, *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        if not config.causal:
            raise ValueError("model.causal is false: each new token would change the keys and values of all before it")
        shape = (batch, capacity, config.key_value_heads, config.head_size)
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        self.capacity = capacity
        self.length = 0

    def update(self, layer: int, k_BTGD: Tensor, v_BTGD: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values; return all of that layer's, the new ones included.

        Raises ValueError where they exceed the capacity.
        """
        end = self.length + k_BTGD.shape[1]
        if end > self.capacity:
            raise ValueError(f"{end} positions exceed the cache's capacity of {self.capacity}")
        self.keys[layer][:, self.length : end] = k_BTGD
        self.values[layer][:, self.length : end] = v_BTGD
        return self.keys[layer][:, :end], self.values[layer][:, :end]

    def advance(self, tokens: int) -> None:
        """Count `tokens` more positions as filled, after every layer was updated."""
        self.length += tokens
