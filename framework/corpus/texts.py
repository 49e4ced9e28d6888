"""Third stage: the documents of one corpus, less their copies, to text shards.

text/NAME/SPLIT-TASK-PART.tar   documents and what is said about them
text/NAME/dropped.jsonl         some of the copies that were dropped
"""

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from framework.config import CorpusConfig
from framework.corpus.baselines import Baselines
from framework.corpus.cleaning import is_held_out
from framework.corpus.engine import Engine, Outcome, Output
from framework.corpus.filters.sample import DROPPED, KEPT, merge_samples
from framework.corpus.reading import ReadDocuments, dropped_by_rule, forget_samples, write_samples
from framework.corpus.report.observe import ObserveDocuments
from framework.corpus.shards import ShardWriter, encode_text, read_texts
from framework.corpus.stages import Facts, Stage
from framework.errors import UserError

SPLITS = ("train", "validation")
KEPT_SAMPLE = 10  # documents of `kept.jsonl`


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
    documents: Stage,
    digests: list[str],
    drop: list[PipelineStep],
    validation_fraction: float,
    bytes_per_shard: int,
    engine: Engine,
) -> Facts:
    """Split the documents of a corpus and write them into `SPLIT-TASK-*.tar`.

    Args:
        directory: where the shards go.
        work: where tasks keep what they made; the next call goes on from there.
        name: of the corpus.
        corpus: its settings.
        documents: what was read.
        digests: for each task, the digest of everything that its shards follow from.
        drop: steps that take copies out; their samples go to `work / "dropped"`.
        validation_fraction: share of the documents that is held out.
        bytes_per_shard: a shard is closed once it is at least this large.
        engine: runs the pipeline.

    Returns:
        `documents_in`, `dropped` (documents by rule), `steps` (what each step counted, from the raw files on), `kept`
        (`DocumentStatistics` of the texts as they are in the shards), and per split `documents` and `bytes` of text;
        the validation split also has `gzip_bytes` and `xz_bytes`.

    Raises:
        UserError: no document is left for one of the splits.
    """
    passed = [*documents.facts["passed"], *(step.name for step in drop)]
    write = WriteShards(work / "shards", digests, corpus, validation_fraction, bytes_per_shard, passed)
    forget_samples(work / "dropped", write)
    as_kept = ObserveDocuments(work / "observed", KEPT_SAMPLE)
    written = engine.run(f"{name} writing", [ReadDocuments(documents.directory), *drop, as_kept, write])
    facts = _facts(documents, written)
    _require_documents(name, facts)
    for number, task in enumerate(written.tasks):
        for path in sorted(task.directory.glob("*.tar")):
            split, part = path.stem.split("-")
            path.rename(directory / f"{split}-{number:05d}-{part}.tar")
    write_samples(directory / DROPPED, merge_samples(work / "dropped", corpus.filters.dropped_sample))
    facts["validation"] |= _baselines(directory)
    left, examples = as_kept.gathered(len(digests))
    write_samples(directory / KEPT, {"kept": examples})
    return facts | {"kept": left.as_json()}


def _facts(documents: Stage, written: Outcome) -> Facts:
    steps = [*documents.facts["steps"], *map(asdict, written.steps[1:-1])]
    facts: Facts = {
        split: {what: sum(task.facts[split][what] for task in written.tasks) for what in ("documents", "bytes")}
        for split in SPLITS
    }
    return facts | {"documents_in": steps[0]["documents"], "dropped": dropped_by_rule(steps), "steps": steps}


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
