"""Keys and values of the tokens seen so far, so that decoding computes only the new ones."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from framework.config import ModelConfig


class Cache(Protocol):
    """What a forward pass asks of a cache."""

    @property
    def visible(self) -> Tensor | None:
        """Which of the keys that `update` returns each row sees, bool [B, K]; None: as causal attention has it."""

    def positions(self, time: int) -> Tensor:
        """Where the next `time` tokens stand, int64 [B or 1, time]."""

    def update(self, layer: int, k_BTGD: Tensor, v_BTGD: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values; return those that the new tokens may see, themselves included."""

    def advance(self, tokens: int) -> None:
        """Count `tokens` more positions as filled, after every layer was updated."""


class KeyValueCache:
    """Contiguous buffers [batch, capacity, key-value heads, head size] for each layer; all rows are equally long.

    `length` is the number of positions that hold a token. A forward pass appends to every layer through
    `update` and then moves `length` once, through `advance`. Raises ValueError for a bidirectional model.
    """

    visible: Tensor | None = None

    def __init__(
        self, config: ModelConfig, batch: int, capacity: int, *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        if not config.causal:
            raise ValueError("model.causal is false: each new token would change the keys and values of all before it")
        shape = (batch, capacity, config.key_value_heads, config.head_size)
        # zeros: what stands in memory by chance may be no number, which a mask does not keep out of a sum
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        self.length = 0

    @property
    def capacity(self) -> int:
        """Positions that there is room for."""
        return self.keys[0].shape[1]

    def positions(self, time: int) -> Tensor:
        """See `Cache.positions`."""
        return torch.arange(self.length, self.length + time, device=self.keys[0].device)[None, :]

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
        """See `Cache.advance`."""
        self.length += tokens

    def rows(self, first: int, count: int, length: int) -> "KeyValueCache":
        """Some rows as a cache of its own, over the same memory, of which `length` positions are filled."""
        part = object.__new__(KeyValueCache)
        part.keys = [keys[first : first + count] for keys in self.keys]
        part.values = [values[first : first + count] for values in self.values]
        part.length = length
        return part

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Let row `target` begin with the first `length` positions of row `source`."""
        for buffer in (*self.keys, *self.values):
            buffer[target, :length] = buffer[source, :length]


class RowLengths:
    """The first rows of a cache, each as long as it is, for a forward pass of one token of each.

    lengths: positions of each row that hold a token.
    window: keys that a token sees, itself included; 0: all.
    """

    def __init__(self, cache: KeyValueCache, lengths: Sequence[int], window: int) -> None:
        self._cache = cache
        device = cache.keys[0].device
        self._lengths_B = torch.tensor(lengths, device=device)
        self._rows_B = torch.arange(len(lengths), device=device)
        self._first = max(0, min(lengths) + 1 - window) if window else 0  # no row sees a key before it
        self._end = max(lengths) + 1
        if self._end > cache.capacity:
            raise ValueError(f"{self._end} positions exceed the cache's capacity of {cache.capacity}")
        distance_BK = self._lengths_B[:, None] - torch.arange(self._first, self._end, device=device)
        self.visible = distance_BK >= 0
        if window:
            self.visible &= distance_BK < window

    def positions(self, time: int) -> Tensor:
        """See `Cache.positions`."""
        if time != 1:
            raise ValueError(f"rows of different lengths take one token each, not {time}")
        return self._lengths_B[:, None]

    def update(self, layer: int, k_BTGD: Tensor, v_BTGD: Tensor) -> tuple[Tensor, Tensor]:
        """See `Cache.update`."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys[self._rows_B, self._lengths_B] = k_BTGD[:, 0]
        values[self._rows_B, self._lengths_B] = v_BTGD[:, 0]
        part = slice(len(self._rows_B)), slice(self._first, self._end)
        return keys[part], values[part]

    def advance(self, tokens: int) -> None:
        """The caller knows the lengths."""
