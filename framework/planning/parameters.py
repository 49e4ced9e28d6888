"""How many numbers a rank has of each kind, by what is trained."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from framework.config import OptimizerConfig, TrainingConfig

# DeepSpeed keeps parameters of fewer elements whole on every rank (stage3_param_persistence_threshold of 0.19)
PERSISTENT = 100_000

Shapes = Mapping[str, tuple[int, ...]]  # of parameters, whole, by name


@dataclass(frozen=True)
class Parameters:
    """Elements, but for `packed_bytes`.

    Attributes:
        trained: on a rank, before ZeRO shards them; less than the model has where ranks share layers.
        frozen: the same of those that stay as they are.
        packed_bytes: of frozen weights in 4 bits.
        kept: fp32 numbers that the optimizer keeps beside the master weights: moments, and the weights' average.
        orthogonalized: those of the trained that Muon updates.
        largest: of one parameter.
        persistent: in those that ZeRO-3 does not shard.
        first_block: the lowest block that gradients flow through.
        whole_trained, whole_kept: of all ranks that share layers.
    """

    trained: int
    frozen: int
    packed_bytes: float
    kept: int
    orthogonalized: int
    largest: int
    persistent: int
    first_block: int
    whole_trained: int
    whole_kept: int


def parameters_of(
    config: TrainingConfig, trained: Shapes, frozen: Shapes | None = None, packed_bytes: float = 0.0
) -> Parameters:
    """From the shapes of what is trained and of what is not; `packed_bytes` are on top of these."""
    frozen, tensor = frozen or {}, config.parallel.tensor
    own = {name: _on_a_rank(name, shape, tensor) for name, shape in trained.items()}
    kept = {name: moments_of(config.optimizer, name, shape) for name, shape in trained.items()}
    average = int(config.ema.decay > 0)
    still = {name: _on_a_rank(name, shape, tensor) for name, shape in frozen.items()}
    return Parameters(
        trained=sum(own.values()),
        frozen=sum(still.values()),
        packed_bytes=packed_bytes,
        kept=sum(size * (kept[name] + average) for name, size in own.items()),
        orthogonalized=sum(size for name, size in own.items() if kept[name] == 1 and config.optimizer.name == "muon"),
        largest=max((own | still).values()),
        persistent=sum(size for size in (own | still).values() if size < PERSISTENT),
        first_block=_first_block(trained),
        whole_trained=sum(math.prod(shape) for shape in trained.values()),
        whole_kept=sum(math.prod(shape) * (kept[name] + average) for name, shape in trained.items()),
    )


def moments_of(config: OptimizerConfig, name: str, shape: tuple[int, ...]) -> int:
    """How many numbers an optimizer keeps for each of a parameter."""
    from framework.model.width import is_hidden_matrix

    if config.name == "lion" or (config.name == "muon" and is_hidden_matrix(name, len(shape))):
        return 1
    return 2


def _on_a_rank(name: str, shape: tuple[int, ...], tensor: int) -> int:
    """Elements of this rank's part: matrices of the blocks are dealt, all else is whole."""
    size = math.prod(shape)
    return size // tensor if name.startswith("blocks.") and len(shape) == 2 else size


def _first_block(trained: Shapes) -> int:
    if any(name.startswith(("embedding.", "positions.")) for name in trained):
        return 0
    return min((int(name.split(".")[1]) for name in trained if name.startswith("blocks.")), default=0)
