"""For processes of their own, as ranks: the memory that real updates take, storage by storage.

Prints, from rank 0, a line of JSON: for each configuration of sys.argv[1] (a list of YAML texts) the bytes that tensors
held at each mark, and the most that they held from one mark to the next.
"""

import gc
import json
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import framework.training.engine
from framework import distributed
from framework.composition import from_yaml
from framework.config import PretrainConfig
from framework.model.transformer import Transformer
from framework.stream.loader import Batch
from framework.training import average
from framework.training.engine import Engine


class Allocations(TorchDispatchMode):
    """Sees the storage of every tensor that an operation returns, and when it goes, on whichever thread that is.

    What an operator allocates and frees inside is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.marks: dict[str, list[int]] = {}
        self._known: set[int] = set()
        self._held, self._mark = 0, "begin"

    def mark(self, name: str) -> None:
        """From here on what is held counts for another name."""
        self._mark = name
        _, most = self.marks.get(name, [0, 0])
        self.marks[name] = [self._held, max(most, self._held)]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._held += storage.nbytes()
            if self._mark in self.marks:
                self.marks[self._mark][1] = max(self.marks[self._mark][1], self._held)
            weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._held -= size


def marking(allocations: Allocations, method: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
    """The method with a mark before it and one after."""

    def marked(*arguments: Any, **options: Any) -> Any:
        allocations.mark(before)
        result = method(*arguments, **options)
        allocations.mark(after)
        return result

    return marked


def rows(config: PretrainConfig, ranks: int) -> Batch:
    """This rank's share of a batch: random tokens, one document a row."""
    count, length = config.batch.sequences // ranks, config.data.sequence_length
    tokens = np.random.default_rng(0).integers(0, config.model.vocabulary_size, (count, length + 1))
    return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), np.zeros((count, length), dtype=np.int32), [""] * count)


def measure(config: PretrainConfig, make: Callable[[PretrainConfig], Transformer]) -> dict[str, list[int]]:
    """Two updates, of which the second has all that the optimizer keeps.

    DeepSpeed's bucket is as large as what may be in it: on a CPU it would be 2 GB, of which no page is ever touched.
    """
    trained = sum(p.numel() for p in make(config).parameters() if p.requires_grad)
    framework.training.engine._communication = lambda device: {"reduce_bucket_size": trained}
    with Allocations() as allocations:
        engine = Engine(make(config), config)
        batch = rows(config, engine.layout.data_ranks)
        gc.collect()
        allocations.mark("made")
        engine.step(batch, 1e-3)
        average.update(engine, config.ema, 1)
        gc.collect()
        allocations.mark("forward")
        engine._engine.backward = marking(allocations, engine._engine.backward, "backward", "between")
        engine._engine.step = marking(allocations, engine._engine.step, "update", "between")
        engine.step(batch, 1e-3)
        allocations.mark("end")
        engine.close()
    return allocations.marks


def plain(config: PretrainConfig) -> Transformer:
    """Every weight is trained."""
    return Transformer(config.model)


def main(make: Callable[[PretrainConfig], Transformer] = plain) -> None:
    """Every configuration in turn."""
    found = []
    for text in json.loads(sys.argv[1]):
        found.append(measure(from_yaml(text, PretrainConfig), make))
        gc.collect()
    if distributed.rank() == 0:
        print("marks", json.dumps(found))


if __name__ == "__main__":
    main()
