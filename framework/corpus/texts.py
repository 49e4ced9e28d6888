"""First stage: the raw files of one corpus to text shards.

Two pipelines over the same tasks: one reads, cleans and keeps documents; the other, when all of them are
known and so the copies among them, writes shards.
"""

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datatrove.data import Document

from framework.config import CorpusConfig
from framework.corpus.baselines import Baselines
from framework.corpus.cleaning import is_held_out
from framework.corpus.decontamination import decontamination_steps
from framework.corpus.decontamination.settings import DecontaminationSettings
from framework.corpus.digests import json_digest
from framework.corpus.engine import Engine, Outcome, Output, task_directory
from framework.corpus.filters.sample import DroppedSample, merge_samples
from framework.corpus.readers.records import Fields
from framework.corpus.report.observe import ObserveDocuments
from framework.corpus.shards import ShardWriter, encode_text, read_texts
from framework.corpus.stages import Facts, unsound
from framework.corpus.steps import (
    DropDuplicates,
    KeepDocuments,
    ReadDocuments,
    ReadFiles,
    cleaning_steps,
    find_duplicates,
)
from framework.errors import UserError

SPLITS = ("train", "validation")
DROPPED, KEPT, CONTAMINATED = "dropped.jsonl", "kept.jsonl", "contaminated.jsonl"
KEPT_SAMPLE = 10  # documents of `kept.jsonl`
_TASK_BYTES = 64 << 20  # of raw files in one task, where no number of tasks is asked for


@dataclass(frozen=True)
class TextTask:
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


class WriteShards(Output):
    """Splits the documents of a task and writes `train-*.tar` and `validation-*.tar`.

    Args:
        directory, digests: see `Output`.
        corpus: settings of the corpus, for the description of each document.
        validation_fraction: share of the documents that is held out.
        bytes_per_shard: a shard is closed once it is at least this large.
        passed: names of the steps that each document has passed.
    """

    name = "write shards"

    def __init__(
        self,
        directory: Path,
        digests: list[str],
        corpus: CorpusConfig,
        validation_fraction: float,
        bytes_per_shard: int,
        passed: list[str],
    ) -> None:
        super().__init__(directory, digests)
        self._corpus, self._passed = corpus, passed
        self._validation_fraction, self._bytes_per_shard = validation_fraction, bytes_per_shard

    def write(self, documents: Iterable[Document], task: int, directory: Path) -> Facts:
        """The shards of a task; per split `documents` and `bytes` of text."""
        count: Counter[str] = Counter()
        size: Counter[str] = Counter()
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(ShardWriter(directory, split, self._bytes_per_shard)) for split in SPLITS
            }
            for document in documents:
                split = SPLITS[is_held_out(document.text, self._validation_fraction)]
                members = encode_text(document.text, self._description(document))
                writers[split].write(f"{task:05d}-{count[split]:09d}", members)
                count[split] += 1
                size[split] += len(members["txt"])
        return {split: {"documents": count[split], "bytes": size[split]} for split in SPLITS}

    def _description(self, document: Document) -> dict[str, object]:
        """What is kept about a document beside its text."""
        return {
            "language": self._corpus.language,  # unless a filter has found out
            **document.metadata,
            "id": document.id,
            "source": self._corpus.source,
            "licence": self._corpus.licence,
            "passed": self._passed,
        }


