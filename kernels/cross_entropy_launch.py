"""Launching the kernels of cross-entropy: tiles for the machine, descriptors, segments of the vocabulary.

Shapes: N tokens, C hidden size, V vocabulary, S segments of the vocabulary, W columns of a chunk.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels import cross_entropy_kernels
from kernels.configurations import RELATIVES, present_architecture

# Parts in which the vocabulary is walked over at once, so that few tokens, too, keep a GPU busy. A fixed number: what
# is kept of them are at most 8 x 32 bytes a token, however large the vocabulary is.
SEGMENTS = 32
LABEL_ROWS, LABEL_CHANNELS = 4, 256  # tile in which the labels' own logits are computed


@dataclass(frozen=True)
class Tile:
    """One way to launch a kernel: `tokens` x `columns` logits, `channels` of the hidden size at a time.

    Attributes:
        warps: warps (AMD: wavefronts) of a program.
        stages: depth of the software pipeline, `num_stages`.
        descriptors: load by tensor descriptors (TMA), where the tensors' strides allow it.
    """

    tokens: int
    columns: int
    channels: int
    warps: int
    stages: int
    descriptors: bool = False


# By architecture and bytes of an element. No row was timed. They are the tiles that matrix products have there, as far
# as both kernels compile with them without spilling a register (tests/kernels/test_cross_entropy_compilation.py).
TILES = {
    ("sm_80", 2): Tile(128, 128, 32, warps=8, stages=4),
    ("sm_80", 4): Tile(64, 64, 16, warps=4, stages=3),
    ("sm_86", 2): Tile(128, 128, 32, warps=8, stages=4),
    ("sm_86", 4): Tile(64, 64, 16, warps=4, stages=3),
    ("sm_90", 2): Tile(128, 256, 64, warps=8, stages=4, descriptors=True),
    ("sm_90", 4): Tile(64, 64, 16, warps=4, stages=3),
    ("sm_100", 2): Tile(128, 128, 64, warps=8, stages=4, descriptors=True),
    ("sm_100", 4): Tile(64, 64, 16, warps=4, stages=3),
    ("gfx942", 2): Tile(128, 128, 64, warps=8, stages=2),
    ("gfx942", 4): Tile(64, 64, 32, warps=8, stages=2),
    ("interpreter", 2): Tile(16, 32, 16, warps=1, stages=1, descriptors=True),
    ("interpreter", 4): Tile(16, 32, 16, warps=1, stages=1),
}
# In place of a tile with descriptors, where a row does not begin at a multiple of 16 bytes.
UNALIGNED = {
    "sm_90": TILES["sm_80", 2],
    "sm_100": TILES["sm_80", 2],
    "interpreter": Tile(16, 32, 16, warps=1, stages=1),
}


def statistics(x_NC: Tensor, weight_VC: Tensor, labels_N: Tensor, *, smoothed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of the logits of each token, fp32: log-sum-exp, the label's logit, and the sum where `smoothed` (else 0).

    Where the label is no entry of the vocabulary, its logit is NaN.
    """
    x_NC, weight_VC = _rows(x_NC), _rows(weight_VC)
    tile = tile_for(x_NC, weight_VC)
    tokens, vocabulary = len(x_NC), len(weight_VC)
    segment = triton.cdiv(triton.cdiv(vocabulary, SEGMENTS), tile.columns) * tile.columns
    segments = triton.cdiv(vocabulary, segment)
    log_sums_SN = x_NC.new_empty((segments, tokens), dtype=torch.float32)
    totals_SN = x_NC.new_zeros((segments if smoothed else 1, tokens), dtype=torch.float32)
    label_logits_N = x_NC.new_empty((tokens,), dtype=torch.float32)
    cross_entropy_kernels.statistics[(triton.cdiv(tokens, tile.tokens) * segments,)](
        *_sources(tile, x_NC, weight_VC),
        log_sums_SN,
        totals_SN,
        tokens,
        vocabulary,
        x_NC.shape[1],
        x_NC.stride(0),
        weight_VC.stride(0),
        segment,
        SMOOTHED=smoothed,
        **_constants(tile, x_NC),
    )
    cross_entropy_kernels.label_logits[(triton.cdiv(tokens, LABEL_ROWS),)](
        x_NC,
        weight_VC,
        labels_N,
        label_logits_N,
        tokens,
        vocabulary,
        x_NC.shape[1],
        x_NC.stride(0),
        weight_VC.stride(0),
        ROWS=LABEL_ROWS,
        CHANNELS=LABEL_CHANNELS,
    )
    return log_sums_SN.logsumexp(0), label_logits_N, totals_SN.sum(0)


