"""The plan of a training run: everything of this room about one configuration."""

from dataclasses import dataclass

from framework.config import ClusterConfig, TrainingConfig
from framework.planning.checkpointing import Checkpoints, checkpoints_of
from framework.planning.cost import Cost, cost_of
from framework.planning.duration import Duration, duration_of
from framework.planning.memory import POLICIES, Memory, largest_micro, memory_of
from framework.planning.network import Network, micro_batches, network_of
from framework.planning.parameters import Parameters
from framework.planning.work import Work, recomputed_flops, work_of


@dataclass(frozen=True)
class Verdict:
    """Does it fit?

    Attributes:
        fits: None where the memory of a GPU is unknown.
        bytes: that a rank needs.
        limit: that its tensors may take; None: unknown.
        micro: rows of a forward pass that this is for.
        largest_micro: most of them that fit; None where the memory is unknown.
    """

    fits: bool | None
    bytes: float
    limit: float | None
    micro: int
    largest_micro: int | None


@dataclass(frozen=True)
class Choice:
    """A ZeRO stage with a policy for activations, and what comes of them."""

    stage: int
    policy: str
    memory: Memory
    network_seconds: float | None
    step_seconds: float
    verdict: Verdict


@dataclass(frozen=True)
class TrainingPlan:
    """Of a run as it is configured, and what else could have been chosen.

    Attributes:
        ranks: processes, one for each GPU.
        processors: GPUs, or CPU cores, that they compute with.
        trained: parameters that are.
        micro_batches: forward passes of a rank in an update.
        by_parameters: time and cost if operations are counted as 6 x parameters x tokens.
    """

    purpose: str
    ranks: int
    processors: int
    work: Work
    trained: int
    micro_batches: int
    memory: Memory
    verdict: Verdict
    network: Network
    duration: Duration
    cost: Cost
    by_parameters: tuple[Duration, Cost]
    checkpoints: Checkpoints
    choices: list[Choice]


def memory_limit(cluster: ClusterConfig) -> float | None:
    """Bytes that the tensors of a rank may take; None: unknown."""
    return cluster.memory_gb * 1e9 * cluster.memory_share if cluster.memory_gb else None


def plan_training(
    config: TrainingConfig,
    parameters: Parameters,
    ranks: int,
    processors: int,
    limit: float | None,
    purpose: str = "pretrain",
) -> TrainingPlan:
    """Plan a run of `ranks` whose tensors may take `limit` bytes each."""
    micro = config.batch.micro_on(config.parallel.data_ranks(ranks))
    work, network = (
        work_of(config, parameters.whole_trained, parameters.first_block),
        network_of(config, parameters, ranks, micro),
    )
    duration = duration_of(work.flops, work, config, processors, network, work.recomputed_flops)
    rough = duration_of(work.flops_by_parameters, work, config, processors)
    memory = memory_of(config, parameters, ranks, micro)
    return TrainingPlan(
        purpose=purpose,
        ranks=ranks,
        processors=processors,
        work=work,
        trained=parameters.whole_trained,
        micro_batches=micro_batches(config, ranks, micro),
        memory=memory,
        verdict=_verdict(config, parameters, ranks, micro, limit, memory),
        network=network,
        duration=duration,
        cost=cost_of(duration.gpu_hours, config.cluster),
        by_parameters=(rough, cost_of(rough.gpu_hours, config.cluster)),
        checkpoints=checkpoints_of(config, parameters, processors, duration.step_seconds, work.steps),
        choices=[
            _choice(config, parameters, work, (ranks, processors), micro, limit, stage, policy)
            for stage in _stages(config, parameters)
            for policy in POLICIES
        ],
    )


def _stages(config: TrainingConfig, parameters: Parameters) -> list[int]:
    """Those that the rest of the configuration allows; see `TrainingConfig.check`."""
    stages = [0, 1, 2, 3]
    if config.precision.dtype != "fp32" or config.zero.offload != "none":
        stages.remove(0)
    if parameters.packed_bytes:
        stages.remove(3)
    return [3] if config.zero.offload == "nvme" else stages


def _choice(
    config: TrainingConfig,
    parameters: Parameters,
    work: Work,
    layout: tuple[int, int],
    micro: int,
    limit: float | None,
    stage: int,
    policy: str,
) -> Choice:
    ranks, processors = layout
    memory = memory_of(config, parameters, ranks, micro, stage, policy)
    network = network_of(config, parameters, ranks, micro, stage)
    time = duration_of(
        work.flops, work, config, processors, network, recomputed_flops(config, policy, parameters.first_block)
    )
    verdict = _verdict(config, parameters, ranks, micro, limit, memory, stage, policy)
    return Choice(stage, policy, memory, network.seconds, time.step_seconds, verdict)


def _verdict(
    config: TrainingConfig,
    parameters: Parameters,
    ranks: int,
    micro: int,
    limit: float | None,
    memory: Memory,
    stage: int | None = None,
    policy: str | None = None,
) -> Verdict:
    if limit is None:
        return Verdict(None, memory.total, None, micro, None)
    largest = largest_micro(config, parameters, ranks, limit, stage, policy)
    return Verdict(memory.total <= limit, memory.total, limit, micro, largest)