def write_text_shards(
    directory: Path,
    work: Path,
    name: str,
    corpus: CorpusConfig,
    decontamination: DecontaminationSettings,
    tasks: list[TextTask],
    validation_fraction: float,
    bytes_per_shard: int,
    engine: Engine,
) -> Facts:
    """Read, clean and split the documents of a corpus into `SPLIT-TASK-*.tar`.

    `dropped.jsonl` beside them holds some of what each rule of the filters dropped, `kept.jsonl` some of what was
    kept, `contaminated.jsonl` which documents shared what with which evaluation file.

    Args:
        directory: where the shards go.
        work: where tasks keep what they made; the next call goes on from there.
        name: of the corpus.
        corpus: its settings.
        decontamination: which evaluation sets its documents must not overlap.
        tasks: its raw files.
        validation_fraction: share of the documents that is held out.
        bytes_per_shard: a shard is closed once it is at least this large.
        engine: runs the pipelines.

    Returns:
        `documents_in`, `dropped` (documents by rule), `steps` (what each step counted), `read` and `kept`
        (`DocumentStatistics` of the texts as the reader gave them, and as they are in the shards), and per split
        `documents` and `bytes` of text; the validation split also has `gzip_bytes` and `xz_bytes`.

    Raises:
        UserError: a file is damaged, or no document is left for one of the splits.
    """
    keep = KeepDocuments(work / "kept", [task.digest for task in tasks])
    _forget_samples(work / "dropped", keep)
    contaminated = work / "contaminated"
    sample = DroppedSample(str(work / "dropped"), "decontamination", corpus.filters.dropped_sample)
    decontaminate = decontamination_steps(decontamination, str(contaminated), sample)
    cleaning = [*cleaning_steps(corpus, work / "dropped"), *decontaminate]
    fields = Fields(corpus.text_field, corpus.score_field)
    read = ReadFiles(corpus.reader, [task.files for task in tasks], fields)
    as_read = ObserveDocuments(work / "observed" / "read")
    kept = engine.run(f"{name} reading", [read, as_read, *cleaning, keep])
    duplicates = find_duplicates([task.directory for task in kept.tasks])
    digests = [
        json_digest([task.digest, dropped, validation_fraction, bytes_per_shard])
        for task, dropped in zip(kept.tasks, duplicates, strict=True)
    ]
    drop = DropDuplicates(duplicates)
    passed = [step.name for step in (*cleaning, drop)]
    write = WriteShards(work / "shards", digests, corpus, validation_fraction, bytes_per_shard, passed)
    as_kept = ObserveDocuments(work / "observed" / "kept", KEPT_SAMPLE)
    written = engine.run(f"{name} writing", [ReadDocuments(keep.directory), drop, as_kept, write])
    facts = _facts(kept, written)
    _require_documents(name, facts)
    for number, task in enumerate(written.tasks):
        for path in sorted(task.directory.glob("*.tar")):
            split, part = path.stem.split("-")
            path.rename(directory / f"{split}-{number:05d}-{part}.tar")
    by_rule = merge_samples(work / "dropped", corpus.filters.dropped_sample)
    _write_samples(directory / DROPPED, [record for records in by_rule.values() for record in records])
    _write_contaminated(directory, [contaminated / f"{number:05d}.jsonl" for number in range(len(tasks))])
    facts["validation"] |= _baselines(directory)
    (seen, _), (left, examples) = as_read.gathered(len(tasks)), as_kept.gathered(len(tasks))
    _write_samples(directory / KEPT, examples)
    facts |= {"read": seen.as_json(), "kept": left.as_json()}
    return facts


def _forget_samples(dropped: Path, keep: KeepDocuments) -> None:
    """Remove the samples of tasks that will be run again: they may drop something else this time."""
    for path in dropped.glob("*.jsonl"):
        task = int(path.name.partition("-")[0])
        if task >= len(keep.digests) or unsound(task_directory(keep.directory, task), keep.digests[task]) is not None:
            path.unlink()


def _write_samples(path: Path, records: list[dict[str, Any]]) -> None:
    """A file of JSON lines, for people to read: some of what each rule of a filter dropped, or of what was kept."""
    if records:
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def _write_contaminated(directory: Path, reports: list[Path]) -> None:
    """`contaminated.jsonl`: the reports of the tasks, one after another; none where none was asked for."""
    found = "".join(report.read_text(encoding="utf-8") for report in reports if report.exists())
    if found:
        (directory / CONTAMINATED).write_text(found, encoding="utf-8")


def _facts(kept: Outcome, written: Outcome) -> Facts:
    steps = [*kept.steps[:-1], *written.steps[1:-1]]  # without what the engine puts between and at the end
    dropped: Counter[str] = Counter()
    for step in steps:
        dropped.update(step.dropped)
    facts: Facts = {
        split: {what: sum(task.facts[split][what] for task in written.tasks) for what in ("documents", "bytes")}
        for split in SPLITS
    }
    return facts | {
        "documents_in": steps[0].documents,
        "dropped": dict(sorted(dropped.items())),
        "steps": [asdict(step) for step in steps],
    }


def _baselines(directory: Path) -> dict[str, int]:
    """What compressors make of the held-out text, which is one stream to them, whatever the tasks were."""
    baselines = Baselines()
    for path in sorted(directory.glob("validation-*.tar")):
        for text in read_texts(path):
            baselines.add(text.encode())
    return baselines.finish()


def _require_documents(name: str, facts: Facts) -> None:
    dropped = ", ".join(f"{count:,} by {rule}" for rule, count in facts["dropped"].items())
    kept = sum(facts[split]["documents"] for split in SPLITS)
    if not kept:
        raise UserError(
            f"corpora.{name}: all of its {facts['documents_in']:,} documents were dropped ({dropped}); "
            f"check reader, minimum_characters, minimum_score and filters"
        )
    for split, remedy in (("train", "lower"), ("validation", "raise")):
        if not facts[split]["documents"]:
            raise UserError(
                f"corpora.{name}: none of its {kept:,} documents fell into the {split} split; "
                f"{remedy} validation_fraction or add documents"
            )
