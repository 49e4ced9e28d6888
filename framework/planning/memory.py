"""Memory of one rank, part by part, at the moment of an update when most is held.

It describes this trainer: DeepSpeed 0.19 as `framework.training.engine` sets it up. ZeRO (arXiv:1910.02054) shards over
the n ranks that do not share layers. Of T trained and F frozen numbers, in w bytes of the working precision:

    stage            weights        gradients            master weights and moments, in fp32
    0                4 (T + F)      4 T                  4 moments (the weights are the master)
    1, fp32          4 (T + F)      4 T                  (4 T + 4 moments) / n
    1, bf16          2 (T + F)      6 T                  the same: sums in fp32 beside each micro-batch's bf16
    2                w (T + F)      4 T / n              the same
    3                w (T + F) / n  4 T / n              the same, and small parameters whole
"""

from dataclasses import dataclass, field

from framework.config import TrainingConfig
from framework.planning.activations import block_bytes, kept_bytes, loss_bytes, pass_of, working_bytes
from framework.planning.network import micro_batches
from framework.planning.parameters import Parameters

FP32 = 4
PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "buffers")
POLICIES = ("none", "every_n", "full")
# elements, of DeepSpeed 0.19: what its reduction of whole gradients flattens at a time; how far ahead ZeRO-3 fetches
# (stage3_prefetch_bucket_size), and how soon a weight has to be needed again to be kept (half of
# stage3_max_reuse_distance, as the way back is as long); what ZeRO-3 updates at a time (sub_group_size)
FLATTENED, PREFETCHED, REUSED, SUB_GROUP = 500_000_000, 50_000_000, 500_000_000, 1_000_000_000
# of `framework.training.engine._communication`, and DeepSpeed's own where that leaves it be: on a CPU, where what of a
# bucket is not used is no memory
BUCKET = {"gpu": 50_000_000, "cpu": 500_000_000}


@dataclass(frozen=True)
class Gradients:
    """Bytes: at all times, between two backward passes, as the last is done, and in the update."""

    always: float
    between: float
    reducing: float
    updating: float


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank.

    Attributes:
        moment: of an update when most is held: forward | loss | backward | reduction | update.
        parts: what is held then, by `PARTS`.
        moments: all that is held at each moment.
        activations: that the forward pass keeps, whatever moment it is.
        gradients: at each moment, too.
        host: on the host, offloaded, for each rank.
    """

    moment: str
    parts: dict[str, float]
    moments: dict[str, float]
    activations: float
    gradients: Gradients
    host: float = 0.0

    @property
    def total(self) -> float:
        """At that moment."""
        return sum(self.parts.values())


@dataclass
class _Held:
    """Grows to a `Memory`."""

    weights: float
    optimizer: float
    host: float
    moments: dict[str, dict[str, float]] = field(default_factory=dict)

    def at(self, moment: str, **parts: float) -> None:
        found = {"weights": self.weights, "optimizer": self.optimizer, **parts}
        self.moments[moment] = {part: found.get(part, 0.0) for part in PARTS}

    def memory(self, activations: float, gradients: Gradients) -> Memory:
        totals = {moment: sum(parts.values()) for moment, parts in self.moments.items()}
        moment = max(totals, key=lambda name: totals[name])
        return Memory(moment, self.moments[moment], totals, activations, gradients, self.host)


def memory_of(
    config: TrainingConfig,
    parameters: Parameters,
    ranks: int,
    micro: int,
    stage: int | None = None,
    policy: str | None = None,
) -> Memory:
    """Of each of `ranks`, in forward passes of `micro` rows; at the configured stage and policy unless given others."""
    stage = config.zero.stage if stage is None else stage
    policy = config.memory.activation_checkpointing if policy is None else policy
    one, shards = pass_of(config, micro), ranks // config.parallel.tensor
    again = micro_batches(config, ranks, micro) > 1
    held = _states(config, parameters, stage, shards, one.number)
    gradients = _gradients(config, parameters, stage, shards, one.number)
    before = gradients.always if not again else gradients.between
    activations = kept_bytes(config, parameters, one, policy)
    buffers = _buffers(config, parameters, stage, one.number)
    gathered, arriving = _gathered(parameters, one.number) if stage == 3 and shards > 1 else (0.0, 0.0)
    forward, backward = (buffers.always + more + gathered for more in (buffers.forward, buffers.backward))
    block = block_bytes(config.model, one) if policy != "none" else 0.0
    working = activations + block + working_bytes(config.model, one)
    updating = buffers.always + _update(config, parameters, stage, shards, one.number)

    held.at("forward", gradients=before, activations=activations, buffers=forward + arriving)
    held.at("loss", gradients=before, activations=activations, logits=loss_bytes(config, one), buffers=forward)
    held.at("backward", gradients=before, activations=working, buffers=backward)
    held.at("reduction", gradients=gradients.reducing, buffers=buffers.always + buffers.reducing)
    held.at("update", gradients=gradients.updating, buffers=updating)
    return held.memory(activations, gradients)


def _states(config: TrainingConfig, parameters: Parameters, stage: int, shards: int, number: int) -> _Held:
    """Weights and the optimizer's state, which are held all the time."""
    everything = number * (parameters.trained + parameters.frozen)
    state = FP32 * ((parameters.trained if stage else 0) + parameters.kept) / (shards if stage else 1)
    weights, host = float(everything), 0.0
    if stage == 3:
        weights = everything / shards + (number * parameters.persistent if shards > 1 else 0)
    if config.zero.offload != "none" and stage:
        host = state + (FP32 if stage == 3 else FP32 + number) * parameters.trained / shards
        if stage == 3:
            host, weights = host + everything / shards, float(number * parameters.persistent)
        state, host = 0.0, host if config.zero.offload == "cpu" else 0.0
    return _Held(weights + parameters.packed_bytes, state, host)


