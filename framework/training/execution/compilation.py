"""Transformer blocks through torch.compile."""

import torch
from torch import nn

from framework.model.transformer import Block

SHAPES = 64  # that one run may meet: micro-batches and their rest, lengths of a curriculum, validation


def compile_blocks(blocks: nn.ModuleList, stage: int) -> None:
    """Compile each block as one graph, in which attention stays one operation, torch's or the kernel's own.

    Every shape is compiled for itself: a graph that serves several would depend on which a process meets first, and
    so would the rounding of a run that goes on. Under ZeRO-3 a block's weights are gathered and released together, as
    the hooks that gather those of single layers would cut the graph.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
    for block in blocks:
        block.forward = torch.compile(block.forward, fullgraph=True, dynamic=False)
    if stage == 3:
        from deepspeed.utils import set_z3_leaf_modules

        set_z3_leaf_modules(blocks, [Block])
