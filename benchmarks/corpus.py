"""How fast text is cleaned, deduplicated and tokenised, beside datatrove's own steps and SentencePiece alone.

    python -m benchmarks.corpus                  # the samples four times over, varied: about 45 MB

Printed are documents/s and MB/s of UTF-8 text. Loam and its peer do the same work on the same files with as many
processes as there are cores, or threads where the peer has those:

- clean: Parquet files through `prepare`'s reading, cleaning and the filters gopher_repetition, gopher_quality and
  c4; and through datatrove's ParquetReader and those filters of its own. Both split words by Unicode's rules, for
  what datatrove would take for English wants spaCy, and both write what is left with datatrove's ParquetWriter.
- deduplicate: exact and near duplicates (MinHash, 14 bands of 8 rows, 5-grams, 64 bits); and datatrove's four MinHash
  steps with the same parameters, which look for near duplicates only. It hashes n-grams as str, which xxhash 4 no
  longer takes; here they are encoded first.
- tokenise: text shards to token shards on disk; and one call of `SentencePieceProcessor.encode` on the texts in memory,
  with a thread for each core, which reads and writes nothing.

They take turns, so that whatever else the machine does falls on both; the best of the turns counts.
"""

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import xxhash
from datatrove.executor.local import LocalPipelineExecutor

from benchmarks.machine import machine
from framework.config import CorpusConfig, ExecutorConfig, ShardConfig, TokenizerConfig
from framework.corpus.cleaning import clean_text
from framework.corpus.console import Reporter
from framework.corpus.deduplication import Part, drop_documents, plan_documents
from framework.corpus.deduplication.minhash import minhash_config
from framework.corpus.deduplication.settings import DeduplicationSettings
from framework.corpus.engine import Engine
from framework.corpus.executors import available_cores
from framework.corpus.filters.settings import FilterSettings
from framework.corpus.filters.words import UnicodeWords
from framework.corpus.processes import ProcessExecutor
from framework.corpus.readers import read_documents
from framework.corpus.readers.records import Fields
from framework.corpus.shards import ShardWriter, encode_text
from framework.corpus.steps import ReadFiles, cleaning_steps
from framework.corpus.tokenizer import load_tokenizer, train_tokenizer
from framework.corpus.tokenizer_sample import Source
from framework.corpus.tokens import write_token_shards

SAMPLES = {
    "webtext": [("jsonl", "samples/webtext/jargon.jsonl.gz")],
    "wiki": [("mediawiki", "samples/wiki/foldoc.xml.bz2")],
    "books": [("book", str(path)) for path in sorted(Path("samples/books").glob("*.*"))],
    "web": [("warc", "samples/web/debian-handbook.warc.gz")],
}
DEDUPLICATION = DeduplicationSettings(near=True)
FILTERS = ["gopher_repetition", "gopher_quality", "c4"]


def sample_texts() -> Iterator[str]:
    """The cleaned documents of the samples."""
    for reader, location in (file for files in SAMPLES.values() for file in files):
        for document in read_documents(reader, location, Fields("text", "score")):
            text = "" if document.rejected else clean_text(document.text)
            if text:
                yield text


def varied(texts: list[str], copies: int) -> list[str]:
    """The texts, then copies of which a tenth is the same, a tenth nearly so, and the rest has its words shuffled."""
    chance = random.Random(0)
    found = list(texts)
    for text in (text for _ in range(copies - 1) for text in texts):
        words, kind = text.split(" "), chance.random()
        if kind > 0.2:
            chance.shuffle(words)
        elif kind > 0.1:
            words[chance.randrange(len(words))] = "another"
        found.append(" ".join(words).strip() or text)
    chance.shuffle(found)
    return found


class Work:
    """The same texts as Parquet and as text shards, a file of each for every core, and a tokenizer of them."""

    def __init__(self, folder: Path, texts: list[str], tokenizer: TokenizerConfig) -> None:
        self.folder, self.texts, self.cores = folder, texts, available_cores()
        self.documents, self.shards = folder / "documents", []
        self.documents.mkdir()
        for part in range(self.cores):
            mine = list(enumerate(texts))[part :: self.cores]
            columns = {"id": [str(number) for number, _ in mine], "text": [text for _, text in mine]}
            pyarrow.parquet.write_table(pyarrow.table(columns), self.documents / f"{part:05d}.parquet")
            with ShardWriter(folder, f"train-{part:05d}", 1 << 40) as writer:
                for number, text in mine:
                    writer.write(f"{number:09d}", encode_text(text, {"id": str(number)}))
            self.shards.append(writer.paths)
        self.tokenizer = folder / "tokenizer"
        self.tokenizer.mkdir()
        train_tokenizer(self.tokenizer, tokenizer, [Source(paths, 5_000_000) for paths in self.shards])
        self.processor = load_tokenizer(self.tokenizer)

    def execute(self, executor: type[LocalPipelineExecutor], steps: list[Any], tasks: int | None = None) -> None:
        """Run a pipeline on all cores."""
        log = tempfile.mkdtemp(dir=self.folder)
        executor(steps, tasks=tasks or self.cores, workers=self.cores, logging_dir=log).run()

    def fresh(self) -> Path:
        """A new folder."""
        return Path(tempfile.mkdtemp(dir=self.folder))


