"""First stage: the raw files of one corpus to documents, cleaned, filtered and decontaminated.

documents/NAME/TASK.jsonl.zst       what a task kept, an object with id, text and metadata a line
documents/NAME/dropped.jsonl        some of what each rule of the filters dropped
documents/NAME/contaminated.jsonl   which documents shared what with which evaluation file
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from framework.config import CorpusConfig
from framework.corpus.decontamination import decontamination_steps
from framework.corpus.decontamination.settings import DecontaminationSettings
from framework.corpus.engine import Engine, Output, task_directory
from framework.corpus.filters.sample import DROPPED, DroppedSample, merge_samples
from framework.corpus.readers.records import Fields
from framework.corpus.report.observe import ObserveDocuments
from framework.corpus.stages import Facts, unsound
from framework.corpus.steps import ReadFiles, cleaning_steps

CONTAMINATED = "contaminated.jsonl"
_TASK_BYTES = 64 << 20  # of raw files in one task, where no number of tasks is asked for
_KEPT = "documents.jsonl.zst"
_LEVEL = 3  # of Zstandard's 22: what its own tool takes


@dataclass(frozen=True)
class ReadTask:
    """Locations of the raw files of one task, and the digest of everything that its documents follow from."""

    files: list[str]
    digest: str


def deal_files(sizes: list[int], tasks: int) -> list[slice]:
    """Which files each task reads: neighbours, so that the tasks in order are the files in order.

    Args:
        sizes: of the files, in bytes.
        tasks: how many there shall be, if there are so many files; 0: one for every 64 MiB, a larger file
            in one of its own.
    """
    total = sum(sizes)
    count = min(tasks or max(1, total // _TASK_BYTES), len(sizes))
    parts: list[slice] = []
    start = before = 0
    for number, size in enumerate(sizes):
        before += size
        enough = before * count >= total * (len(parts) + 1)
        last_chance = len(sizes) - (number + 1) <= count - (len(parts) + 1)  # a file each for the tasks to come
        if enough or last_chance:
            parts.append(slice(start, number + 1))
            start = number + 1
    return parts


class KeepDocuments(Output):
    """Keeps the documents of a task for the stages that follow, as JSON lines packed with Zstandard."""

    name = "keep"

    def write(self, documents: Iterable[Document], task: int, directory: Path) -> Facts:
        """See the class."""
        import zstandard

        count = 0
        with zstandard.open(directory / _KEPT, "wb", cctx=zstandard.ZstdCompressor(level=_LEVEL)) as file:
            for document in documents:
                line = {"id": document.id, "text": document.text, "metadata": document.metadata}
                file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
                count += 1
        return {"documents": count}


class ReadDocuments(PipelineStep):
    """Yields what `KeepDocuments` kept of a task.

    Args:
        directory: of the stage.
    """

    type = "reader"
    name = "read kept"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The documents of task `rank`."""
        import zstandard

        with zstandard.open(self._directory / f"{rank:05d}.jsonl.zst", "rb") as file:
            for line in io.BufferedReader(file, 1 << 20):
                self.stat_update("total")
                yield Document(**json.loads(line))


def read_corpus(
    directory: Path,
    work: Path,
    name: str,
    corpus: CorpusConfig,
    decontamination: DecontaminationSettings,
    tasks: list[ReadTask],
    engine: Engine,
) -> Facts:
    """Read and clean the documents of a corpus.

    Args:
        directory: where the stage goes.
        work: where tasks keep what they made; the next call goes on from there.
        name: of the corpus.
        corpus: its settings.
        decontamination: which evaluation sets its documents must not overlap.
        tasks: its raw files.
        engine: runs the pipeline.

    Returns:
        `tasks` (their number), `steps` (what each step counted), `passed` (names of the steps that a document
        has passed) and `read` (`DocumentStatistics` of the texts as the reader gave them).

    Raises:
        UserError: a file is damaged.
    """
    keep = KeepDocuments(work / "kept", [task.digest for task in tasks])
    forget_samples(work / "dropped", keep)
    contaminated = work / "contaminated"
    sample = DroppedSample(str(work / "dropped"), "decontamination", corpus.filters.dropped_sample)
    decontaminate = decontamination_steps(decontamination, str(contaminated), sample)
    cleaning = [*cleaning_steps(corpus, work / "dropped"), *decontaminate]
    fields = Fields(corpus.text_field, corpus.score_field)
    read = ReadFiles(corpus.reader, [task.files for task in tasks], fields)
    as_read = ObserveDocuments(work / "observed")
    kept = engine.run(f"{name} reading", [read, as_read, *cleaning, keep])
    for number, task in enumerate(kept.tasks):
        (task.directory / _KEPT).rename(directory / f"{number:05d}.jsonl.zst")
    write_samples(directory / DROPPED, merge_samples(work / "dropped", corpus.filters.dropped_sample))
    _write_contaminated(directory, [contaminated / f"{number:05d}.jsonl" for number in range(len(tasks))])
    return {
        "tasks": len(tasks),
        "steps": [asdict(step) for step in kept.steps[:-1]],
        "passed": [step.name for step in cleaning],
        "read": as_read.gathered(len(tasks))[0].as_json(),
    }


def dropped_by_rule(steps: Iterable[Facts]) -> dict[str, int]:
    """How many documents each rule of any step has dropped."""
    dropped: Counter[str] = Counter()
    for step in steps:
        dropped.update(step["dropped"])
    return dict(sorted(dropped.items()))


def write_samples(path: Path, samples: dict[str, list[dict[str, Any]]]) -> None:
    """A file of JSON lines, for people to read: some of what each rule dropped, or of what was kept."""
    if any(samples.values()):
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for records in samples.values() for record in records]
        path.write_text("".join(lines), encoding="utf-8")


def forget_samples(dropped: Path, keep: Output) -> None:
    """Remove the samples of tasks that will be run again: they may drop something else this time."""
    for path in dropped.glob("*.jsonl"):
        task = int(path.name.partition("-")[0])
        if task >= len(keep.digests) or unsound(task_directory(keep.directory, task), keep.digests[task]) is not None:
            path.unlink()


def _write_contaminated(directory: Path, reports: list[Path]) -> None:
    """`contaminated.jsonl`: the reports of the tasks, one after another; none where none was asked for."""
    found = "".join(report.read_text(encoding="utf-8") for report in reports if report.exists())
    if found:
        (directory / CONTAMINATED).write_text(found, encoding="utf-8")
