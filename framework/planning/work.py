"""How much there is to do: steps, tokens, floating-point operations."""

from collections.abc import Iterator
from dataclasses import dataclass

from framework.config import TrainingConfig
from framework.model.arithmetic import count_parameters, forward_flops_per_token, training_flops_per_token
from framework.stream.curriculum import Curriculum

CHINCHILLA_TOKENS = 20  # for each parameter (Hoffmann et al. 2022, arXiv:2203.15556, table 3)


@dataclass(frozen=True)
class Work:
    """Of a whole run.

    Attributes:
        parameters: of the model.
        steps: updates.
        sequences: rows of all batches.
        tokens: in them.
        flops: floating-point operations, forward and backward, of matrix products and attention, the gradients of
            frozen weights left out.
        recomputed_flops: of forward passes that are made a second time to save memory; not among `flops`.
        flops_by_parameters: 6 x parameters x tokens, as GPT-3's table D.1 (arXiv:2005.14165) and many others count.
        compute_optimal_tokens: those that make the best of the model's size (arXiv:2203.15556).
    """

    parameters: int
    steps: int
    sequences: int
    tokens: int
    flops: float
    recomputed_flops: float
    flops_by_parameters: float
    compute_optimal_tokens: int


def work_of(config: TrainingConfig, trained: int | None = None, first_block: int = 0) -> Work:
    """From the schedule, the batch and the lengths of rows; all parameters are trained, or so many of them.

    first_block: below it nothing is, so that no pass goes back there.
    """
    lengths = Curriculum(config.lengths[0], config.lengths)
    sequences = sequences_of(config)
    tokens, parameters = lengths.total(sequences), count_parameters(config.model).total
    flops = sum(
        (stop - start) * length * training_flops_per_token(config.model, length, predicts=config.predicts_tokens)
        for start, stop, length in lengths.pieces(0, sequences)
    )
    again = recomputed_flops(config, config.memory.activation_checkpointing, first_block)
    if trained is not None:  # a third is the gradients of the weights
        flops *= (2 + min(1.0, trained / parameters)) / 3
    return Work(
        parameters=parameters,
        steps=config.schedule.steps,
        sequences=sequences,
        tokens=tokens,
        flops=flops,
        recomputed_flops=again,
        flops_by_parameters=6.0 * parameters * tokens,
        compute_optimal_tokens=CHINCHILLA_TOKENS * parameters,
    )


def recomputed_flops(config: TrainingConfig, policy: str, first_block: int = 0) -> float:
    """Operations of a whole run that this policy for activations makes twice: the forward passes of its layers."""
    layers = config.model.layers
    lengths = Curriculum(config.lengths[0], config.lengths)
    blocks = sum(
        (stop - start) * length * forward_flops_per_token(config.model, length, predicts=False)
        for start, stop, length in lengths.pieces(0, sequences_of(config))
    )
    return blocks * recomputed_layers(policy, layers - first_block, config.memory.every) / layers


def recomputed_layers(policy: str, layers: int, every: int) -> int:
    """Of so many, how many are computed twice."""
    return {"none": 0, "full": layers, "every_n": -(-layers // every)}[policy]


def sequences_of(config: TrainingConfig) -> int:
    """Of all steps: batches may change at given positions."""
    position, left = 0, config.schedule.steps
    for begin, end, sequences in _stretches(config):
        steps = left if end is None else min(left, (end - begin) // sequences)
        position, left = begin + steps * sequences, left - steps
        if not left:
            break
    return position


def steps_for(config: TrainingConfig, tokens: float) -> int:
    """The fewest updates that see so many tokens; at least 1."""
    lengths = Curriculum(config.lengths[0], config.lengths)
    steps = 0
    for begin, end, sequences in _stretches(config):
        edges = sorted({begin, *(edge for edge in lengths.changes if begin < edge and (end is None or edge < end))})
        for start, stop in zip(edges, [*edges[1:], end], strict=True):
            a_step = sequences * lengths.at(start)
            missing = -(-(tokens - lengths.total(start)) // a_step)
            if stop is None or missing <= (stop - start) // sequences:
                return max(1, steps + int(missing))
            steps += (stop - start) // sequences
    raise AssertionError("the last stretch has no end")


def _stretches(config: TrainingConfig) -> Iterator[tuple[int, int | None, int]]:
    """(first sequence, the one after the last or None, sequences of a batch) of each size of batch."""
    batches = Curriculum(config.batch.sequences, config.batch.changes)
    begins = [0, *(edge for edge in batches.changes if edge > 0)]
    for begin, end in zip(begins, [*begins[1:], None], strict=True):
        yield begin, end, batches.at(begin)
