"""Muon for hidden matrices and AdamW for the rest, with whole matrices or with ZeRO's shards of them.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; scaled as in Liu et al. 2025, arXiv:2502.16982, who also
shard it so: momentum is elementwise and stays where it is; for the update each matrix is put together on one rank,
orthogonalised there, and its parts go back to whoever owns them. No rank ever holds more than two whole matrices.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from framework import distributed

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic, steepest at 0; singular values end up near 1
ITERATIONS = 5
EPSILON = 1e-7
RMS = 0.2  # of AdamW's usual update, which this is matched to


class Piece(NamedTuple):
    """The part of a matrix that a rank owns, in a flat tensor."""

    matrix: int  # number of the matrix in its group
    tensor: int  # which of the group's tensors it is in
    start: int  # where it begins in that tensor, flat
    offset: int  # where it begins in the matrix, flat
    elements: int


class Layout(NamedTuple):
    """How the matrices of a group lie on the ranks; `replicated`: whole on each."""

    shapes: list[tuple[int, int]]
    pieces: list[dict[int, Piece]]  # of each rank, by matrix
    replicated: bool


Shards = tuple[Tensor, list[tuple[int, int]], dict[int, Piece]]  # what is updated at a time: itself, shapes, pieces


class Muon(torch.optim.AdamW):
    """One optimizer, for DeepSpeed takes one: groups with `orthogonalized` are Muon's, the others AdamW's.

    Args:
        groups: parameter groups; each has `orthogonalized`, and those for which it holds have only matrices.
        momentum: of Muon, with Nesterov's look ahead.
        dtype: in which matrices are orthogonalised.
        adamw: of the others.
    """

    def __init__(self, groups: list[dict[str, Any]], *, momentum: float, dtype: torch.dtype, **adamw: Any) -> None:
        super().__init__(groups, **adamw)
        self._momentum = momentum
        self._dtype = dtype
        self._layouts: dict[Tensor, Layout] = {}  # by the first tensor of what is updated at a time

    def lay_out(self, wrapped: Any) -> None:
        """Learn from DeepSpeed's optimizer where it put the matrices; every rank must call. Needs nothing at stage 0.

        Args:
            wrapped: what `deepspeed.initialize` made of this.
        """
        for first, shapes, mine in _sharded(wrapped, self.param_groups):
            self._layouts[first] = Layout(shapes, distributed.gather(mine), replicated=False)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every group, from the gradients there are."""
        groups = self.param_groups
        for group in groups:
            if group["orthogonalized"]:
                self._step_matrices(group)
        self.param_groups = [group for group in groups if not group["orthogonalized"]]
        try:
            super().step()
        finally:
            self.param_groups = groups

    def _step_matrices(self, group: dict[str, Any]) -> None:
        tensors = [tensor for tensor in group["params"] if tensor.grad is not None]
        if not tensors:
            return
        directions = []
        for tensor in tensors:
            state = self.state[tensor]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(tensor)
            state["momentum_buffer"].lerp_(tensor.grad, 1 - self._momentum)
            directions.append(tensor.grad.lerp(state["momentum_buffer"], self._momentum).flatten())
        layout = self._layouts.get(tensors[0]) or _unsharded(tensors)
        _orthogonalize_all(directions, layout, self._dtype)
        for tensor, direction in zip(tensors, directions, strict=True):
            tensor.mul_(1 - group["lr"] * group["weight_decay"])
            tensor.add_(direction.view_as(tensor), alpha=-group["lr"])


