"""datatrove runs the preparation: pipelines of steps, over tasks, resumed at the granularity of a task.

A pipeline is a list of datatrove steps whose last is an `Output`. Each task has a directory of its own
with a stamp, as a stage has (`stages`): it is built beside its place and renamed into it, so a task that
was killed has left nothing that could be taken for whole, and a task counts as done only for the inputs
and settings whose digest its stamp holds. Nothing of a task's outcome depends on which worker ran it,
so neither does anything that is made from the tasks in their order.

    DIRECTORY/00000/, 00001/, ...   what the tasks made
    DIRECTORY/datatrove/            completions, statistics and logs
    DIRECTORY/failures/             why a task failed
"""

import json
import shutil
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from framework.config import ExecutorConfig
from framework.corpus.console import Reporter
from framework.corpus.executors import FAILURES, LOG, available_cores, cluster, launch, workers_on_this_machine
from framework.corpus.stages import STAMP, Facts, Stage, fill, output_error, partial_directory, read_stage, unsound
from framework.errors import UserError

# Of every filter's statistics: what the counts of documents say already, and sizes of what passed.
_COUNTED_BY_DATATROVE = {"total", "forwarded", "dropped", "doc_len", "doc_len_tokens"}

logger.disable("datatrove")  # here and in every worker: what the user must know is said by us, in one line


class Output(PipelineStep, ABC):
    """The last step of every pipeline: takes the documents of a task and makes files of them.

    Args:
        directory: of all tasks of the pipeline.
        digests: for each task, the digest of everything its files follow from.
    """

    type = "output"

    def __init__(self, directory: Path, digests: list[str]) -> None:
        super().__init__()
        self.directory, self.digests = directory, digests

    @abstractmethod
    def write(self, documents: Iterable[Document], task: int, directory: Path) -> Facts:
        """Write the files of a task into an empty directory; what is to be known about them, as JSON."""

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the files of task `rank`, whole or not at all; a failure is noted for whoever started the job."""
        try:
            where = task_directory(self.directory, rank)
            fill(where, self.digests[rank], lambda directory: self.write(data or (), rank, directory))
        except Exception as error:
            told = output_error(error, self.directory) if isinstance(error, OSError) else None
            _note_failure(self.directory, rank, told or error)
            if told is not None:
                raise told from error
            raise


@dataclass(frozen=True)
class StepCount:
    """What one step of a pipeline did to the documents of all tasks."""

    step: str
    documents: int  # that it was given or, for a reader, that it found
    dropped: dict[str, int]  # by rule
    counted: dict[str, int] = field(default_factory=dict)  # whatever else it counts, by name


@dataclass(frozen=True)
class Outcome:
    """What a pipeline has made: its tasks in order, and what its steps counted."""

    tasks: list[Stage]
    steps: list[StepCount] = field(default_factory=list)


class Engine:
    """Runs pipelines where the configuration says; a Ray cluster lives as long as the context is open."""

    def __init__(self, config: ExecutorConfig, reporter: Reporter) -> None:
        self._config, self._reporter = config, reporter
        self._open = ExitStack()

    def __enter__(self) -> "Engine":
        self._open.enter_context(cluster(self._config))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def threads(self, tasks: int) -> int:
        """How many threads each of `tasks` tasks may use so that together they fill the cores of a machine."""
        if self._config.name != "local":
            return self._config.cpus_per_task
        return max(1, available_cores() // workers_on_this_machine(self._config, tasks))

    def run(self, label: str, steps: list[PipelineStep]) -> Outcome:
        """Do the tasks of a pipeline that have not been done.

        Args:
            label: what is being done, for the user and the queue of a cluster.
            steps: the pipeline; its last step is an `Output`, which knows the tasks.

        Raises:
            UserError: of a task, as it was raised there; or a cluster has given tasks up.
            RuntimeError: a bug in a step; the message is the traceback of the worker. Tasks done by
                then stay done, and nothing half-written is left.
        """
        output = steps[-1]
        assert isinstance(output, Output), steps
        directory, tasks = output.directory, len(output.digests)
        waiting = _unfinished(directory, output.digests)
        if waiting:
            if len(waiting) < tasks:
                self._reporter.say(f"{label}: {tasks - len(waiting)} of {tasks} tasks were done before, kept")
            try:
                with self._reporter.follow(
                    label, tasks, lambda: len(list((directory / LOG / "completions").glob("*")))
                ):
                    launch(self._config, label, steps, tasks, len(waiting), directory / LOG)
            except UserError:
                raise
            except Exception as error:
                _raise_noted(directory)
                raise RuntimeError(f"{label}: {error}") from error
            finally:
                _clear_partial(directory)
            _raise_noted(directory)
            _require_all(label, directory, waiting)
        return Outcome([read_stage(task_directory(directory, task)) for task in range(tasks)], _count(directory, tasks))


def remove_unless_resumable(directory: Path) -> None:
    """Remove a directory of pipelines' directories unless one of them has a task that was done."""
    if not any(directory.rglob(f"{'[0-9]' * 5}/{STAMP}")):
        shutil.rmtree(directory, ignore_errors=True)