def _gradients(config: TrainingConfig, parameters: Parameters, stage: int, shards: int, number: int) -> Gradients:
    trained = parameters.trained
    part, whole = FP32 * trained / shards, float(FP32 * trained)
    if config.zero.offload != "none" and stage:
        there = float(number * trained) if stage == 1 else 0.0
        return Gradients(0.0, there, there, 0.0)
    if stage == 0:
        return Gradients(0.0, whole, whole, whole)
    if stage == 1 and number == FP32:
        return Gradients(0.0, whole, whole, part)
    if stage == 1:
        both = whole + number * trained
        return Gradients(whole, both, both, both)
    return Gradients(part if stage == 3 else 0.0, part, part, part)


@dataclass(frozen=True)
class _Buffers:
    """Bytes: at all times, and more of them in the last forward and backward pass, and at the end of that."""

    always: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    reducing: float = 0.0


def _buffers(config: TrainingConfig, parameters: Parameters, stage: int, number: int) -> _Buffers:
    trained, device = parameters.trained, config.cluster.device
    offloads = config.zero.offload != "none"
    bucket = min(BUCKET[device], trained) if device == "cpu" else BUCKET[device]
    flattened = min(trained, FLATTENED)
    if stage == 0:
        return _Buffers(reducing=float(FP32 * flattened))
    if stage == 1 and number < FP32 and not offloads:
        return _Buffers(reducing=float((FP32 + number) * flattened))
    reduced = float(number * min(trained, bucket))  # a bucket on its way
    if stage == 3:
        return _Buffers(always=float(number * bucket), reducing=2 * reduced)
    buckets = float((2 if device == "gpu" else 1) * number * bucket)
    copied = float(parameters.largest * number) if offloads else 0.0
    if stage == 1:
        return _Buffers(always=copied, forward=buckets, backward=buckets, reducing=buckets)
    return _Buffers(always=copied, backward=buckets, reducing=buckets + reduced)


def _gathered(parameters: Parameters, number: int) -> tuple[float, float]:
    """Weights that ZeRO-3 has whole at the end of the forward pass, and what the last of them arrived in."""
    everything = parameters.trained + parameters.frozen - parameters.persistent
    whole = min(everything, REUSED + PREFETCHED + parameters.largest)
    return float(number * whole), float(number * min(everything, PREFETCHED + parameters.largest))


def _update(config: TrainingConfig, parameters: Parameters, stage: int, shards: int, number: int) -> float:
    """What the optimizer works with beside its state: torch's own on a CPU makes two tensors as large as its shard."""
    if config.zero.offload != "none" and stage:
        return 0.0
    if stage == 0:
        return 0.0 if config.cluster.device == "gpu" else 3.0 * FP32 * parameters.largest
    shard = parameters.trained / shards
    if stage == 3:
        shard = min(shard, SUB_GROUP)
    copies = (2 if config.cluster.device == "cpu" else 0) + (number == FP32 or stage == 3)  # and the gradients, flat
    muon = parameters.orthogonalized / shards + 3 * parameters.largest if config.optimizer.name == "muon" else 0
    return FP32 * (copies * shard + muon)


def largest_micro(
    config: TrainingConfig,
    parameters: Parameters,
    ranks: int,
    limit: float,
    stage: int | None = None,
    policy: str | None = None,
) -> int:
    """Most rows in a forward pass with which everything fits into `limit` bytes; 0 if one is too many.

    Of the divisors of a rank's share of the batch, as `batch.micro` has to be one.
    """
    share = config.batch.sequences // config.parallel.data_ranks(ranks)
    for micro in sorted((d for d in range(1, share + 1) if share % d == 0), reverse=True):
        if memory_of(config, parameters, ranks, micro, stage, policy).total <= limit:
            return micro
    return 0