def orthogonalized(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: U S V^T to U S' V^T with S' between about 0.7 and 1.2, in `dtype`.

    `torch.optim.Muon` does the same in bf16 alone, where a difference of 1e-7 in the gradient becomes one of whole
    percents in the update, so that no two layouts would train alike.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(dtype)
    tall = x.size(0) > x.size(1)
    if tall:
        x = x.T
    x = x / x.norm().clamp(min=EPSILON)  # singular values to at most 1
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def _orthogonalize_all(directions: list[Tensor], layout: Layout, dtype: torch.dtype) -> None:
    """Replace each matrix in `directions` by its orthogonal one, scaled; as many at a time as there are ranks."""
    world_size, rank = len(layout.pieces), distributed.rank() if len(layout.pieces) > 1 else 0
    # neighbours of one size, so that no rank waits long for another
    order = sorted(range(len(layout.shapes)), key=lambda number: (layout.shapes[number], number))
    for begin in range(0, len(order), world_size):
        turn = order[begin : begin + world_size]  # matrix i of these is rank i's
        ours = [layout.pieces[rank].get(matrix) for matrix in turn]
        views = [_view(directions, piece) for piece in ours]
        whole = _assembled(views, layout, turn, rank)
        if whole is not None:
            rows, columns = layout.shapes[turn[rank]]
            scale = RMS * math.sqrt(max(rows, columns))
            whole = orthogonalized(whole.view(rows, columns), dtype).to(whole.dtype).flatten() * scale
        _hand_back(whole, views, layout, turn, rank)


def _view(directions: list[Tensor], piece: Piece | None) -> Tensor:
    if piece is None:
        return directions[0][:0]
    return directions[piece.tensor].narrow(0, piece.start, piece.elements)


def _assembled(views: list[Tensor], layout: Layout, turn: list[int], rank: int) -> Tensor | None:
    """This rank's matrix of the turn, flat, from the pieces of all; None if it has none."""
    mine = turn[rank] if rank < len(turn) else None
    if layout.replicated or len(layout.pieces) == 1:
        return views[rank] if mine is not None else None
    sizes_in = [len(view) for view in views] + [0] * (len(layout.pieces) - len(turn))
    sizes_out = _sizes(layout, mine)
    whole = views[0].new_empty(sum(sizes_out))
    dist.all_to_all_single(whole, torch.cat(views), sizes_out, sizes_in)
    return whole if mine is not None else None


def _hand_back(whole: Tensor | None, views: list[Tensor], layout: Layout, turn: list[int], rank: int) -> None:
    """Each rank's piece of every matrix of the turn, from the rank that has it, into `views`."""
    world_size = len(layout.pieces)
    if world_size == 1 and whole is not None:
        views[0].copy_(whole)
        return
    mine = turn[rank] if rank < len(turn) else None
    sizes_in = _sizes(layout, mine)
    sent = views[0].new_empty(0) if whole is None else whole
    if layout.replicated:
        sent = sent.repeat(world_size)
    sizes_out = [len(view) for view in views] + [0] * (world_size - len(turn))
    received = views[0].new_empty(sum(sizes_out))
    dist.all_to_all_single(received, sent, sizes_out, sizes_in)
    for view, part in zip(views, received.split(sizes_out), strict=False):
        view.copy_(part)


def _sizes(layout: Layout, matrix: int | None) -> list[int]:
    """Elements of a matrix on each rank. Ranks own it in their order, so that pieces in a row are the matrix."""
    found = [pieces.get(matrix) if matrix is not None else None for pieces in layout.pieces]
    return [piece.elements if piece else 0 for piece in found]


# --------------------------------------------------------------------------- where the matrices are


def _unsharded(tensors: list[Tensor]) -> Layout:
    """Whole matrices, the same on every rank."""
    pieces = {n: Piece(n, n, 0, 0, tensor.numel()) for n, tensor in enumerate(tensors)}
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    return Layout([_shape(tensor) for tensor in tensors], [pieces] * ranks, replicated=True)


def _sharded(
    wrapped: Any, groups: list[dict[str, Any]]
) -> list[tuple[Tensor, list[tuple[int, int]], dict[int, Piece]]]:
    """Of each flat tensor that is updated at a time: itself, the shapes of its matrices, and this rank's pieces."""
    if hasattr(wrapped, "fp32_partitioned_groups_flat"):
        return _sharded_by_parameter(wrapped, groups)
    members = wrapped.bit16_groups if hasattr(wrapped, "bit16_groups") else wrapped.bf16_groups  # bf16 at stage 1
    return [
        (group["params"][0], [_shape(p) for p in parameters], _fragments(parameters))
        for group, parameters in zip(groups, members, strict=True)
        if group["orthogonalized"]
    ]


def _fragments(parameters: list[Any]) -> dict[int, Piece]:
    """ZeRO 1 and 2: a group is one flat tensor, of which each rank owns an equal part, wherever that cuts."""
    pieces = {}
    for number, parameter in enumerate(parameters):
        if parameter._hp_mapping is not None:
            in_matrix, in_flat = parameter._hp_mapping.lp_fragment_address, parameter._hp_mapping.hp_fragment_address
            pieces[number] = Piece(number, 0, in_flat.start, in_matrix.start, in_matrix.numel)
    return pieces


def _sharded_by_parameter(wrapped: Any, groups: list[dict[str, Any]]) -> list[Shards]:
    """ZeRO-3: every rank owns an equal part of each parameter; the last one is padded."""
    found = []
    for number, parameters in enumerate(wrapped.fp16_groups):
        if not groups[wrapped.sub_group_to_group_id[number]]["orthogonalized"]:
            continue
        pieces = {}
        for matrix, parameter in enumerate(parameters):
            _, start, part = wrapped.grad_position[wrapped.get_param_id(parameter)]
            offset = part * distributed.rank()
            elements = max(0, min(part, parameter.ds_numel - offset))
            if elements:
                pieces[matrix] = Piece(matrix, 0, start, offset, elements)
        flat = wrapped.fp32_partitioned_groups_flat[number]
        found.append((flat, [_shape(p) for p in parameters], pieces))
    return found


def _shape(parameter: Any) -> tuple[int, int]:
    rows, columns = getattr(parameter, "ds_shape", parameter.shape)
    return rows, columns
