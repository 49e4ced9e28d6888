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
class ParallelConfig:
    """How many ranks share one row, or one layer; the others share the batch."""

    sequence: int = 1  # ranks that share the tokens of a row (DeepSpeed Ulysses, arXiv:2309.14509)

    def check(self, world_size: int) -> None:
        require_positive("parallel.sequence", self.sequence)
        require(
            world_size % self.sequence == 0,
            "parallel.sequence",
            f"{self.sequence} does not divide the {world_size} ranks",
            f"use a divisor of {world_size}, or start a multiple of {self.sequence} ranks",
        )

    def check_shape(self, heads: int, lengths: dict[str, int]) -> None:
        """`lengths`: every length that rows come to have, in tokens, by the field that says so."""
        require(
            heads % self.sequence == 0,
            "parallel.sequence",
            f"{self.sequence} does not divide model.heads={heads}, which attention deals to the ranks",
            f"use a divisor of {heads}",
        )
        for name, length in lengths.items():
            require(
                length % self.sequence == 0,
                name,
                f"{length} tokens cannot be shared by parallel.sequence={self.sequence} ranks",
                f"use a multiple of {self.sequence}",
            )

    def data_ranks(self, world_size: int) -> int:
        """Into how many parts the rows of a batch are dealt."""
        return world_size // self.sequence


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
