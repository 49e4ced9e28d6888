"""DeepSpeed behind one small class: an update from micro-batches, at any ZeRO stage."""

import logging
import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from framework import distributed
from framework.config import PretrainConfig
from framework.errors import UserError
from framework.model.transformer import loss as summed_loss
from framework.stream.loader import NO_LOSS, Batch
from framework.training.layout import Layout
from framework.training.optimizer import build_optimizer
from framework.training.sequence_parallel import share_rows
from framework.training.tensor_parallel import clip, deepspeed_settings, forget_groups


@dataclass(frozen=True)
class StepResult:
    """What one update came to, the same on every rank.

    Attributes:
        loss: mean negative log likelihood in nats over the labels of the whole global batch.
        gradient_norm: global L2 norm before clipping.
        labels: how many labels the loss is over.
        batch_hash: of the content of the global batch, whatever ranks it was dealt to.
    """

    loss: float
    gradient_norm: float
    labels: int
    batch_hash: str


class Engine:
    """A model under ZeRO (arXiv:1910.02054).

    Args:
        model: holds the initial weights, the same on every rank.
        config: of the run.

    Attributes:
        module: the model; under stage 3 its parameters are sharded outside of forward and backward.
        optimizer: what DeepSpeed made of AdamW.
        device: where batches belong.
        layout: which part of a batch is this rank's.
        processors: GPUs, or CPU cores, that all ranks together compute with.
    """

    def __init__(self, model: nn.Module, config: PretrainConfig) -> None:
        distributed.start()
        cuda = torch.cuda.is_available()
        deepspeed = _import_deepspeed(cuda)
        self.device = torch.device("cuda", distributed.local_rank()) if cuda else torch.device("cpu")
        self.world_size = distributed.world_size()
        self.layout = Layout.here(config.parallel)
        self.processors = self.world_size * (1 if cuda else torch.get_num_threads())
        self.stage = config.zero.stage
        self.low_precision = config.precision.dtype == "bf16"
        self.clipping = config.optimizer.gradient_clipping
        self.micro = config.batch.micro_on(self.layout.data_ranks)
        # Stage 0 is torch's own optimizer, whose clipping in DeepSpeed hides the norm: done here instead.
        self.plain = self.stage == 0
        model.to(self.device)
        forget_groups()
        if self.layout.sequence_ranks > 1:
            share_rows(model, self.layout.sequence_group())
        self._engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=build_optimizer(model, config.optimizer),
            config=self._deepspeed_config(),
            dist_init_required=False,
        )
        self.module: nn.Module = self._engine.module

    def _deepspeed_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": self.micro,
            "gradient_accumulation_steps": 1,  # in name; the boundary is set by hand, as the batch may grow over a run
            "zero_optimization": {"stage": self.stage},
            "zero_allow_untested_optimizer": True,  # torch's AdamW is not on DeepSpeed's list
            "zero_force_ds_cpu_optimizer": False,
            "gradient_clipping": 0.0 if self.plain else self.clipping,
            "steps_per_print": 10**9,
        }
        if self.layout.tensor_ranks > 1:
            config["tensor_parallel"] = deepspeed_settings(self.layout.tensor_ranks)
        if self.low_precision:
            config["bf16"] = {"enabled": True}
            config["data_types"] = {"grad_accum_dtype": "fp32"}
        return config

    def step(self, batch: Batch, learning_rate: float) -> StepResult:
        """One update from this rank's share of a global batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        labels, batch_hash = self._agree_on_batch(batch)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        micros = list(batch.split(self.micro))
        for number, micro in enumerate(micros, start=1):
            self._engine.set_gradient_accumulation_boundary(number == len(micros))
            total += self._forward_backward(micro, scale=self.layout.token_ranks / labels)
            if number < len(micros):
                self._engine.step()
        norm = self._update()
        dist.all_reduce(total if self.layout.speaks_for_tokens else total.zero_())
        return StepResult(total.item() / labels, norm, labels, batch_hash)

    def _agree_on_batch(self, batch: Batch) -> tuple[int, str]:
        """Number of labels and content hash of the global batch, in one small reduction."""
        facts = (
            [int((batch.labels != NO_LOSS).sum()), sum(batch.row_hashes()) % 2**62]
            if self.layout.speaks_for_rows
            else [0, 0]
        )
        mine = torch.tensor(facts, dtype=torch.int64, device=self.device)
        dist.all_reduce(mine)
        labels, content = mine.tolist()
        return labels, f"{content % 2**62:016x}"

    def _forward_backward(self, micro: Batch, scale: float) -> Tensor:
        """Sum of the losses of a micro-batch; gradients are of that sum times `scale`.

        DeepSpeed averages gradients over the ranks that have tokens of their own, so a scale of (such ranks /
        labels of the global batch) makes them those of the mean over the global batch, however it was dealt.
        """
        tokens, labels, document, positions = self.inputs(micro)
        total, _ = summed_loss(self._engine(tokens, document, positions_BT=positions), labels)
        self._engine.backward(total * scale, scale_wrt_gas=False)
        return total.detach().double()

    def _update(self) -> float:
        """Clip and step; returns the global gradient norm before clipping."""
        if self.plain:
            limit = self.clipping or float("inf")
            parameters = self.module.parameters()
            shared = self.layout.tensor_ranks > 1
            norm = clip(parameters, limit) if shared else float(nn.utils.clip_grad_norm_(parameters, limit))
            self._engine.step()
            return norm
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def prime(self, vocabulary_tokens: int = 2) -> None:
        """One update that changes nothing, after which the optimizer's state exists and can be set.

        Loss times 0 and learning rate 0: DeepSpeed makes the state on the first update only.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        tokens = torch.zeros((1, vocabulary_tokens), dtype=torch.int64, device=self.device)
        self._engine.set_gradient_accumulation_boundary(True)
        self._engine.backward(self._engine(tokens).sum() * 0.0, scale_wrt_gas=False)
        self._engine.step()

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """This rank's part of rows, as tensors where the model is; see `Layout.inputs`."""
        arrays = (batch.tokens, batch.labels, batch.document)
        return self.layout.inputs(*(torch.from_numpy(array).to(self.device, non_blocking=True) for array in arrays))


def _import_deepspeed(cuda: bool) -> Any:
    """DeepSpeed, quiet, and on gloo where there is no GPU."""
    os.environ.setdefault("LOCAL_RANK", "0")  # which DeepSpeed insists on, also for a lone process
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(f"training needs DeepSpeed ({error}); pip install 'loam[train]'") from error
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    # torch 2.13 deprecates names of collectives that DeepSpeed 0.19 still uses; nothing a user could change
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed.c10d_logger")
    if not cuda:
        # else it compiles a C++ collective at the first start, which takes a compiler and half a minute,
        # and which only its inference uses
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
