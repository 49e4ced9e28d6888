"""The record of what the guard did, and the way back to an earlier checkpoint.

    RUN/guard.jsonl         an object for each action, with the step, the reason, the numbers and the sequences
    RUN/rolled_back.jsonl   the records of steps that were taken back, moved here from metrics.jsonl

Both are cut back to what a checkpoint knows of when a run resumes from it, as metrics.jsonl is.
"""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from framework import distributed
from framework.distributed import together
from framework.training.checkpoints.reader import Checkpoint, first_sound
from framework.training.checkpoints.store import LocalStore, regular, remove_later
from framework.training.record.json_lines import json_line, objects
from framework.training.survival.guard import Action, GuardState, Verdict

TAKEN_BACK = "guard/rollback"  # in rolled_back.jsonl: with which rollback of the run, the first being 1


class Incidents:
    """Writes what happened, on rank 0, and says it.

    Args:
        run: the run directory.
        state: the guard's, at the start or as resumed.
        say: on the console and in the log of this rank.

    Raises:
        UserError: the record is damaged.
    """

    def __init__(self, run: Path, state: GuardState, say: Callable[[str], None]) -> None:
        self._run = run
        self._say = say
        if distributed.rank() == 0:
            _rewrite(run / "guard.jsonl", list(islice(objects(run / "guard.jsonl"), state.events)))
            taken_back = objects(run / "rolled_back.jsonl")
            _rewrite(run / "rolled_back.jsonl", [r for r in taken_back if r[TAKEN_BACK] <= state.rolled_back])

    def tell(self, verdict: Verdict, state: GuardState) -> None:
        """An update was withheld; of the end of the run the user hears by its error."""
        ends = verdict.action == Action.END
        batch = f"sequences {verdict.sequences.start} to {verdict.sequences.stop - 1}"
        line = "" if ends else f"step {verdict.step}: update skipped, {verdict.reason} ({batch})"
        self._write(verdict.event() | {"action": "end" if ends else "skip"}, state, line)

    def tell_of_return(self, verdict: Verdict, found: Checkpoint, state: GuardState) -> None:
        """The run went back to a checkpoint, and stands there now."""
        to, position, end = found.state["step"], found.state["sequences"], verdict.sequences.stop
        event = verdict.event() | {
            "action": "rollback",
            "sequences": [position, end],
            "to_step": to,
            "rollback": state.rolled_back,
        }
        self._write(
            event,
            state,
            f"step {verdict.step}: back to {found.place}, sequences {position} to {end - 1} are left out; the records "
            f"of steps {to + 1} to {verdict.step} are in {self._run / 'rolled_back.jsonl'}",
        )

    def tell_of_no_return(self, verdict: Verdict, state: GuardState) -> None:
        """The run should go back, and cannot."""
        event = verdict.event() | {"action": "stay"}
        line = f"step {verdict.step}: there is no sound checkpoint from before step {verdict.first} to go back to"
        self._write(event, state, line)

    def checkpoint_before(self, step: int, store: LocalStore, every: int) -> Checkpoint | None:
        """The newest sound regular checkpoint from before `step`, those being due `every` so many; damaged are named.

        A regular one, so that where a run goes back to does not depend on where it happened to be stopped.
        """
        steps = together(lambda: regular(store, every, step - 1) if distributed.rank() == 0 else [])
        found, passed_over = first_sound(store, distributed.broadcast(steps))
        for line in passed_over:
            self._say(line)
        return found

    def keep_taken_back(self, records: list[dict[str, Any]], number: int) -> None:
        """The records of steps that the `number`-th rollback takes back."""
        with (self._run / "rolled_back.jsonl").open("a") as file:
            file.writelines(json_line({**record, TAKEN_BACK: number}) for record in records)

    def _write(self, event: dict[str, Any], state: GuardState, line: str) -> None:
        state.events += 1
        if line:
            self._say(line)
        if distributed.rank() == 0:
            with (self._run / "guard.jsonl").open("a") as file:
                file.write(json_line(event))


def _rewrite(path: Path, kept: list[dict[str, Any]]) -> None:
    if path.exists():
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text("".join(json_line(record) for record in kept))
        partial.replace(path)  # at once, so that a kill meanwhile costs nothing


def forget_later(store: LocalStore, step: int) -> None:
    """Rank 0 removes the checkpoints of the course that is given up, from which the run must not resume."""
    together(lambda: remove_later(store, step) if distributed.rank() == 0 else None)
