"""A rank that prints how many elements the ranks exchange in one update, by ZeRO stage and micro-batches.

python -m tests.training.counting_collectives, as each of two ranks; rank 0 prints.
"""

import functools
import json

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_leaves

from framework import distributed
from framework.config import BatchConfig, PretrainConfig, ZeroConfig
from framework.stream.loader import Batch
from tests.training.test_optimizer import MODEL, ROWS, batch, fresh_model

REDUCTIONS = ("all_reduce", "reduce", "reduce_scatter_tensor", "reduce_scatter")
exchanged = 0


def elements(value) -> int:
    return sum(leaf.numel() for leaf in tree_leaves(value) if torch.is_tensor(leaf))


def counted(function):
    @functools.wraps(function)
    def counting(*args, **kwargs):
        global exchanged
        exchanged += max(
            elements(value) for value in [*args, *kwargs.values()]
        )  # what goes in, not the part that comes out
        return function(*args, **kwargs)

    return counting


def share(step: int) -> Batch:
    rows, mine = batch(step), slice(distributed.rank(), None, distributed.world_size())
    return Batch(rows.tokens[mine], rows.labels[mine], rows.document[mine], rows.corpora[mine])


def elements_reduced(stage: int, micro: int) -> int:
    global exchanged
    from framework.training.engine import Engine

    config = PretrainConfig(model=MODEL, batch=BatchConfig(sequences=ROWS, micro=micro), zero=ZeroConfig(stage=stage))
    engine = Engine(fresh_model(), config)
    engine.step(share(0), 0.01)
    exchanged = 0
    engine.step(share(1), 0.01)
    return exchanged


if __name__ == "__main__":
    for name in REDUCTIONS:
        setattr(dist, name, counted(getattr(dist, name)))
    distributed.start()
    found = {stage: {ROWS // 2 // micro: elements_reduced(stage, micro) for micro in (4, 2, 1)} for stage in range(4)}
    if distributed.rank() == 0:
        print(json.dumps({"parameters": sum(p.numel() for p in fresh_model().parameters()), **found}), flush=True)
    distributed.leave(0)
