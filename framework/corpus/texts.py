"""First stage: the raw files of one corpus to text shards."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from framework.config import CorpusConfig
from framework.corpus.baselines import Baselines
from framework.corpus.cleaning import RULES, Cleaner, is_held_out
from framework.corpus.documents import Document
from framework.corpus.readers import read_documents
from framework.corpus.shards import ShardWriter, encode_text
from framework.corpus.stages import Facts
from framework.errors import UserError

SPLITS = ("train", "validation")


@dataclass
class _Tally:
    documents_in: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)  # kept, by split
    bytes: Counter[str] = field(default_factory=Counter)  # of UTF-8 text, by split


def write_text_shards(
    directory: Path,
    name: str,
    corpus: CorpusConfig,
    files: list[Path],
    validation_fraction: float,
    bytes_per_shard: int,
    advance: Callable[[], None],
) -> Facts:
    """Read, clean and split the documents of a corpus into `train-*.tar` and `validation-*.tar`.

    Args:
        directory: where the shards go.
        name: of the corpus.
        corpus: its settings.
        files: its raw files, in the order in which they are read.
        validation_fraction: share of the documents that is held out.
        bytes_per_shard: a shard is closed once it is at least this large.
        advance: called after each document.

    Returns:
        `documents_in`, `dropped` (documents by rule), and per split `documents` and `bytes` of text;
        the validation split also has `gzip_bytes` and `xz_bytes`.

    Raises:
        UserError: a file is damaged, or no document is left for one of the splits.
    """
    tally, cleaner, baselines = _Tally(), Cleaner(corpus), Baselines()
    with (
        ShardWriter(directory, "train", bytes_per_shard) as train,
        ShardWriter(directory, "validation", bytes_per_shard) as validation,
    ):
        writers = {"train": train, "validation": validation}
        for path in files:
            for document in read_documents(corpus.reader, path):
                tally.documents_in += 1
                advance()
                if rule := cleaner.clean(document):
                    tally.dropped[rule] += 1
                    continue
                split = SPLITS[is_held_out(document.text, validation_fraction)]
                members = encode_text(document.text, _description(document, corpus, path))
                writers[split].write(f"{tally.documents[split]:09d}", members)
                tally.documents[split] += 1
                tally.bytes[split] += len(members["txt"])
                if split == "validation":
                    baselines.add(members["txt"])
    _require_documents(name, tally)
    facts: Facts = {split: {"documents": tally.documents[split], "bytes": tally.bytes[split]} for split in writers}
    facts["validation"] |= baselines.finish()
    return facts | {"documents_in": tally.documents_in, "dropped": dict(sorted(tally.dropped.items()))}


def _description(document: Document, corpus: CorpusConfig, path: Path) -> dict[str, object]:
    """What is kept about a document beside its text."""
    return {
        "id": document.id,
        "file": path.name,
        "source": corpus.source,
        "title": document.title,
        "url": document.url,
        "score": document.score,
        "language": corpus.language,
        "licence": corpus.licence,
        "passed": list(RULES),
    }


def _require_documents(name: str, tally: _Tally) -> None:
    dropped = ", ".join(f"{count:,} by {rule}" for rule, count in sorted(tally.dropped.items()))
    if not tally.documents:
        raise UserError(
            f"corpora.{name}: all of its {tally.documents_in:,} documents were dropped ({dropped}); "
            f"check reader, minimum_characters and minimum_score"
        )
    kept = sum(tally.documents.values())
    for split, remedy in (("train", "lower"), ("validation", "raise")):
        if not tally.documents[split]:
            raise UserError(
                f"corpora.{name}: none of its {kept:,} documents fell into the {split} split; "
                f"{remedy} validation_fraction or add documents"
            )
