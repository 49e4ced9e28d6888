"""Rows shared by several ranks: each has a part of the tokens, and in attention a part of the heads.

DeepSpeed Ulysses (arXiv:2309.14509). All but attention works on each token alone, so a rank does it for its own
part of the row. Before attention an all-to-all trades time for heads, after it another trades back: a rank
attends with its heads over the whole row. The model knows nothing of it.
"""

import math
from typing import Any

from torch import Tensor, nn

import kernels
from framework.model.transformer import Attention


class SharedAttention:
    """`kernels.attention` over rows of which each rank of a group holds an equal part of the time.

    Args:
        group: the ranks that share a row, in the order of their parts.
    """

    def __init__(self, group: Any) -> None:
        from deepspeed.sequence.layer import DistributedAttention

        self._ranks = group.size()
        self._attention = DistributedAttention(kernels.attention, group, scatter_idx=2, gather_idx=1)

    def __call__(self, q_BTHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, **options: Any) -> Tensor:
        """As `kernels.attention`, with this rank's part of the time; `document` is that of the whole row.

        Key-value heads that the ranks do not divide are repeated until they do: then every rank has those that its
        query heads use.
        """
        heads = k_BTGD.shape[2]
        copies = math.lcm(heads, self._ranks) // heads
        if copies > 1:
            k_BTGD, v_BTGD = (x.repeat_interleave(copies, dim=2) for x in (k_BTGD, v_BTGD))
        return self._attention(q_BTHD, k_BTGD, v_BTGD, 0, None, **options)


def share_rows(model: nn.Module, group: Any) -> None:
    """Let the model attend over rows that the ranks of `group` share."""
    attention = SharedAttention(group)
    for module in model.modules():
        if isinstance(module, Attention):
            module.mix = attention
