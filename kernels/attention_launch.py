"""Launching the kernels of attention: strides, descriptors, grids and the configuration for the machine.

Shapes: B batch, Q query time, K key time, H heads, G key-value heads, D head size.
"""

from typing import Any

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels import flash_attention
from kernels.configurations import Configuration, choose, present_architecture

TILE_OF_DELTA = 16  # rows


def forward(
    q_BQHD: Tensor,
    k_BKGD: Tensor,
    v_BKGD: Tensor,
    first_BK: Tensor | None,
    end_BK: Tensor | None,
    sink_H: Tensor | None,
    *,
    causal: bool,
    window: int,
    scale: float,
    softcap: float,
) -> tuple[Tensor, Tensor]:
    """Output [B, Q, H, D], contiguous, in the dtype of q; log-sum-exp [B, H, Q], fp32, natural logarithm.

    first, end: int32, contiguous: where the document of each key begins and ends in its row; None: no documents.
    """
    batch, query_time, heads, _ = q_BQHD.shape
    output = q_BQHD.new_empty(q_BQHD.shape)
    log_sum_exp = q_BQHD.new_empty((batch, heads, query_time), dtype=torch.float32)
    if output.numel() == 0:
        return output, log_sum_exp
    configuration = _configuration("forward", q_BQHD, (q_BQHD, k_BKGD, v_BKGD))
    tiles = triton.cdiv(query_time, configuration.queries) * batch * heads
    programs = min(tiles, _multiprocessors(q_BQHD.device)) if configuration.persistent else tiles
    queries, keys = _sources(configuration, (q_BQHD,), (k_BKGD, v_BKGD))
    flash_attention.forward[(programs,)](
        *queries,
        *keys,
        output,
        log_sum_exp,
        sink_H,
        (first_BK, end_BK, query_time, k_BKGD.shape[1], window),
        q_BQHD.stride(),
        k_BKGD.stride(),
        v_BKGD.stride(),
        output.stride(),
        heads,
        scale,
        softcap,
        tiles,
        SINK=sink_H is not None,
        PERSISTENT=configuration.persistent,
        **_constants(configuration, q_BQHD, k_BKGD, first_BK, causal, window, softcap),
    )
    return output, log_sum_exp


def backward(
    gradient_BQHD: Tensor,
    lse_gradient_BHQ: Tensor | None,
    q_BQHD: Tensor,
    k_BKGD: Tensor,
    v_BKGD: Tensor,
    output_BQHD: Tensor,
    log_sum_exp_BHQ: Tensor,
    first_BK: Tensor | None,
    end_BK: Tensor | None,
    *,
    causal: bool,
    window: int,
    scale: float,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, contiguous, and delta [B, H, Q]: fp32 row sums of output x gradient, less dlse.

    output and log-sum-exp may come from elsewhere, of which these keys are only a part (as in ring attention).
    """
    q_gradient, k_gradient, v_gradient = (x.new_empty(x.shape) for x in (q_BQHD, k_BKGD, v_BKGD))
    delta_BHQ = log_sum_exp_BHQ.new_empty(log_sum_exp_BHQ.shape)
    if q_BQHD.numel() == 0:
        return q_gradient, k_gradient.zero_(), v_gradient.zero_(), delta_BHQ
    _delta(output_BQHD, gradient_BQHD, lse_gradient_BHQ, delta_BHQ)

    batch, query_time, heads, _ = q_BQHD.shape
    key_time, kv_heads = k_BKGD.shape[1:3]
    tensors = (q_BQHD, k_BKGD, v_BKGD, gradient_BQHD)
    mask = (first_BK, end_BK, query_time, key_time, window)
    strides = tuple(tensor.stride() for tensor in tensors)
    for kernel, targets, time, tile_heads in (
        ("backward_keys", (k_gradient, v_gradient), key_time, kv_heads),
        ("backward_queries", (q_gradient,), query_time, heads),
    ):
        configuration = _configuration(kernel, q_BQHD, tensors)
        (q, gradient), (k, v) = _sources(configuration, (q_BQHD, gradient_BQHD), (k_BKGD, v_BKGD))
        tile = configuration.keys if kernel == "backward_keys" else configuration.queries
        getattr(flash_attention, kernel)[(triton.cdiv(time, tile) * batch * tile_heads,)](
            q,
            k,
            v,
            gradient,
            *targets,
            log_sum_exp_BHQ,
            delta_BHQ,
            mask,
            *strides,
            targets[0].stride(),
            heads,
            scale,
            softcap,
            **_constants(configuration, q_BQHD, k_BKGD, first_BK, causal, window, softcap),
        )
    return q_gradient, k_gradient, v_gradient, delta_BHQ


def _delta(output: Tensor, gradient: Tensor, lse_gradient: Tensor | None, delta: Tensor) -> None:
    batch, query_time, heads, head_size = output.shape
    flash_attention.backward_delta[(triton.cdiv(query_time, TILE_OF_DELTA) * batch * heads,)](
        output,
        gradient,
        lse_gradient,
        delta,
        output.stride(),
        gradient.stride(),
        (0, 0, 0) if lse_gradient is None else lse_gradient.stride(),
        heads,
        query_time,
        HEAD_SIZE=head_size,
        D=padded(head_size),
        M=TILE_OF_DELTA,
        LSE_GRADIENT=lse_gradient is not None,
    )


def padded(head_size: int) -> int:
    """The head size that a tile has: a power of two, and not less than a matrix instruction takes."""
    return max(16, triton.next_power_of_2(head_size))


def _configuration(kernel: str, q: Tensor, loaded: tuple[Tensor, ...]) -> Configuration:
    describable = all(_describable(tensor) for tensor in loaded)
    return choose(kernel, present_architecture(), q.shape[3], q.dtype, describable)


def _describable(tensor: Tensor) -> bool:
    """Whether a tensor descriptor can hold it: 16-byte aligned, head size contiguous (CUDA's tensor map)."""
    size = tensor.element_size()
    aligned = all(stride * size % 16 == 0 and stride > 0 for stride in tensor.stride()[:3])
    return aligned and tensor.stride(3) == 1 and tensor.data_ptr() % 16 == 0 and tensor.numel() > 0


def _sources(
    configuration: Configuration, queries: tuple[Tensor, ...], keys: tuple[Tensor, ...]
) -> tuple[list[Any], list[Any]]:
    """What the kernels load from: the tensors, or their descriptors [batch, heads, time, head size]."""
    if not configuration.descriptors:
        return list(queries), list(keys)

    def describe(tensor: Tensor, rows: int) -> TensorDescriptor:
        view = tensor.transpose(1, 2)
        return TensorDescriptor.from_tensor(view, [1, 1, rows, padded(tensor.shape[3])])

    return [describe(t, configuration.queries) for t in queries], [describe(t, configuration.keys) for t in keys]


def _constants(
    configuration: Configuration,
    q: Tensor,
    k: Tensor,
    first: Tensor | None,
    causal: bool,
    window: int,
    softcap: float,
) -> dict[str, Any]:
    return {
        "GROUP": q.shape[2] // k.shape[2],
        "HEAD_SIZE": q.shape[3],
        "D": padded(q.shape[3]),
        "M": configuration.queries,
        "N": configuration.keys,
        "CAUSAL": causal,
        "DOCUMENTS": first is not None,
        "WINDOW": window > 0,
        "SOFTCAP": softcap > 0,
        "DESCRIPTORS": configuration.descriptors,
        "num_warps": configuration.warps,
        "num_stages": configuration.stages,
    }


def _multiprocessors(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return 3  # under the interpreter, so that each takes several tiles
