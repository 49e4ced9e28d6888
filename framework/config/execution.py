"""How the arithmetic is done and dealt out: sharding, precision, the machines."""

from dataclasses import dataclass

from framework.checks import require, require_choice, require_positive


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
class PrecisionConfig:
    dtype: str = "fp32"  # fp32 | bf16, with fp32 master weights and optimizer state | fp8, bf16 with fp8 products

    def check(self) -> None:
        require_choice("precision.dtype", self.dtype, ("fp32", "bf16", "fp8"))


@dataclass
class ClusterConfig:
    name: str = "cpu"
    peak_tflops: float = 0.1  # dense peak of one GPU or CPU core in the training precision, 1e12 FLOP/s, for MFU
    source: str = ""  # where that figure is from

    def check(self) -> None:
        require_positive("cluster.peak_tflops", self.peak_tflops)
