"""The Triton kernels of attention as torch operators: one node for autograd, torch.compile and FLOP counters.

What is inside is opaque to them, so it needs telling apart: what comes out for which shapes (the fake
implementations), how gradients flow, and what it costs.

Shapes: B batch, Q query time, K key time, H heads, G key-value heads, D head size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula


@torch.library.custom_op("loam::attention", mutates_args=())
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor | None,
    end: Tensor | None,
    sink: Tensor | None,
    causal: bool,
    window: int,
    scale: float,
    softcap: float,
    hopper: bool = False,
) -> tuple[Tensor, Tensor]:
    """Output [B, Q, H, D] and log-sum-exp [B, H, Q] of `kernels.attention`; see there for the rest.

    hopper: by the kernel of `kernels.hopper_attention`; ValueError if that cannot take these tensors.
    """
    from kernels import attention_launch

    forward = _hopper_forward(q, k, v, scale) if hopper and q.numel() and k.numel() else attention_launch.forward
    with _device_of(q):
        return forward(q, k, v, first, end, sink, causal=causal, window=window, scale=scale, softcap=softcap)


def _hopper_forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Callable[..., tuple[Tensor, Tensor]]:
    from kernels import hopper_launch

    obstacle = hopper_launch.obstacle(q, k, v, scale=scale)
    if obstacle:
        raise ValueError(f"the kernel for Hopper cannot take these tensors: {obstacle}; or take kernels.use('triton')")
    return hopper_launch.forward


@attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    batch, query_time, heads, _head_size = q.shape
    return q.new_empty(q.shape), q.new_empty((batch, heads, query_time), dtype=torch.float32)


@torch.library.custom_op("loam::attention_backward", mutates_args=())
def attention_backward(
    gradient: Tensor,
    lse_gradient: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    log_sum_exp: Tensor,
    first: Tensor | None,
    end: Tensor | None,
    sink: Tensor | None,
    causal: bool,
    window: int,
    scale: float,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and of the sink, which is empty where there is none."""
    from kernels import attention_launch

    with _device_of(q):
        q_gradient, k_gradient, v_gradient, delta_BHQ = attention_launch.backward(
            gradient,
            lse_gradient,
            q,
            k,
            v,
            output,
            log_sum_exp,
            first,
            end,
            causal=causal,
            window=window,
            scale=scale,
            softcap=softcap,
        )
    if sink is None:
        return q_gradient, k_gradient, v_gradient, q.new_empty(0, dtype=torch.float32)
    share_BHQ = torch.exp(sink[:, None] - log_sum_exp)  # of the softmax; the sink's value is nothing
    return q_gradient, k_gradient, v_gradient, -(share_BHQ * delta_BHQ).sum((0, 2))


@attention_backward.register_fake
def _(
    gradient: Tensor,
    lse_gradient: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    log_sum_exp: Tensor,
    first: Tensor | None,
    end: Tensor | None,
    sink: Tensor | None,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sink_gradient = q.new_empty(0 if sink is None else sink.shape[0], dtype=torch.float32)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), sink_gradient


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.causal, ctx.window, ctx.scale, ctx.softcap, _hopper = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, gradient: Tensor | None, lse_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, first, end, sink, output, log_sum_exp = ctx.saved_tensors
    if gradient is None:  # only log-sum-exp was used
        gradient = torch.zeros_like(output)
    q_gradient, k_gradient, v_gradient, sink_gradient = attention_backward(
        gradient,
        lse_gradient,
        q,
        k,
        v,
        output,
        log_sum_exp,
        first,
        end,
        sink,
        ctx.causal,
        ctx.window,
        ctx.scale,
        ctx.softcap,
    )
    sink_gradient = None if sink is None else sink_gradient
    return q_gradient, k_gradient, v_gradient, None, None, sink_gradient, None, None, None, None, None


attention.register_autograd(_differentiate, setup_context=_keep)


@register_flop_formula(torch.ops.loam.attention)
def _flops(q: tuple[int, ...], k: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Both products in full, whatever the mask leaves: what torch counts for its own attention."""
    batch, query_time, heads, head_size = q
    return 4 * batch * heads * query_time * k[1] * head_size


@register_flop_formula(torch.ops.loam.attention_backward)
def _backward_flops(
    gradient: Any, lse_gradient: Any, q: tuple[int, ...], k: tuple[int, ...], *_: Any, **__: Any
) -> int:
    """Five products to the forward's two: scores again, and the gradients of p, v, q and k."""
    return _flops(q, k) * 5 // 2


def _device_of(tensor: Tensor) -> Any:
    """Makes the tensor's GPU the current one, on which Triton launches; nothing for another device."""
    return torch.cuda.device_of(tensor)
