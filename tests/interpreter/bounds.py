"""Reads beyond a tensor's end that change no number, which the interpreter lets pass and a GPU may not."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder


@contextmanager
def forbidden(*surrounded: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Within, a kernel that loads from or stores to `around` outside of `place`, a view into it, fails.

    surrounded: pairs of around and place.
    """
    if not surrounded:
        yield
        return
    outside = np.concatenate([np.setdiff1d(addresses(around), addresses(place)) for around, place in surrounded])
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def check(pointers, mask):
        assert not np.isin(pointers.data[mask.data], outside).any(), "a kernel reaches beyond the end of a tensor"

    def checked_load(self, pointers, mask, *rest, **more):
        check(pointers, mask)
        return load(self, pointers, mask, *rest, **more)

    def checked_store(self, pointers, value, mask, *rest, **more):
        check(pointers, mask)
        return store(self, pointers, value, mask, *rest, **more)

    InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store = checked_load, checked_store
    try:
        yield
    finally:
        InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store = load, store


def addresses(tensor: Tensor) -> np.ndarray:
    """Of every element, sorted."""
    offsets = sum(
        (
            torch.arange(size).view(-1, *[1] * (tensor.dim() - 1 - dimension)) * stride
            for dimension, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True))
        ),
        torch.zeros(tensor.shape, dtype=torch.int64),
    )
    return np.unique(tensor.data_ptr() + offsets.numpy() * tensor.element_size()).astype(np.uint64)
