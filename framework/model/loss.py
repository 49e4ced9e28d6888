"""Loss of predicted tokens from the last hidden states, without the logits of more than a chunk of tokens at a time.

A vocabulary of 128k makes the logits of 8,192 tokens 4 GiB in fp32, and their gradient as much again. Where they do
not fit into one chunk, tokens are taken chunk by chunk, and a chunk's part of the gradients is computed while its
logits are there (as Liger-Kernel does, arXiv:2410.10989), so that backward only scales them: nothing is computed
twice, and what is kept is as large as the hidden states and the projection, not as the logits. Where they do fit, it
is torch's own cross entropy.

Everything is a sum, not a mean, so that the caller divides by the count of the whole global batch, and the result
does not depend on how rows are dealt to ranks and micro-batches.

Shapes: B batch, T time, N tokens of a chunk or of all rows, C hidden size, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from framework.config import LossConfig

IGNORED_LABEL = -100  # no loss at this position
CHUNK_LOGITS = 2**26  # 256 MiB in fp32

Losses = tuple[Tensor, Tensor, Tensor]


def summed_losses(x_BTC: Tensor, weight_VC: Tensor, labels_BT: Tensor, config: LossConfig) -> Losses:
    """What to minimise, plain negative log likelihood, and z-loss: fp32 scalars, sums over the labels that count.

    The first has gradients: likelihood, smoothed as `loss.label_smoothing` says (arXiv:1512.00567), plus z-loss,
    `loss.z_loss` times the squared logarithm of the softmax's denominator (PaLM, arXiv:2204.02311, section 5). The
    other two are for the record. Likelihoods are in nats; labels of -100 count for nothing.
    """
    size = chunk_tokens(config, len(weight_VC))
    if labels_BT.numel() <= size:
        return _losses_of_logits(F.linear(x_BTC, weight_VC), labels_BT, config)
    objective, likelihood, z_loss = _ChunkedLosses.apply(
        x_BTC.flatten(0, 1), weight_VC, labels_BT.flatten(), config, size
    )
    return objective, likelihood, z_loss


@torch.no_grad()
def token_losses(x_BTC: Tensor, weight_VC: Tensor, labels_BT: Tensor, config: LossConfig) -> Tensor:
    """Plain negative log likelihood of each label [B, T], fp32, in nats, without gradients; 0 where none counts."""
    size = chunk_tokens(config, len(weight_VC))
    chunks = zip(x_BTC.flatten(0, 1).split(size), labels_BT.flatten().split(size), strict=True)
    losses = [
        F.cross_entropy(F.linear(x_NC, weight_VC).float(), labels_N, ignore_index=IGNORED_LABEL, reduction="none")
        for x_NC, labels_N in chunks
    ]
    return torch.cat(losses).view_as(labels_BT)


def chunk_tokens(config: LossConfig, vocabulary: int) -> int:
    """Tokens whose logits stand in memory at a time."""
    return config.chunk_tokens or max(1, CHUNK_LOGITS // vocabulary)


def _losses_of_logits(logits_BTV: Tensor, labels_BT: Tensor, config: LossConfig) -> Losses:
    logits_NV, labels_N = logits_BTV.float().flatten(0, 1), labels_BT.flatten()

    def entropy(smoothing: float) -> Tensor:
        return F.cross_entropy(
            logits_NV, labels_N, ignore_index=IGNORED_LABEL, reduction="sum", label_smoothing=smoothing
        )

    likelihood = entropy(0.0)
    objective = entropy(config.label_smoothing) if config.label_smoothing else likelihood
    z_loss = torch.zeros_like(likelihood)
    if config.z_loss:
        squares_N = logits_NV.logsumexp(-1).square()
        z_loss = config.z_loss * squares_N.where(labels_N != IGNORED_LABEL, 0.0).sum()
        objective = objective + z_loss
    return objective, likelihood.detach(), z_loss.detach()


class _ChunkedLosses(torch.autograd.Function):
    """`summed_losses` of x [N, C], the projection's weight [V, C] and labels [N], `size` tokens at a time."""

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, weight_VC: Tensor, labels_N: Tensor, config: LossConfig, size: int) -> Losses:
        x_gradient = torch.empty_like(x_NC)
        weight_gradient = torch.zeros_like(weight_VC, dtype=torch.float32)
        sums = torch.zeros(3, device=x_NC.device)
        for start in range(0, len(x_NC), size):
            part = slice(start, start + size)
            losses, gradient_NV = _chunk(F.linear(x_NC[part], weight_VC).float(), labels_N[part], config)
            gradient_NV = gradient_NV.to(x_NC.dtype)
            x_gradient[part] = gradient_NV @ weight_VC
            weight_gradient += gradient_NV.T @ x_NC[part]
            sums += losses
        ctx.gradients = x_gradient, weight_gradient
        ctx.weight_dtype = weight_VC.dtype
        objective, likelihood, z_loss = sums.unbind()
        outputs = objective.clone(), likelihood.clone(), z_loss.clone()
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_unused: Tensor) -> tuple[Tensor | None, ...]:
        # Scaled in place, as the projection's gradient is among the largest tensors there are; so only once.
        (x_gradient, weight_gradient), ctx.gradients = ctx.gradients, None
        return x_gradient.mul_(upstream), weight_gradient.mul_(upstream).to(ctx.weight_dtype), None, None, None


def _chunk(logits_NV: Tensor, labels_N: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """Sums [3] of objective, likelihood and z-loss, and the objective's gradient by the logits, in their place."""
    counts_N = labels_N != IGNORED_LABEL
    labels_N1 = labels_N.clamp(min=0)[:, None]
    smoothing, vocabulary = config.label_smoothing, logits_NV.shape[1]
    log_z_N = logits_NV.logsumexp(-1)
    likelihood_N = log_z_N - logits_NV.gather(1, labels_N1)[:, 0]
    z_loss_N = config.z_loss * log_z_N.square()
    objective_N = (1 - smoothing) * likelihood_N + smoothing * (log_z_N - logits_NV.mean(-1)) + z_loss_N
    sums = torch.stack([losses_N.where(counts_N, 0.0).sum() for losses_N in (objective_N, likelihood_N, z_loss_N)])

    gradient_NV = logits_NV.sub_(log_z_N[:, None]).exp_()
    gradient_NV.mul_((1 + 2 * config.z_loss * log_z_N)[:, None])
    if smoothing:
        gradient_NV.sub_(smoothing / vocabulary)
    gradient_NV.scatter_add_(1, labels_N1, torch.full_like(gradient_NV[:, :1], smoothing - 1))
    return sums, gradient_NV.mul_(counts_N[:, None])
