"""Reads what a run has left on disk into what its page shows."""

import json
import re
import statistics
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framework.composition import from_yaml
from framework.config import FinetuneConfig, PretrainConfig, TrainingConfig
from framework.errors import UserError
from framework.page.lines import Curve
from framework.training.checkpoints.store import MANIFEST, open_store
from framework.training.record.json_lines import objects
from framework.training.record.report.prediction import Prediction, predict
from framework.training.record.starts import FILE as STARTS

_EVENTS, _CHECKPOINTS, _STARTS = 100, 30, 30  # newest ones on the page; it says how many there are
_ROUNDS = 10  # newest rounds of samples on the page
_CURVES = (
    "train/loss", "train/learning_rate", "train/gradient_norm", "train/tokens_per_second", "train/rank_seconds",
    "train/rank_seconds_spread", "memory/peak_bytes", "memory/reserved_bytes", "checkpoint/stall_seconds",
)  # fmt: skip


@dataclass
class Steps:
    """What `metrics.jsonl` says, in bounded space however long the run.

    Attributes:
        curves: by name; those of `_CURVES`, and of held-out loss and bits per byte by corpus.
        last: the last record.
        latest: by name, the last value that any record has.
        first_loss: the first that is finite.
        last_loss: the last that is finite.
        seconds: that all steps took.
        rates: tokens a second of each step.
        mfu: of each step.
        slowest: how often each rank was the slowest one.
        waits: (step of the record, seconds that training waited) for each checkpoint.
        writes: (step of the record, seconds that writing took) of each.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    latest: dict[str, Any] = field(default_factory=dict)
    first_loss: float | None = None
    last_loss: float | None = None
    seconds: float = 0.0
    rates: "array[float]" = field(default_factory=lambda: array("d"))
    mfu: "array[float]" = field(default_factory=lambda: array("d"))
    slowest: dict[int, int] = field(default_factory=dict)
    waits: list[tuple[int, float]] = field(default_factory=list)
    writes: list[tuple[int, float]] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """The next record."""
        if (loss := record["train/loss"]) is not None:
            self.first_loss = loss if self.first_loss is None else self.first_loss
            self.last_loss = loss
        self.last = record
        self.latest |= record
        self.seconds += record["train/step_seconds"]
        self.rates.append(record["train/tokens_per_second"])
        self.mfu.append(record["train/mfu"])
        for name, value in record.items():
            if value is not None and (name in _CURVES or name.startswith("eval/")):
                self.curves.setdefault(name, Curve(name)).points.add(record["step"], value)
        if "train/slowest_rank" in record:
            rank = record["train/slowest_rank"]
            self.slowest[rank] = self.slowest.get(rank, 0) + 1
        for what, times in (("stall", self.waits), ("write", self.writes)):
            if (seconds := record.get(f"checkpoint/{what}_seconds")) is not None:
                times.append((record["step"], seconds))

    @property
    def held_out(self) -> list[str]:
        """The held-out sets that were looked at."""
        return list(dict.fromkeys(name.split("/")[1] for name in self.curves if name.startswith("eval/")))

    @property
    def tokens_per_second(self) -> float:
        """In the median step, as the first one of every start is slower."""
        return statistics.median(self.rates)

    @property
    def median_mfu(self) -> float:
        """In the median step."""
        return statistics.median(self.mfu)


@dataclass(frozen=True)
class Checkpoint:
    """One that is there."""

    step: int
    bytes: int
    files: int
    stall: float | None
    write: float | None


@dataclass(frozen=True)
class Newest:
    """The newest of many things, and how many there are."""

    count: int
    shown: list[Any]


@dataclass(frozen=True)
class RunReport:
    """All that the page shows."""

    name: str
    config: TrainingConfig
    config_text: str
    steps: Steps
    prediction: Prediction
    ranks: int
    processors: int
    complete: bool
    ended: dict[str, Any] | None  # the event by which the guard ended the run, unless it went on since
    starts: Newest
    asked: dict[str, float]
    realised: dict[str, float]
    guard: Newest
    checkpoints: Newest
    norms: dict[str, tuple[float, float]]
    samples: Newest
    summary: dict[str, Any]

    @property
    def task(self) -> str:
        """Of a fine-tuning; empty for pretraining."""
        return self.config.task.name if isinstance(self.config, FinetuneConfig) else ""


def report_of(run: Path) -> RunReport:
    """Of a run that has made a step.

    Raises:
        UserError: there is no such run, or it has made no step.
    """
    if not (run / "config.yaml").exists():
        raise UserError(f"{run}: is no run directory, it has no config.yaml; give one such as runs/first")
    config_text = (run / "config.yaml").read_text()
    config = _config_of(config_text)
    steps = Steps()
    for record in objects(run / "metrics.jsonl"):
        steps.add(record)
    if not steps.last:
        raise UserError(f"{run}: has made no step yet; wait for one")
    starts, events = list(objects(run / STARTS)), list(objects(run / "guard.jsonl"))
    ended = events[-1] if events and events[-1].get("action") == "end" else None
    layout: dict[str, Any] = starts[-1] if starts else {"ranks": 1, "processors": 1, "shares": {}}
    summary = json.loads((run / "summary.json").read_bytes()) if (run / "summary.json").exists() else {}
    return RunReport(
        name=run.name,
        config=config,
        config_text=config_text,
        steps=steps,
        prediction=predict(run, config, layout["ranks"], layout["processors"]),
        ranks=layout["ranks"],
        processors=layout["processors"],
        complete=ended is None and steps.last["step"] >= config.schedule.steps,
        ended=ended,
        starts=_newest(starts, _STARTS),
        asked=layout["shares"],
        realised=_by_name(steps.last, "data/share/"),
        guard=_newest(events, _EVENTS),
        checkpoints=_newest(_checkpoints(run, config, steps), _CHECKPOINTS),
        norms=_norms(steps.latest),
        samples=_rounds(list(objects(run / "samples.jsonl"))),
        summary=summary,
    )


def _config_of(text: str) -> TrainingConfig:
    """A fine-tuning's configuration is the one that has a task."""
    kind = FinetuneConfig if re.search(r"^task:", text, re.MULTILINE) else PretrainConfig
    config: TrainingConfig = from_yaml(text, kind)
    return config