def gradient(
    upstream: Tensor,
    x_NC: Tensor,
    weight_VC: Tensor,
    labels_N: Tensor,
    log_sums_N: Tensor,
    columns: slice,
    out_NW: Tensor,
    *,
    z_loss: float,
    label_smoothing: float,
) -> None:
    """Put the gradient of the objective by the logits of `columns`, times `upstream` (fp32, one number), into `out`."""
    x_NC, weight_VC = _rows(x_NC), _rows(weight_VC)
    tile = tile_for(x_NC, weight_VC)
    tokens, vocabulary = len(x_NC), len(weight_VC)
    width = columns.stop - columns.start
    cross_entropy_kernels.gradient[(triton.cdiv(tokens, tile.tokens) * triton.cdiv(width, tile.columns),)](
        *_sources(tile, x_NC, weight_VC),
        labels_N,
        log_sums_N,
        upstream,
        out_NW,
        tokens,
        vocabulary,
        x_NC.shape[1],
        x_NC.stride(0),
        weight_VC.stride(0),
        out_NW.stride(0),
        columns.start,
        columns.stop,
        2 * z_loss,
        1 - label_smoothing,
        label_smoothing / vocabulary,
        **_constants(tile, x_NC),
    )


def tile_for(x_NC: Tensor, weight_VC: Tensor) -> Tile:
    """The tile for these tensors on the machine that a kernel launched now is compiled for.

    Raises:
        ValueError: there is none for it; the message says what there is.
    """
    architecture = present_architecture()
    family = RELATIVES.get(architecture, architecture)
    tile = TILES.get((family, x_NC.element_size()))
    if tile is None:
        known = sorted({name for name, _ in TILES} | set(RELATIVES))
        raise ValueError(f"no tiles of cross-entropy for {architecture}; there are for {', '.join(known)}")
    if tile.descriptors and not (_describable(x_NC) and _describable(weight_VC)):
        return UNALIGNED[family]
    return tile


def _rows(matrix: Tensor) -> Tensor:
    """With rows that lie contiguous; any stride between them will do."""
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


def _describable(matrix: Tensor) -> bool:
    """Whether a tensor descriptor can hold it: rows aligned to 16 bytes (CUDA's tensor map)."""
    stride = matrix.stride(0) * matrix.element_size()
    return stride > 0 and stride % 16 == 0 and matrix.data_ptr() % 16 == 0


def _sources(tile: Tile, x_NC: Tensor, weight_VC: Tensor) -> tuple[Any, Any]:
    """What the kernels load from: the matrices, or their descriptors."""
    if not tile.descriptors:
        return x_NC, weight_VC
    return (
        TensorDescriptor.from_tensor(x_NC, [tile.tokens, tile.channels]),
        TensorDescriptor.from_tensor(weight_VC, [tile.columns, tile.channels]),
    )


def _constants(tile: Tile, x_NC: Tensor) -> dict[str, Any]:
    # As torch's own products: fp32 is fp32 unless torch.set_float32_matmul_precision allows tf32.
    exact = torch.get_float32_matmul_precision() == "highest"
    return {
        "WHOLE": x_NC.shape[1] % tile.channels == 0,
        "DESCRIPTORS": tile.descriptors,
        "PRECISION": "ieee" if x_NC.dtype == torch.float32 and exact else "tf32",
        "TOKENS": tile.tokens,
        "COLUMNS": tile.columns,
        "CHANNELS": tile.channels,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }
