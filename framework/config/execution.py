"""How the arithmetic is done and dealt out: sharding, precision, the machines."""

from dataclasses import dataclass

from framework.checks import require, require_choice, require_positive


@dataclass
class ZeroConfig:
    """What DeepSpeed shards over the ranks (ZeRO, arXiv:1910.02054)."""

    stage: int = 2  # 0: nothing, 1: optimizer state, 2: and gradients, 3: and weights

    def check(self) -> None:
        require(self.stage in (0, 1, 2, 3), "zero.stage", f"is {self.stage}", "choose 0, 1, 2 or 3")


@dataclass
class PrecisionConfig:
    dtype: str = "fp32"  # fp32 | bf16 (with fp32 master weights and optimizer state)

    def check(self) -> None:
        require_choice("precision.dtype", self.dtype, ("fp32", "bf16"))


@dataclass
class ClusterConfig:
    name: str = "cpu"
    peak_tflops: float = 0.1  # dense peak of one GPU or CPU core in the training precision, 1e12 FLOP/s, for MFU
    source: str = ""  # where that figure is from

    def check(self) -> None:
        require_positive("cluster.peak_tflops", self.peak_tflops)
