"""Attention and its gradients in float64, from the definition, a few queries at a time.

It shares no code with `kernels`, neither forward nor backward. Shapes: Q queries, K keys, R heads that share a
key-value head, D head size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

SCORES_AT_ONCE = 1 << 27  # float64: 1 GiB, several times over


class Exact(NamedTuple):
    """In float64: output [B, Q, H, D], log-sum-exp [B, H, Q], and gradients of q, k, v and the sink."""

    output: Tensor
    lse: Tensor
    gradients: list[Tensor]


def attention(
    leaves: list[Tensor],
    upstream: Tensor,
    lse_upstream: Tensor | None,
    *,
    causal: bool,
    document: Tensor | None,
    window: int,
    scale: float | None,
    softcap: float,
) -> Exact:
    """What `kernels.attention` of `leaves` (q, k, v, and maybe the sink) and autograd should give."""
    q, k, v = (leaf.detach() for leaf in leaves[:3])
    sink = leaves[3].detach().double() if len(leaves) == 4 else None
    batch, query_time, heads, head_size = q.shape
    key_time, groups = k.shape[1:3]
    shared = heads // groups
    scale = head_size**-0.5 if scale is None else scale

    output = torch.zeros(q.shape, dtype=torch.float64, device=q.device)
    lse = torch.zeros(batch, heads, query_time, dtype=torch.float64, device=q.device)
    gradients = [torch.zeros(leaf.shape, dtype=torch.float64, device=q.device) for leaf in leaves]
    rows = max(SCORES_AT_ONCE // (key_time * shared), 1)
    for b in range(batch):
        for g in range(groups):
            own = slice(g * shared, (g + 1) * shared)
            k_KD, v_KD = k[b, :, g].double(), v[b, :, g].double()
            for start in range(0, query_time, rows):
                at = slice(start, start + rows)
                q_RQD, upstream_RQD = (x[b, at, own].transpose(0, 1).double() for x in (q, upstream))
                positions_Q = torch.arange(query_time, device=q.device)[at] + key_time - query_time
                hidden_QK = _hidden(positions_Q, key_time, causal, window, None if document is None else document[b])

                raw_RQK = q_RQD @ k_KD.T * scale
                bent_RQK = torch.tanh(raw_RQK / softcap) if softcap else raw_RQK
                scores_RQK = (softcap * bent_RQK if softcap else raw_RQK).masked_fill(hidden_QK, float("-inf"))
                lse_RQ = scores_RQK.logsumexp(-1)
                if sink is not None:
                    lse_RQ = torch.logaddexp(lse_RQ, sink[own, None].expand_as(lse_RQ))
                p_RQK = (scores_RQK - lse_RQ[..., None]).exp().masked_fill(hidden_QK, 0.0)
                output_RQD = p_RQK @ v_KD
                output[b, at, own], lse[b, own, at] = output_RQD.transpose(0, 1), lse_RQ

                # of the softmax: p x (dp - sum(p x dp)), and a change of log-sum-exp moves each score by its p
                delta_RQ = (output_RQD * upstream_RQD).sum(-1)
                if lse_upstream is not None:
                    delta_RQ = delta_RQ - lse_upstream[b, own, at].double()
                s_gradient_RQK = p_RQK * (upstream_RQD @ v_KD.T - delta_RQ[..., None])
                if softcap:
                    s_gradient_RQK = s_gradient_RQK * (1 - bent_RQK**2)
                gradients[0][b, at, own] = (s_gradient_RQK @ k_KD * scale).transpose(0, 1)
                gradients[1][b, :, g] += torch.einsum("rqk,rqd->kd", s_gradient_RQK, q_RQD) * scale
                gradients[2][b, :, g] += torch.einsum("rqk,rqd->kd", p_RQK, upstream_RQD)
                if sink is not None:
                    share_RQ = (sink[own, None] - lse_RQ).exp()
                    gradients[3][own] -= (share_RQ * delta_RQ).sum(-1)
    return Exact(output, lse, gradients)


def _hidden(positions_Q: Tensor, key_time: int, causal: bool, window: int, document: Tensor | None) -> Tensor:
    """Bool [Q, K]: which keys a query at that position does not see."""
    keys_K = torch.arange(key_time, device=positions_Q.device)
    ahead_QK = keys_K[None, :] - positions_Q[:, None]
    hidden_QK = ahead_QK > 0 if causal else torch.zeros_like(ahead_QK, dtype=torch.bool)
    if window:
        hidden_QK = hidden_QK | (ahead_QK <= -window)
    if document is not None:
        hidden_QK = hidden_QK | (document[positions_Q][:, None] != document[None, :])
    return hidden_QK


def written_mask(leaves: list[Tensor], options: dict, row: int) -> Tensor:
    """Bool [Q, K] of one row of the batch, true where a query sees a key, as torch's own attention takes it."""
    query_time, key_time = leaves[0].shape[1], leaves[1].shape[1]
    positions_Q = torch.arange(key_time - query_time, key_time, device=leaves[0].device)
    document = options["document"]
    own = None if document is None else document[row]
    return ~_hidden(positions_Q, key_time, options["causal"], options["window"], own)