def clean_loam(work: Work) -> None:
    """Read, clean, filter."""
    from datatrove.pipeline.writers import ParquetWriter

    config = CorpusConfig(filters=FilterSettings(use=FILTERS))
    read = ReadFiles("parquet", [[str(path)] for path in sorted(work.documents.iterdir())], Fields("text", "score"))
    work.execute(ProcessExecutor, [read, *cleaning_steps(config), ParquetWriter(str(work.fresh()))])


def clean_datatrove(work: Work) -> None:
    """The same filters, as datatrove has them."""
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    words = UnicodeWords()
    filters = [kind(language=words) for kind in (GopherRepetitionFilter, GopherQualityFilter, C4QualityFilter)]
    work.execute(
        LocalPipelineExecutor, [ParquetReader(str(work.documents)), *filters, ParquetWriter(str(work.fresh()))]
    )


def deduplicate_loam(work: Work) -> None:
    """Exact and near duplicates."""
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    folder = work.fresh()
    plan = plan_documents(DEDUPLICATION, folder, [Part("all", work.cores)])
    work.execute(ProcessExecutor, [ParquetReader(str(work.documents)), *plan.sign["all"]])
    for stage in plan.decide:
        work.execute(ProcessExecutor, stage.steps, stage.tasks)
    drop, write = drop_documents(DEDUPLICATION, folder, 0), ParquetWriter(str(work.fresh()))
    work.execute(ProcessExecutor, [ParquetReader(str(work.documents)), *drop, write])


def hash_text(text: str) -> int:
    """What datatrove hashes n-grams with."""
    return xxhash.xxh64_intdigest(text.encode())


def deduplicate_datatrove(work: Work) -> None:
    """Near duplicates."""
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
    from datatrove.pipeline.dedup import MinhashDedupSignature as Signature
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    config = minhash_config(DEDUPLICATION)
    signatures, buckets, removed = (str(work.fresh()) for _ in range(3))
    signature = Signature(signatures, config, UnicodeWords())
    signature._hash_func = hash_text
    work.execute(LocalPipelineExecutor, [ParquetReader(str(work.documents)), signature])
    work.execute(LocalPipelineExecutor, [MinhashDedupBuckets(signatures, buckets, config=config)], DEDUPLICATION.bands)
    work.execute(LocalPipelineExecutor, [MinhashDedupCluster(buckets, removed, config=config)], 1)
    written = ParquetWriter(str(work.fresh()))
    work.execute(LocalPipelineExecutor, [ParquetReader(str(work.documents)), MinhashDedupFilter(removed), written])


def tokenise_loam(work: Work) -> None:
    """Text shards to token shards."""
    with Engine(ExecutorConfig(), Reporter()) as engine:
        model, settings = work.tokenizer, ShardConfig()
        write_token_shards(work.fresh(), work.fresh(), "all", "train", work.shards, model, settings, engine)


def tokenise_sentencepiece(work: Work) -> None:
    """Ids in memory."""
    work.processor.encode(work.texts, num_threads=work.cores)


STAGES: dict[str, tuple[Callable[[Work], None], str, Callable[[Work], None]]] = {
    "clean": (clean_loam, "datatrove", clean_datatrove),
    "deduplicate": (deduplicate_loam, "datatrove", deduplicate_datatrove),
    "tokenise": (tokenise_loam, "sentencepiece", tokenise_sentencepiece),
}


def seconds(job: Callable[[Work], None], work: Work) -> float:
    """How long a job takes."""
    started = time.perf_counter()
    job(work)
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=4, help="of the samples, which are 11 MB")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--algorithm", choices=("bpe", "unigram"), default="bpe", help="of the tokenizer")
    parser.add_argument("--vocabulary", type=int, default=16_384, help="size of the tokenizer's")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="loam-benchmark-"))
    tokenizer = TokenizerConfig(algorithm=arguments.algorithm, vocabulary_size=arguments.vocabulary)
    rows = []
    try:
        work = Work(folder, varied(list(sample_texts()), arguments.copies), tokenizer)
        size = sum(len(text.encode()) for text in work.texts)
        for stage in arguments.stages:
            loam, peer, other = STAGES[stage]
            turns = [(seconds(loam, work), seconds(other, work)) for _ in range(arguments.turns)]
            best = [min(times) for times in zip(*turns, strict=True)]
            for name, spent in zip(("loam", peer), best, strict=True):
                speed = f"{len(work.texts) / spent:9,.0f} documents/s {size / spent / 1e6:7.2f} MB/s"
                rows.append(f"{stage:<12} {name:<14} {speed}   loam is {spent / best[0]:5.2f}x of it")
    finally:
        shutil.rmtree(folder)
    print(machine("datatrove", "sentencepiece", "numpy"))
    print(f"{len(work.texts):,} documents, {size / 1e6:.0f} MB; {tokenizer.algorithm} of {tokenizer.vocabulary_size:,}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
