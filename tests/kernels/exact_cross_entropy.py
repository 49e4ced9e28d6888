"""Linear cross-entropy and its gradients in float64, written out, and how far an implementation may be from them.

The bounds follow from what is rounded, to first order in the unit roundoffs: u of the inputs' dtype, e = 2^-24 of the
fp32 in which sums are made (`tests.kernels.exact`).

- A logit is a sum of C products in fp32: off by (C + 2) e sum|x w|.
- A log-sum-exp of V logits is off by the largest error of one, by (V + 40) e for adding up exponentials, in segments,
  and by a few e of the numbers that are subtracted before, and added after.
- The gradient by a logit has the softmax from logit and log-sum-exp, each with its error, and is rounded to the dtype.
- Products with it are summed in fp32 over V or N, and rounded to the dtype when they are stored.

Nothing in the bounds was fitted to a result.

Shapes: N tokens, C hidden size, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.kernels.exact import SMALLEST, UNIT, E

IGNORED = -100


@dataclass
class Exact:
    """Values and bounds of objective, likelihood, z-loss, and of the objective's gradients by x and by the weight."""

    values: list[Tensor]
    bounds: list[Tensor]


def linear_cross_entropy(
    x: Tensor, weight: Tensor, labels: Tensor, upstream: float, *, z_loss: float = 0.0, label_smoothing: float = 0.0
) -> Exact:
    """Of inputs in an implementation's dtype; gradients are of `upstream` times the objective."""
    u, smallest = UNIT[x.dtype], SMALLEST[x.dtype]
    X, W = x.detach().double(), weight.detach().double()
    hidden, (vocabulary, tokens) = x.shape[1], (len(weight), len(x))
    counts = labels != IGNORED
    target = torch.full((tokens, vocabulary), label_smoothing / vocabulary, dtype=torch.float64)
    target[counts, labels[counts]] += 1 - label_smoothing

    S = X @ W.T
    off_S = (hidden + 2) * E * X.abs() @ W.abs().T
    lse = S.logsumexp(1, keepdim=True)
    largest = S.abs().amax(1, keepdim=True)
    off_lse = off_S.amax(1, keepdim=True) + (vocabulary + 40) * E + 8 * E * (largest + lse.abs())

    label = labels.where(counts, 0)[:, None]
    rows = lse - S.gather(1, label)
    off_rows = off_lse + off_S.gather(1, label) + 2 * E * rows.abs()
    z = z_loss * lse.square()
    off_z = 2 * z_loss * lse.abs() * off_lse + 4 * E * z
    smooth = lse - S.mean(1, keepdim=True)
    off_smooth = off_lse + (off_S + vocabulary * E * S.abs()).mean(1, keepdim=True) + 4 * E * smooth.abs()
    objective = (1 - label_smoothing) * rows + label_smoothing * smooth + z
    off_objective = off_rows + label_smoothing * off_smooth + off_z + 8 * E * (rows.abs() + smooth.abs() + z)

    factor = 1 + 2 * z_loss * lse
    P = torch.exp(S - lse)
    G = upstream * (P * factor - target) * counts[:, None]
    off_P = off_S + off_lse + 4 * E * (S.abs() + lse.abs()) + 8 * E  # relative
    off_G = P * (off_P * factor.abs() + 2 * z_loss * off_lse) + 8 * E * (P * factor.abs() + target)
    off_G = (abs(upstream) * off_G + u * G.abs() + smallest) * counts[:, None]

    d_X, d_W = G @ W, G.T @ X
    off_d_X = (off_G + (vocabulary + 4) * E * G.abs()) @ W.abs() + u * d_X.abs() + smallest
    off_d_W = (off_G + (tokens + 4) * E * G.abs()).T @ X.abs() + u * d_W.abs() + smallest

    losses = [values[counts].sum() for values in (objective, rows, z)]
    off_losses = [
        (off + (tokens + 4) * E * values.abs())[counts].sum()
        for off, values in ((off_objective, objective), (off_rows, rows), (off_z, z))
    ]
    return Exact([*losses, d_X, d_W], [*off_losses, off_d_X, off_d_W])


def share_of_bound(found: list[Tensor], exact: Exact) -> float:
    """The largest error in terms of its bound: at most 1, and infinite where a number is none."""
    shares = [0.0]
    for values, expected, bound in zip(found, exact.values, exact.bounds, strict=True):
        error = (values.detach().double() - expected).abs()
        error = error.masked_fill(error.isnan(), float("inf"))
        shares += (error / bound.clamp(min=1e-300)).masked_fill(error == 0, 0.0).flatten().tolist()
    return max(shares)
