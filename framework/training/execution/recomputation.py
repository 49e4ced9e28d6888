"""Activations that are computed a second time in the backward pass instead of kept (arXiv:1604.06174)."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from framework.config import MemoryConfig


def recompute_activations(blocks: nn.ModuleList, config: MemoryConfig) -> None:
    """Keep nothing but the input of every block, or of every n-th one, as `memory.activation_checkpointing` says.

    The blocks know nothing of it: their `forward` is replaced from outside, within the hooks that gather weights, and
    neither names nor values change.
    """
    if config.activation_checkpointing == "none":
        return
    every = config.every if config.activation_checkpointing == "every_n" else 1
    for block in blocks[::every]:
        # nothing in a block draws random numbers, so there is no generator to rewind
        recomputed = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        block.forward = recomputed
