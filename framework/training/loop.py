"""The training loop: position in, updates out, and a checkpoint wherever one may be needed."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

import kernels
from framework import composition, distributed, heartbeat, trial
from framework.config import TrainingConfig
from framework.distributed import together
from framework.errors import StopAskedError, UserError
from framework.stream.curriculum import Curriculum
from framework.training import average
from framework.training import state as engine_state
from framework.training.checkpoints.identity import current
from framework.training.checkpoints.reader import Checkpoint
from framework.training.checkpoints.store import open_store
from framework.training.checkpoints.writer import CheckpointWriter
from framework.training.engine import Engine, StepResult
from framework.training.execution.determinism import make_deterministic
from framework.training.optimization.optimizer import trainable
from framework.training.optimization.schedule import learning_rate_factor
from framework.training.record import summary
from framework.training.record.forecast import Given, foretell
from framework.training.record.incidents import Incidents, forget_later
from framework.training.record.json_lines import finite
from framework.training.record.metrics import Metrics
from framework.training.record.report.page import LiveReport
from framework.training.record.starts import note_start
from framework.training.record.step import record_of
from framework.training.record.tally import Tally
from framework.training.record.tracker import open_tracker
from framework.training.stage import HeldOut, Stage
from framework.training.start import checkpoint_to_resume, is_finished, say
from framework.training.survival.guard import Action, Guard, remedy_for_divergence
from framework.training.survival.watchdog import Watchdog
from framework.training.watching.memory import usage
from framework.training.watching.watch import Watch

logger = logging.getLogger("loam")
Config = TypeVar("Config", bound=TrainingConfig)


def train(config: Config, open_stage: Callable[[Config], Stage]) -> None:
    """Train from where the run stands to its last step, and hand the model over.

    open_stage: makes the stage, and refuses what does not go together before anything else is looked at.

    Raises:
        UserError: data, configuration or checkpoint do not go together; see the messages.
    """
    if config.deterministic:
        make_deterministic()
    kernels.use(config.kernels)
    run = Path(config.run.directory) / config.run.name
    stage = open_stage(config)
    found, history = checkpoint_to_resume(run, config, stage)
    if found is not None and is_finished(found, run, config):
        say(f"{run}: complete and sound at step {found.state['step']}, nothing to do")
        summary.show(run, stage)
        if distributed.rank() == 0 and not (run / "report.html").exists():
            LiveReport(run).refresh(whatever_it_costs=True)
        return
    if found is not None:
        state = found.state
        say(f"{found.place}: taken up at step {state['step']}, {state['sequences']} sequences into the data")
    stage.open(run, current(history), found)
    if distributed.rank() == 0:  # not before: a start that is refused must not replace what the run was made with
        (run / "config.yaml").write_text(composition.to_yaml(config))
    trainer = Trainer(run, config, stage, found, history)
    with closing(trainer.engine), Watchdog(config.guard.timeout), trainer.engine.stop_asked.heeded(), trainer.writer:
        trainer.run_to_end()


class Trainer:
    """One run: engine, data and record, from the first step that is missing to the last."""

    def __init__(
        self,
        run: Path,
        config: TrainingConfig,
        stage: Stage,
        found: Checkpoint | None,
        history: list[dict[str, Any]],
    ) -> None:
        self.run = run
        self.config = config
        self.stage = stage
        self.rows = stage.rows
        self.step = found.state["step"] if found else 0
        self.position = found.state["sequences"] if found else 0  # in sequences: all there is to know about the data
        self.engine, given = self._build_engine(found)
        self.history = history
        self.batches = Curriculum(config.batch.sequences, config.batch.changes)
        self.watch = together(lambda: Watch(config, self.engine, run))
        note_start(run, config, self.engine, self.rows, self.step)
        foretell(run, config, given, self.engine)
        self.store = open_store(run, config.checkpoint)
        self.writer = CheckpointWriter(self.store, config.checkpoint)
        self.metrics = together(self._open_metrics)
        self.guard = Guard(config.guard, found.state.get("guard", {}) if found else {})
        tell = self.metrics.say if self.metrics else logger.info
        self.incidents = together(lambda: Incidents(run, self.guard.state, tell))
        self.tally = Tally(self.rows, self.guard.state.left_out)

    def _build_engine(self, found: Checkpoint | None) -> tuple[Engine, Given]:
        resident = usage(torch.device("cpu"))["memory/peak_bytes"]
        model = self.stage.module()
        names = [name for name, _ in trainable(model)]
        whole = len(names) == len(list(model.parameters()))
        if found is None or not whole:  # what is frozen is in no checkpoint
            together(lambda: self.stage.set_initial_weights(model))
        if found is not None:
            read = found.reader()
            together(
                lambda: model.load_state_dict({name: read(name, engine_state.MASTER) for name in names}, strict=whole)
            )
        stage, given = self.stage, Given.of(model, resident)
        engine = Engine(model, self.config, stage.criterion, stage.rates(model), stage.before_forward)
        if found is not None:
            self._restore(found, engine)
        return engine, given

    def _restore(self, found: Checkpoint, engine: Engine) -> None:
        averaged = self.config.ema.decay > 0 and found.state.get("averaged", False)
        engine_state.restore(engine, found.reader(), found.state["optimizer_steps"], averaged)
        found.release()

    def _open_metrics(self) -> Metrics | None:
        if distributed.rank() != 0:
            return None
        tracker = open_tracker(self.config.tracker, self.run, asdict(self.config), self.step)
        return Metrics(self.run, self.step, self.config.schedule.steps, self.config.run.log_every, tracker)

    def run_to_end(self) -> None:
        """Every step that is missing, then the hand-off; or, with `run.stop_after`, a checkpoint before it."""
        last = self.config.schedule.steps
        stop = min(last, self.config.run.stop_after or last)
        held_out: dict[str, HeldOut] = {}
        self._prefetch()
        while self.step < stop:
            with self.watch.over(self.step + 1, stop), heartbeat.training(self.step + 1):
                started = time.perf_counter()
                result = self._update()
                seconds = time.perf_counter() - started
            due = self.step % self.config.validation.every == 0 or self.step == last
            held_out = self._validate() if due else {}
            record = self._record(result, seconds, held_out)
            if self.metrics:
                self.metrics.log(record, self.watch.words, self.watch.samples)
            if due and (why := trial.judge(self.step, record, self.step == last)) and not result.stop:
                self._stop(f"for good: {why}")
                return
            if not result.applied:
                with heartbeat.during("going back", heartbeat.WITHOUT_END):
                    if self._went_back():
                        continue
            if self.step % self.config.checkpoint.every == 0 or self.step == stop or result.stop:
                self._save(record)
                if self.metrics:
                    self.metrics.checkpointed()
            if result.stop:
                asking = self.engine.stop_asked.name or "a signal to another rank"
                self._stop(f"as {asking} asked; start again to go on")
                raise StopAskedError(f"stopped at step {self.step} with a checkpoint; start again to go on")
        if self.step >= last:
            self.writer.finish()
            with heartbeat.during("hand-off", heartbeat.WITHOUT_END):
                self._finish(held_out or self._validate())
        else:
            self._stop("as run.stop_after says; start again to go on")

    def _stop(self, why: str) -> None:
        """The run is not over, but this process is."""
        self.writer.finish()
        with heartbeat.during("stopping", heartbeat.WITHOUT_END):
            if self.metrics:
                self.metrics.say(f"{self.run}: stopped at step {self.step} {why}")
                self.metrics.close({})

    def _update(self) -> StepResult:
        with self.watch.working():
            batch = self.rows.read(self._share(0))
        self.rows.prefetch(self._share(self.stage.batches_ahead))
        sequences = range(self.position, self.position + self.batches.at(self.position))
        rate = self.config.optimizer.learning_rate * learning_rate_factor(self.config.schedule, self.step + 1)
        admits = partial(self.guard.admits, self.step + 1, sequences, self.rows.lengths.at(self.position))
        result = self.engine.step(batch, rate, admits)
        self.step += 1
        self.position = sequences.stop
        if result.applied:
            average.update(self.engine, self.config.ema, self.step)
        else:
            self.tally = Tally(self.rows, self.guard.state.left_out)
        return result

    def _went_back(self) -> bool:
        """What follows from an update that the guard withheld; whether the run stands at an earlier step now."""
        verdict, guard = self.guard.verdict, self.guard
        assert verdict is not None
        self.incidents.tell(verdict, guard.state)
        if verdict.action == Action.END:
            self.writer.finish()
            if self.metrics:
                self.metrics.close({})
            remedy = remedy_for_divergence(verdict.step, guard.state.in_a_row, self.store.steps())
            problem = f"step {verdict.step}: {verdict.reason}: training has diverged"
            raise distributed.agreed(UserError(f"{problem}; {remedy}"))
        if verdict.action != Action.ROLL_BACK:
            return False
        self.writer.finish()
        found = self.incidents.checkpoint_before(verdict.first, self.store, self.config.checkpoint.every)
        if found is None:
            self.incidents.tell_of_no_return(verdict, guard.state)
            guard.stay()
            return False
        self._restore(found, self.engine)
        self.step = found.state["step"]
        forget_later(self.store, self.step)
        guard.return_to(found.state.get("guard", {}), found.state["sequences"], self.position)
        if self.metrics:
            self.incidents.keep_taken_back(self.metrics.later_than(self.step), guard.state.rolled_back)
            self.metrics.cut_back_to(self.step)
        self.incidents.tell_of_return(verdict, found, guard.state)
        self.tally = Tally(self.rows, guard.state.left_out)
        self._prefetch()
        return True

    def _prefetch(self) -> None:
        for ahead in range(self.stage.batches_ahead):
            self.rows.prefetch(self._share(ahead))

    def _validate(self) -> dict[str, HeldOut]:
        with average.in_place(self.engine, self.config.ema):
            return self.stage.validate(self.engine)

    def _share(self, ahead: int) -> range:
        """This rank's sequences of the batch that is `ahead` batches from here."""
        position = self.position
        for _ in range(ahead):
            position += self.batches.at(position)
        return self.engine.layout.share(position, self.batches.at(position))

    def _record(self, result: StepResult, seconds: float, held_out: dict[str, HeldOut]) -> dict[str, Any]:
        record = record_of(
            self.config,
            self.engine,
            self.rows,
            self.tally,
            self.guard.state,
            self.batches.at(self.position - 1),
            self.step,
            self.position,
            result,
            seconds,
            held_out,
        )
        return record | self.watch.facts | self.writer.news()

    def _save(self, record: dict[str, Any]) -> None:
        state = {
            "step": self.step,
            "sequences": self.position,
            "optimizer_steps": engine_state.optimizer_steps(self.engine),
            "averaged": engine_state.has_average(self.engine),
            "orders": self.history,
            "config": asdict(self.config),
            "guard": self.guard.saved(),
            "metrics": finite(record),
        }
        hold = self.guard.may_go_back_to(self.step)
        if self.metrics:
            self.metrics.sync()
        self.writer.save(lambda: engine_state.owned_state(self.engine), state, hold)

    def _finish(self, held_out: dict[str, HeldOut]) -> None:
        with average.in_place(self.engine, self.config.ema):
            self.stage.examine(self.run, self.engine)
        weights = engine_state.whole_weights(self.engine, average.handed_over(self.engine, self.config.ema))
        tokens = self.tally.tokens(self.position)
        field = self.config.origin_field.removeprefix("model.")
        origin = self.history[0]["identity"]["model"].get(field, "")
        together(lambda: self.stage.hand_over(self.run, weights, self.step, tokens, held_out, origin))
        if self.metrics:
            self.metrics.close(summary.gather(self.run, self.config, self.stage, self.tally, held_out, self.engine))
            summary.show(self.run, self.stage)
