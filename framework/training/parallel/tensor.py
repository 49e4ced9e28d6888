"""Layers shared by several ranks: each has a part of the heads and of the feed-forward network's features.

DeepSpeed's AutoTP cuts the matrices, of a model that was initialised or loaded whole, and puts the sums over ranks
where they belong (Megatron-LM, arXiv:1909.08053): matrices that read the residual stream are cut by rows of their
weight, those that write to it by columns. Norms, embeddings and the output layer are whole on every rank. The model
knows nothing of it.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from framework.training.parallel.layout import Layout

READERS = ("attention.query", "attention.key", "attention.value", "mlp.gate", "mlp.up")
WRITERS = ("attention.output", "mlp.down")
OF_HEADS = ("attention.query_norm", "attention.key_norm")  # whole, but each rank sees the gradient of its own heads


def deepspeed_settings(ranks: int) -> dict[str, Any]:
    """The `tensor_parallel` section of DeepSpeed's configuration."""

    def patterns(modules: tuple[str, ...]) -> list[str]:
        return [rf".*\.{module.replace('.', chr(92) + '.')}\.weight$" for module in modules]

    specifications = [
        {"patterns": patterns(READERS), "partition_type": "column"},
        {"patterns": patterns(WRITERS), "partition_type": "row"},
        {"patterns": patterns(OF_HEADS), "partition_type": "skip", "grad_allreduce": True},
    ]
    return {
        "autotp_size": ranks,
        "partition_config": {"use_default_specs": False, "layer_specs": specifications},
    }


def forget_groups() -> None:
    """Let DeepSpeed group the ranks anew: in a sweep an earlier engine may have grouped them otherwise.

    DeepSpeed 0.19 keeps the groups of tensor parallelism for the life of the process, for engines without it too.
    """
    from deepspeed.utils import groups

    if groups.mpu is not None:
        groups._release_process_group_references()


def skip_comparison(engine: Any) -> None:
    """Let the first forward pass go without DeepSpeed's comparison of what the ranks of a group are given.

    It compares arguments that are no tensors by identity, and a loss to compute is one. The ranks read the same rows
    by construction; the hash of every batch is in the record.
    """
    engine.first_dataloader_check.remove()


def clip(parameters: Any, limit: float) -> float:
    """Clip gradients to a global L2 norm, of the whole model; returns the norm before."""
    from deepspeed.runtime.utils import clip_grad_norm_
    from deepspeed.utils import groups

    return float(clip_grad_norm_(parameters, limit, mpu=groups))


def join(name: str, part: Tensor, layout: Layout) -> Tensor:
    """The whole of a parameter, or of its optimizer state, from every rank's part; collective where it was cut."""
    dimension = cut_dimension(name)
    if layout.tensor_ranks == 1 or dimension is None:
        return part
    from deepspeed.utils import groups

    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(layout.tensor_ranks)]
    dist.all_gather(parts, part.contiguous(), group=groups.get_tensor_model_parallel_group())
    return torch.cat(parts, dim=dimension)


def cut(name: str, whole: Tensor, layout: Layout) -> Tensor:
    """This rank's part of a whole parameter, or of its optimizer state."""
    dimension = cut_dimension(name)
    if layout.tensor_ranks == 1 or dimension is None:
        return whole
    return whole.chunk(layout.tensor_ranks, dim=dimension)[layout.tensor_rank].contiguous()


def cut_dimension(name: str) -> int | None:
    """Along which dimension a parameter is dealt to the ranks of a layer; None where each has the whole."""
    module, _, kind = name.rpartition(".")
    if module.endswith(READERS):
        return 0
    return 1 if module.endswith(WRITERS) and kind == "weight" else None
