"""What the loss and the gradient norm of a step call for: numbers in, a decision out.

The numbers are those of the whole job, so every rank decides alike; and all that a decision depends on is in
`Guard.state`, which a checkpoint keeps, so a resumed run decides as it would have done.

A spike is what lies far above the median of the last updates, in robust standard deviations (Leys et al. 2013,
"Detecting outliers: do not use standard deviation around the mean, use absolute deviation around the median").
To go back to a checkpoint and leave out the batches that the loss leapt on follows PaLM (arXiv:2204.02311, 5.1).
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any

from framework.config import GuardConfig

NORMAL = 1.4826  # times the median absolute deviation is the standard deviation, where values are normal
LEAST_SPREAD = 0.01  # of the median: a run whose losses hardly differ has no spikes for that


class Action(StrEnum):
    """What is to be done about a step."""

    UPDATE = "update"
    SKIP = "skip"
    ROLL_BACK = "rollback"
    END = "end"


@dataclass(frozen=True)
class Verdict:
    """A decision about a step.

    Attributes:
        action: what is to be done.
        step: which would-be update it is about.
        sequences: of its batch.
        loss, gradient_norm: its numbers.
        reason: why it is not an update.
        threshold: what was exceeded; None where a number is not finite.
        first: for a rollback, the step of the first of the spikes that call for it.
    """

    action: Action
    step: int
    sequences: range
    loss: float
    gradient_norm: float
    reason: str = ""
    threshold: float | None = None
    first: int = 0

    def event(self) -> dict[str, Any]:
        """What `guard.jsonl` holds about it."""
        return {
            "step": self.step,
            "action": self.action.value,
            "reason": self.reason,
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "threshold": self.threshold,
            "sequences": [self.sequences.start, self.sequences.stop],
        }


@dataclass
class GuardState:
    """All that decisions depend on, as JSON holds it.

    Attributes:
        regime: sequence length and batch size that the window was filled with.
        losses, norms: of the last updates.
        spikes: steps of the skipped updates that may yet take the run back.
        in_a_row: updates skipped since the last one made.
        skipped, rolled_back: totals of the run, steps that were taken back included.
        left_out: [from, to) of the sequences before the run's position that no update was made from.
        events: lines of `guard.jsonl`.
    """

    regime: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    spikes: list[int] = field(default_factory=list)
    in_a_row: int = 0
    skipped: int = 0
    rolled_back: int = 0
    left_out: list[list[int]] = field(default_factory=list)
    events: int = 0


class Guard:
    """Judges steps by those before them.

    Args:
        config: the policy.
        saved: the state that a checkpoint kept; empty at the start of a run.

    Attributes:
        state: what to keep in a checkpoint.
        verdict: on the step judged last.
    """

    def __init__(self, config: GuardConfig, saved: dict[str, Any]) -> None:
        self._config = config
        self.state = GuardState(**saved)
        self.verdict: Verdict | None = None

    def admits(self, step: int, sequences: range, length: int, loss: float, norm: float) -> bool:
        """Whether to make the update `step` from a batch of `sequences` of `length` tokens each.

        To be asked once a step; the full answer is in `verdict` then.
        """
        state, window = self.state, self._config.window
        if state.regime != [length, len(sequences)]:  # other batches have other losses and norms
            state.regime, state.losses, state.norms = [length, len(sequences)], [], []
        reason, threshold = self._objection(loss, norm)
        if reason:
            action, first, reason = self._consequence(step, sequences, reason)
            self.verdict = Verdict(action, step, sequences, loss, norm, reason, threshold, first)
            return False
        state.losses, state.norms = [*state.losses, loss][-window:], [*state.norms, norm][-window:]
        state.in_a_row = 0
        self.verdict = Verdict(Action.UPDATE, step, sequences, loss, norm)
        return True

    def return_to(self, saved: dict[str, Any], position: int, end: int) -> None:
        """Judge on from a checkpoint with state `saved`, at `position`, with the sequences up to `end` left out."""
        was = self.state
        self.state = GuardState(**saved)
        self.state.spikes, self.state.in_a_row = [], 0
        self.state.skipped, self.state.events = was.skipped, was.events
        self.state.rolled_back = was.rolled_back + 1
        self.state.left_out = joined([*self.state.left_out, [position, end]])

    def stay(self) -> None:
        """There is no checkpoint to go back to: it takes as many spikes again to ask for one."""
        self.state.spikes = []

    def may_go_back_to(self, step: int) -> int | None:
        """The last step whose checkpoint a rollback decided on after `step` may ask for; None if none will."""
        if self._config.name != "rollback":
            return None
        return min([*self.state.spikes, step + 1]) - 1

    def saved(self) -> dict[str, Any]:
        """The state, for a checkpoint."""
        return asdict(self.state)

    def _objection(self, loss: float, norm: float) -> tuple[str, float | None]:
        """What speaks against an update, and the threshold that was exceeded; empty if nothing does."""
        config, state = self._config, self.state
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return f"{name} {value} is not finite", None
        if config.name == "stop" or 2 * len(state.losses) < config.window:
            return "", None
        for name, value, before, factor in (
            ("loss", loss, state.losses, config.loss_factor),
            ("gradient norm", norm, state.norms, config.gradient_factor),
        ):
            limit = threshold(before, factor)
            if value > limit:
                return f"{name} {value:.4g} is above {limit:.4g}", limit
        return "", None

    def _consequence(self, step: int, sequences: range, reason: str) -> tuple[Action, int, str]:
        """What follows from a skipped update: the action, the first spike to go back before, and the full reason."""
        config, state = self._config, self.state
        if config.name == "stop":
            return Action.END, 0, reason
        state.left_out = joined([*state.left_out, [sequences.start, sequences.stop]])
        state.skipped += 1
        state.in_a_row += 1
        if config.name == "rollback":
            state.spikes = [spike for spike in state.spikes if spike > step - config.within] + [step]
            if len(state.spikes) >= config.spikes and state.rolled_back >= config.rollbacks:
                return Action.END, 0, f"{reason}, and the run went back {state.rolled_back} times before"
            if len(state.spikes) >= config.spikes:
                return Action.ROLL_BACK, state.spikes[0], f"{reason}, as in {len(state.spikes)} of the last steps"
        if state.in_a_row >= config.skips:
            return Action.END, 0, f"{reason}, and {state.in_a_row} updates in a row were skipped"
        return Action.SKIP, 0, reason


def remedy_for_divergence(step: int, in_a_row: int, kept: list[int]) -> str:
    """What the user may do when a run was ended.

    Args:
        step: at which it was.
        in_a_row: updates that were withheld up to it.
        kept: steps of its checkpoints, newest first.
    """
    remedy = "start again with a lower optimizer.learning_rate"
    if not kept:
        return f"{remedy}; there is no checkpoint yet, so it begins anew"
    last_update = step - max(1, in_a_row)
    remedy += f"; it goes on from the checkpoint of step {kept[0]}"
    if kept[0] < last_update:
        return remedy
    return (
        f"{remedy}, which update {last_update} may have spoilt already: if it ends so again, remove the checkpoints "
        f"from step {last_update} on, or begin anew under another run.name"
    )


def threshold(values: list[float], factor: float) -> float:
    """The median plus `factor` robust standard deviations."""
    middle = median(values)
    spread = NORMAL * median(abs(value - middle) for value in values)
    return middle + factor * max(spread, LEAST_SPREAD * abs(middle))


def joined(ranges: Iterable[list[int]]) -> list[list[int]]:
    """Ascending ranges [from, to), those that touch or overlap made one."""
    whole: list[list[int]] = []
    for start, stop in ranges:
        if whole and start <= whole[-1][1]:
            whole[-1] = [whole[-1][0], max(stop, whole[-1][1])]
        else:
            whole.append([start, stop])
    return whole
