"""How the arithmetic is done and dealt out: sharding, memory, precision."""

from dataclasses import dataclass

from framework.checks import require, require_choice, require_positive
from framework.config.model import ModelConfig


@dataclass
class ZeroConfig:
    """What DeepSpeed shards over the ranks (ZeRO, arXiv:1910.02054)."""

    stage: int = 2  # 0: nothing, 1: optimizer state, 2: and gradients, 3: and weights
    offload: str = "none"  # none | cpu | nvme: where optimizer state lies, and at stage 3 the weights out of use
    offload_path: str = ""  # nvme: a directory on a fast local disk of every node

    def check(self) -> None:
        require(self.stage in (0, 1, 2, 3), "zero.stage", f"is {self.stage}", "choose 0, 1, 2 or 3")
        require_choice("zero.offload", self.offload, ("none", "cpu", "nvme"))
        require(
            self.offload == "none" or self.stage > 0,
            "zero.offload",
            f"{self.offload} needs sharded optimizer state, and zero.stage is 0",
            "choose zero=stage1 or higher",
        )
        require(
            self.offload != "nvme" or self.stage == 3,
            "zero.offload",
            f"nvme needs zero.stage=3, and it is {self.stage}",
            "choose zero=stage3 or zero.offload=cpu",
        )
        require(
            (self.offload == "nvme") == bool(self.offload_path),
            "zero.offload_path",
            f"is {self.offload_path!r} with zero.offload={self.offload}",
            "give a directory with zero.offload=nvme, and none otherwise",
        )


@dataclass
class MemoryConfig:
    """What is computed twice rather than kept."""

    activation_checkpointing: str = "none"  # none | full: each layer keeps its input alone | every_n: each n-th does
    every: int = 2  # every_n: layers from one that is computed twice to the next

    def check(self) -> None:
        require_choice("memory.activation_checkpointing", self.activation_checkpointing, ("none", "full", "every_n"))
        require_positive("memory.every", self.every)


@dataclass
class ParallelConfig:
    """How many ranks share a row, and a layer; the batch is dealt to groups of sequence x tensor ranks."""

    sequence: int = 1  # ranks that share the tokens of a row (DeepSpeed Ulysses, arXiv:2309.14509)
    tensor: int = 1  # ranks that share the heads and features of a layer (Megatron-LM, arXiv:1909.08053)

    def check(self, world_size: int) -> None:
        for name in ("sequence", "tensor"):
            require_positive(f"parallel.{name}", getattr(self, name))
        group = self.sequence * self.tensor
        require(
            world_size % group == 0,
            "parallel.sequence" if self.sequence > 1 else "parallel.tensor",
            f"groups of parallel.sequence x parallel.tensor = {group} ranks cannot be made of {world_size}",
            f"start a multiple of {group} ranks, or lower them",
        )

    def check_model(self, model: ModelConfig) -> None:
        """Heads and features can be dealt to the ranks."""
        for name in ("heads", "key_value_heads", "intermediate_size"):
            size = getattr(model, name)
            require(
                size % self.tensor == 0,
                "parallel.tensor",
                f"{self.tensor} does not divide model.{name}={size}",
                f"use a divisor of {size}",
            )
        heads = model.heads // self.tensor
        require(
            heads % self.sequence == 0,
            "parallel.sequence",
            f"{self.sequence} does not divide the {heads} heads that attention deals to the ranks of a row",
            f"use a divisor of {heads}",
        )

    def check_length(self, name: str, length: int) -> None:
        """Rows of `length` tokens, as the field `name` asks for, can be dealt to the ranks."""
        require(
            length % self.sequence == 0,
            name,
            f"{length} tokens cannot be shared by parallel.sequence={self.sequence} ranks",
            f"use a multiple of {self.sequence}",
        )

    def data_ranks(self, world_size: int) -> int:
        """Into how many parts the rows of a batch are dealt."""
        return world_size // (self.sequence * self.tensor)


@dataclass
class PrecisionConfig:
    dtype: str = "fp32"  # fp32 | bf16, with fp32 master weights and optimizer state | fp8, bf16 with fp8 products

    def check(self) -> None:
        require_choice("precision.dtype", self.dtype, ("fp32", "bf16", "fp8"))
