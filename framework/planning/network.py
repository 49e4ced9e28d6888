"""What the ranks exchange in a step, and how long the wires take for it.

A ring over n ranks sends, from each, (n - 1) / n of the bytes of a reduce-scatter or an all-gather, twice that of an
all-reduce (Patarasuk & Yuan 2009, doi:10.1016/j.jpdc.2008.09.002). By ZeRO's stage (arXiv:1910.02054, section 7):

    0     all-reduce of the gradients, once an update
    1, 2  reduce-scatter of the gradients (at stage 2 of each micro-batch), all-gather of the weights after the update
    3     all-gather of the weights before forward and again before backward, of each micro-batch, and reduce-scatter

DeepSpeed 0.19 averages the gradients of stages 1 and 2 in buckets by a reduction of whole buckets where their parts
are dealt unevenly; that is counted as the reduce-scatter it stands for. Latency is not counted, and nothing is taken to
be hidden behind computation: a plan says both times, and which is longer.
"""

from dataclasses import dataclass

from framework.config import ClusterConfig, TrainingConfig
from framework.planning.parameters import Parameters


@dataclass(frozen=True)
class Network:
    """Of one rank in one step.

    Attributes:
        gradient_bytes: sent for gradients.
        weight_bytes: sent for weights.
        activation_bytes: sent for rows and layers that ranks share.
        seconds: that this takes; None where the bandwidth is unknown and something is sent.
    """

    gradient_bytes: float
    weight_bytes: float
    activation_bytes: float
    seconds: float | None


def network_of(
    config: TrainingConfig, parameters: Parameters, ranks: int, micro: int, stage: int | None = None
) -> Network:
    """Of a step in which each rank has its share of the first batch, in forward passes of `micro` rows."""
    stage = config.zero.stage if stage is None else stage
    shards = ranks // config.parallel.tensor
    rounds = micro_batches(config, ranks, micro)
    number = 4 if config.precision.dtype == "fp32" else 2
    trained, whole = parameters.trained, parameters.trained + parameters.frozen
    ring = (shards - 1) / shards
    gradients = trained * ring * (4 if stage in (0, 1) else number)  # stage 1 reduces the fp32 sums
    weights = trained * number * ring if stage in (1, 2) else 0.0
    if stage == 0:
        gradients *= 2
    elif stage == 2:
        gradients *= rounds
    elif stage == 3:
        gradients *= rounds
        weights = whole * number * ring * 2 * rounds
    activations = rounds * micro * (_shared_rows(config, number) + _shared_layers(config, number))
    exchanged = gradients + weights
    seconds = _seconds(exchanged, ranks, config.cluster) + _seconds(
        activations, config.parallel.sequence * config.parallel.tensor, config.cluster
    )
    return Network(gradients, weights, activations, seconds if seconds != float("inf") else None)


def micro_batches(config: TrainingConfig, ranks: int, micro: int) -> int:
    """Forward passes of a rank in a step."""
    return -(-config.batch.sequences // (config.parallel.data_ranks(ranks) * micro))


def _seconds(sent: float, ranks: int, cluster: ClusterConfig) -> float:
    """For what a rank sends along a ring of `ranks`, which is as fast as its slowest link."""
    if not sent:
        return 0.0
    speed = cluster.link_gb_per_second if ranks <= cluster.gpus_per_node else cluster.network_gb_per_second
    return sent / (speed * 1e9) if speed else float("inf")


def _shared_rows(config: TrainingConfig, number: int) -> float:
    """Bytes that a rank sends for a row of which each has a part of the tokens (DeepSpeed Ulysses, arXiv:2309.14509).

    Four all-to-alls a layer, of queries, keys, values and the result, and as many of their gradients.
    """
    ranks, model = config.parallel.sequence, config.model
    heads = 2 * (model.heads + model.key_value_heads) / config.parallel.tensor
    tokens = max(config.lengths.values()) / ranks
    return 2 * model.layers * tokens * heads * model.head_size * number * (ranks - 1) / ranks


def _shared_layers(config: TrainingConfig, number: int) -> float:
    """Bytes for a row whose layers are shared: two all-reduces forward and two backward (arXiv:1909.08053)."""
    ranks, model = config.parallel.tensor, config.model
    tokens = max(config.lengths.values()) / config.parallel.sequence
    return 4 * model.layers * tokens * model.hidden_size * number * 2 * (ranks - 1) / ranks
