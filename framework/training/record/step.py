"""What a step leaves behind: one object of `metrics.jsonl`, whose names are stable (docs/watching.md lists them)."""

from dataclasses import asdict
from typing import Any

from framework.config import TrainingConfig
from framework.model.arithmetic import training_flops_per_token
from framework.training.engine import Engine, StepResult
from framework.training.optimization.schedule import learning_rate_factor
from framework.training.record.tally import Tally
from framework.training.stage import HeldOut, Rows
from framework.training.survival.guard import GuardState


def record_of(
    config: TrainingConfig,
    engine: Engine,
    rows: Rows,
    tally: Tally,
    guard: GuardState,
    sequences: int,
    step: int,
    position: int,
    result: StepResult,
    seconds: float,
    held_out: dict[str, HeldOut],
) -> dict[str, Any]:
    """The record of a step.

    Args:
        config: of the run.
        engine: for the processors whose peak MFU is a share of.
        rows: the data, for lengths.
        tally: what of it was trained on.
        guard: what was skipped and taken back.
        sequences: of its batch.
        step: its number, from 1.
        position: sequences consumed, those of the step included.
        result: of the update.
        seconds: that the step took.
        held_out: by corpus, where there was a validation after it.
    """
    length = rows.lengths.at(position - 1)
    tokens = rows.tokens(position) - rows.tokens(position - sequences)
    peak = config.cluster.tflops(config.precision.dtype) * 1e12 * engine.processors
    return {
        "step": step,
        "train/loss": result.loss,
        "train/gradient_norm": result.gradient_norm,
        **{f"train/{name}": value for name, value in result.facts.items() if name != "loss"},
        "train/learning_rate": config.optimizer.learning_rate * learning_rate_factor(config.schedule, step),
        "train/step_seconds": seconds,
        "train/tokens_per_second": tokens / seconds,
        "train/mfu": tokens
        / seconds
        / peak
        * training_flops_per_token(config.model, length, predicts=config.predicts_tokens),
        "data/sequences": position,
        "data/tokens": tally.tokens(position),
        "data/batch_hash": result.batch_hash,
        **{f"data/share/{name}": share for name, share in tally.shares(position).items()},
        "guard/skipped": guard.skipped,
        "guard/rolled_back": guard.rolled_back,
        **{f"eval/{name}/{key}": x for name, value in held_out.items() for key, x in asdict(value).items()},
    }