def task_directory(directory: Path, task: int) -> Path:
    """Where the files of a task are."""
    return directory / f"{task:05d}"


def _unfinished(directory: Path, digests: list[str]) -> list[int]:
    """The tasks that are to be run: datatrove is made to believe what the files say, and nothing else."""
    for name in ("completions", "stats"):
        (directory / LOG / name).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(directory / FAILURES, ignore_errors=True)
    waiting = []
    for task, digest in enumerate(digests):
        completion, statistics = _marks(directory, task)
        if statistics.exists() and unsound(task_directory(directory, task), digest) is None:
            completion.touch()
            continue
        for mark in (completion, statistics):
            mark.unlink(missing_ok=True)
        shutil.rmtree(task_directory(directory, task), ignore_errors=True)
        waiting.append(task)
    return waiting


def _marks(directory: Path, task: int) -> tuple[Path, Path]:
    """Where datatrove marks a task as done, and where it puts its statistics."""
    return directory / LOG / "completions" / f"{task:05d}", directory / LOG / "stats" / f"{task:05d}.json"


def _clear_partial(directory: Path) -> None:
    for leftover in directory.glob(partial_directory(directory / "*").name):
        shutil.rmtree(leftover, ignore_errors=True)


def _note_failure(directory: Path, task: int, error: Exception) -> None:
    """Keep why a task failed where the process that started the job finds it, wherever the task ran."""
    note = {"told": str(error) if isinstance(error, UserError) else "", "traceback": traceback.format_exc()}
    place = directory / FAILURES / f"{task:05d}.json"
    partial = place.with_suffix(".partial")
    try:
        place.parent.mkdir(exist_ok=True)
        partial.write_text(json.dumps(note), encoding="utf-8")
        partial.replace(place)
    except OSError as trouble:  # a full disk, most likely; the error itself is on its way up
        logger.warning(f"cannot note why task {task} failed: {trouble}")


def _raise_noted(directory: Path) -> None:
    """Raise again what the first of the failed tasks raised."""
    for place in sorted((directory / FAILURES).glob("*.json")):
        note = json.loads(place.read_text(encoding="utf-8"))
        if note["told"]:
            raise UserError(note["told"])
        raise RuntimeError(f"task {int(place.stem)} failed:\n{note['traceback']}")


def _require_all(label: str, directory: Path, waiting: list[int]) -> None:
    missing = [task for task in waiting if not task_directory(directory, task).exists()]
    if missing:
        named = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise UserError(
            f"{label}: {len(missing)} of {len(waiting)} tasks ended unfinished ({named}), killed for time or memory "
            f"perhaps; see {directory / LOG}, raise executor.memory_gigabytes or executor.slurm_time, and start again"
        )


def _count(directory: Path, tasks: int) -> list[StepCount]:
    """The counts of every step over all tasks, those of earlier runs too."""
    counts: list[StepCount] = []
    for task in range(tasks):
        steps = json.loads(_marks(directory, task)[1].read_text(encoding="utf-8"))
        counts = counts or [StepCount(step["name"].split(": ")[-1], 0, {}) for step in steps]
        for number, (count, step) in enumerate(zip(counts, steps, strict=True)):
            stats = {name: _total(value) for name, value in step["stats"].items()}
            dropped, counted = Counter(count.dropped), Counter(count.counted)
            for name in stats.keys() - _COUNTED_BY_DATATROVE:
                rule = name.removeprefix("dropped_")
                (counted if rule == name else dropped)[rule] += stats[name]
            documents = count.documents + stats.get("total", 0)
            counts[number] = StepCount(
                count.step, documents, dict(sorted(dropped.items())), dict(sorted(counted.items()))
            )
    return counts


def _total(value: Any) -> int:
    """The total of a statistic: datatrove writes a number where there is nothing more to say."""
    return int(value["total"] if isinstance(value, dict) else value)