def _newest(things: list[Any], shown: int) -> Newest:
    return Newest(len(things), things[-shown:][::-1])


def _by_name(record: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in record.items() if name.startswith(prefix)}


def _norms(latest: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Of weights and gradients by block, the last that were taken."""
    gradients = _by_name(latest, "norm/gradients/")
    return {block: (value, gradients[block]) for block, value in _by_name(latest, "norm/parameters/").items()}


def _checkpoints(run: Path, config: TrainingConfig, steps: Steps) -> list[Checkpoint]:
    found = []
    store = open_store(run, config.checkpoint)
    for step in [] if store.remote else store.steps()[::-1]:  # training waits for the page, and shall for no network
        try:
            files = json.loads(store.read(step, MANIFEST))["files"]
            size = sum(entry["bytes"] for entry in files.values())
        except (OSError, ValueError, KeyError, TypeError):
            continue  # removed meanwhile, or damaged: not one to go on from
        waited, took = (_first_within(times, step, config.checkpoint.every) for times in (steps.waits, steps.writes))
        found.append(Checkpoint(step, size, len(files), waited, took))
    return found


def _first_within(times: list[tuple[int, float]], step: int, steps: int) -> float | None:
    """What was noted first after a step: a checkpoint is written while training goes on."""
    place = bisect_left(times, (step, 0.0))
    return times[place][1] if place < len(times) and times[place][0] < step + steps else None


def _rounds(samples: list[dict[str, Any]]) -> Newest:
    """(step, samples) of the newest rounds."""
    rounds: dict[int, list[dict[str, Any]]] = {}
    for sample in samples:
        rounds.setdefault(sample["step"], []).append(sample)
    return Newest(len(rounds), list(rounds.items())[-_ROUNDS:][::-1])
