"""Launching the Gluon kernel for Hopper: what it can take, descriptors, the schedule.

Shapes: B batch, Q query time, K key time, H heads, G key-value heads, D head size, T tokens.
"""

import torch
import triton
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from kernels import hopper_attention

QUERIES = 128  # of a tile: two consumers with 64 each
KEYS = (
    128  # of a block: the scores then take 64 registers of a thread, beside 64 for the output and 64 for probabilities
)
STAGES = {64: 4, 128: 2}  # of the rings, by head size: as many as fit beside the tiles of queries and of output
KEPT_BYTES = 32 * 2**20  # of keys and values that programs walk over at one time: well within the second-level cache


def forward(
    q_BQHD: Tensor,
    k_BKGD: Tensor,
    v_BKGD: Tensor,
    first_BT: Tensor | None,
    end_BT: Tensor | None,
    sink_H: Tensor | None,
    *,
    causal: bool,
    window: int,
    scale: float,
    softcap: float,
) -> tuple[Tensor, Tensor]:
    """Output, contiguous in the dtype of q, and natural log-sum-exp, fp32 [B, H, Q], of `kernels.attention`.

    first_BT, end_BT: int32 [B or 1, T], where the document of each token begins and ends; None: one document.
    sink_H: [H], a logit that joins the softmax's denominator alone; None: none. window: 0 for none.

    A query that sees nothing gives zeros and -inf (with a sink: the sink). Inputs must be without `obstacle`.
    """
    B, Q, H, D = q_BQHD.shape
    K, G = k_BKGD.shape[1:3]
    output_BQHD = torch.empty(q_BQHD.shape, dtype=q_BQHD.dtype, device=q_BQHD.device)
    lse_BHQ = torch.empty(B, H, Q, dtype=torch.float32, device=q_BQHD.device)
    if first_BT is not None and end_BT is not None:
        first_BT, end_BT = first_BT.contiguous(), end_BT.contiguous()
    document_stride = K if first_BT is not None and first_BT.shape[0] > 1 else 0

    query_tiles = triton.cdiv(Q, QUERIES)
    kept_heads = max(1, KEPT_BYTES // (4 * K * D)) * (H // G)
    mask = first_BT, end_BT, document_stride, Q, K, window
    scores = (softcap, scale / softcap) if softcap else (scale, 0.0)
    schedule = H, min(kept_heads, B * H), query_tiles, B * H * query_tiles
    programs = min(_multiprocessors(q_BQHD.device), B * H * query_tiles)
    hopper_attention.forward_kernel[(programs,)](
        _describe(q_BQHD, QUERIES // 2),
        _describe(k_BKGD, KEYS),
        _describe(v_BKGD, KEYS),
        _describe(output_BQHD, QUERIES // 2),
        lse_BHQ,
        None if sink_H is None else sink_H.float(),
        mask,
        scores,
        schedule,
        STAGES=STAGES[D],
        GROUP=H // G,
        CAUSAL=causal,
        DOCUMENTS=first_BT is not None,
        WINDOW=window > 0,
        SOFTCAP=softcap > 0,
        SINK=sink_H is not None,
        num_warps=4,
        maxnreg=hopper_attention.REGISTERS_AT_LAUNCH,
    )
    return output_BQHD, lse_BHQ


def obstacle(q_BQHD: Tensor, k_BKGD: Tensor, v_BKGD: Tensor, *, scale: float) -> str:
    """Why `forward` cannot take these tensors, in words that end a sentence; empty where it can."""
    tensors = {"q": q_BQHD, "k": k_BKGD, "v": v_BKGD}
    if q_BQHD.is_cuda and torch.cuda.get_device_capability(q_BQHD.device) != (9, 0):
        return "the GPU is no Hopper (compute capability 9.0)"
    if q_BQHD.dtype not in (torch.bfloat16, torch.float16):
        return f"the dtype is {q_BQHD.dtype}; it must be bfloat16 or float16"
    if q_BQHD.shape[-1] not in STAGES:
        return f"the head size is {q_BQHD.shape[-1]}; it must be 64 or 128"
    if not scale > 0:
        return f"the scale is {scale}; it must be positive"
    if not all(tensor.numel() for tensor in tensors.values()):
        return "there is nothing to attend to"
    for name, tensor in tensors.items():
        steps = [stride * 2 for stride, size in zip(tensor.stride()[:-1], tensor.shape, strict=False) if size > 1]
        if tensor.stride(-1) != 1 or tensor.data_ptr() % 16 or any(step <= 0 or step % 16 for step in steps):
            return f"{name} must begin, and step along batch, time and heads, at multiples of 16 bytes"
    return ""


def _describe(tensor_BTHD: Tensor, rows: int) -> TensorDescriptor:
    """Tiles of `rows` tokens of one head; beyond the tensor's ends they read as zeros and write nothing."""
    D = tensor_BTHD.shape[-1]
    view_BHTD = tensor_BTHD.transpose(1, 2)
    # The stride of a dimension of size 1 may be anything in torch, and must be a multiple of 16 bytes here.
    strides = [stride if size > 1 else D for stride, size in zip(view_BHTD.stride(), view_BHTD.shape, strict=True)]
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
    return TensorDescriptor(view_BHTD, list(view_BHTD.shape), [*strides[:3], 1], [1, 1, rows, D], layout)


def _multiprocessors(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return 3  # emulated, so that each program takes several tiles
