"""Attention and its gradients in float64, written out, and how far a kernel may be from them.

The bounds follow from what a FlashAttention kernel rounds, to first order in the unit roundoffs: u of the inputs'
dtype (2^-8 for bf16, 2^-11 for fp16, 2^-24 for fp32), e = 2^-24 of the fp32 in which it adds.

- A score is a sum of D products in fp32: off by (D + 8) e sum|q k|, and exp2 sees it with an error of a few e.
- Probabilities are rounded to the dtype before they weigh values, outputs and gradients when they are stored.
- The backward pass has the probabilities from scores and log-sum-exp, each with its error, rounds them, and rounds the
  gradients of the scores; its row sums of output x gradient see the rounded output.

Every bound is a tensor of the shape of what it bounds. Nothing in them was fitted to a result.

Shapes: B batch, H heads, Q queries, K keys, D head size; sums over heads that share keys are taken at the end.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

E = 2.0**-24
UNIT = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: E}
SMALLEST = {torch.bfloat16: 1e-38, torch.float16: 2.0**-24, torch.float32: 1e-38}  # what underflow may take away


@dataclass
class Exact:
    """Values and bounds of output, log-sum-exp and the gradients of q, k, v and sink (None without one)."""

    values: list[Tensor | None]
    bounds: list[Tensor | None]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gradient: Tensor,
    lse_gradient: Tensor | None = None,
    *,
    causal: bool = True,
    document: Tensor | None = None,
    window: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    sink: Tensor | None = None,
) -> Exact:
    """Of inputs in a kernel's dtype, layout [batch, time, heads, head size]; `gradient` is that of the output."""
    u, smallest = UNIT[q.dtype], SMALLEST[q.dtype]
    group = q.shape[2] // k.shape[2]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    Q, K, V, dO = (x.double().transpose(1, 2) for x in (q, k, v, gradient))
    K, V = (x.repeat_interleave(group, dim=1) for x in (K, V))
    queries, keys, head_size = Q.shape[2], K.shape[2], Q.shape[3]
    seen = visible(queries, keys, causal, document, window)

    S = scale * Q @ K.mT
    off_S = (head_size + 8) * E * scale * Q.abs() @ K.abs().mT
    slope = torch.ones_like(S)
    off_slope = torch.zeros_like(S)
    if softcap:
        tanh = torch.tanh(S / softcap)
        S, slope = softcap * tanh, 1 - tanh.square()
        off_slope = 2 * tanh.abs() * (off_S / softcap + 8 * E) + 4 * E
        off_S = off_S + 8 * E * softcap
    S = S.masked_fill(~seen, float("-inf"))
    off_S = off_S + 4 * E * S.masked_fill(~seen, 0.0).abs()

    everything = S
    if sink is not None:
        column = sink.double()[:, None, None].expand(*S.shape[:3], 1)
        everything = torch.cat((S, column), dim=-1)
        off_sink = 8 * E * sink.double().abs()[:, None, None]
    empty = (everything == float("-inf")).all(-1, keepdim=True)
    lse = everything.masked_fill(empty, 0.0).logsumexp(-1, keepdim=True).masked_fill(empty, float("inf"))
    P = torch.exp(S - lse)
    magnitude = lse.masked_fill(empty, 0.0).abs()
    off_row = off_S.masked_fill(~seen, 0.0).amax(-1, keepdim=True)
    if sink is not None:
        off_row = off_row.maximum(off_sink)
    off_lse = off_row + (keys + 8) * E + 4 * E * magnitude

    output = P @ V
    off_O = (
        (u + 2 * off_row + (2 * keys + 16) * E) * (P @ V.abs())
        + u * output.abs()
        + smallest * (1 + V.abs().sum(-2, keepdim=True))
    )

    off_P = off_S + off_lse + 8 * E  # relative
    delta = (output * dO).sum(-1, keepdim=True)
    off_delta = (dO.abs() * off_O).sum(-1, keepdim=True) + (head_size + 2) * E * (dO * output).abs().sum(
        -1, keepdim=True
    )
    if lse_gradient is not None:
        dlse = lse_gradient.double()[..., None]
        delta, off_delta = delta - dlse, off_delta + 2 * E * dlse.abs()
    dP = dO @ V.mT
    off_dP = (head_size + 2) * E * dO.abs() @ V.abs().mT
    dS = P * (dP - delta) * slope
    off_dS = (off_P + u + 4 * E) * dS.abs() + P * slope * (off_dP + off_delta) + P * (dP - delta).abs() * off_slope
    off_dS = off_dS + smallest * seen

    dQ = scale * dS @ K
    off_dQ = scale * (off_dS + (keys + 4) * E * dS.abs()) @ K.abs() + u * dQ.abs() + smallest
    dK = share(scale * dS.mT @ Q, group)
    off_dK = (
        share(scale * (off_dS + (queries * group + 4) * E * dS.abs()).mT @ Q.abs(), group) + u * dK.abs() + smallest
    )
    dV = share(P.mT @ dO, group)
    off_dV = share(((u + off_P + (queries * group + 4) * E) * P + smallest * seen).mT @ dO.abs(), group)
    off_dV = off_dV + u * dV.abs() + smallest

    d_sink = off_d_sink = None
    if sink is not None:
        share_of_sink = torch.exp(sink.double()[:, None, None] - lse)
        terms = share_of_sink * delta
        d_sink = -terms.sum((0, 2, 3))
        count = S.shape[0] * queries
        off_terms = terms.abs() * (off_lse + off_sink + (count + 8) * E) + share_of_sink * off_delta
        off_d_sink = off_terms.sum((0, 2, 3)) + 1e-30

    lse = lse.masked_fill(empty, float("-inf"))
    back = [x.transpose(1, 2) for x in (output, dQ, dK, dV)]
    off_back = [x.transpose(1, 2) for x in (off_O, off_dQ, off_dK, off_dV)]
    return Exact(
        [back[0], lse[..., 0], *back[1:], d_sink],
        [off_back[0], off_lse[..., 0], *off_back[1:], off_d_sink],
    )


def visible(queries: int, keys: int, causal: bool, document: Tensor | None, window: int) -> Tensor:
    """Bool [B or 1, 1, queries, keys], by comparing every pair."""
    here = torch.arange(keys - queries, keys)[:, None]
    there = torch.arange(keys)[None, :]
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        seen = seen & (there <= here)
    if window:
        seen = seen & (there > here - window)
    if document is None:
        return seen[None, None]
    return (seen & (document[:, :, None] == document[:, None, :]))[:, None]


def share(x_BHKD: Tensor, group: int) -> Tensor:
    """Sums over the query heads that share a key-value head."""
    return x_BHKD.unflatten(1, (-1, group)).sum(2)
