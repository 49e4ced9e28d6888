"""Raw files to token shards: `configs/prepare.yaml`."""

from dataclasses import dataclass, field

from framework.checks import require, require_choice, require_not_negative, require_positive
from framework.corpus.decontamination.settings import DecontaminationSettings
from framework.corpus.deduplication.settings import DeduplicationSettings
from framework.corpus.filters.settings import FilterSettings


@dataclass
class CorpusConfig:
    """One corpus: raw files of one format."""

    reader: str = "jsonl"  # warc | mediawiki | book | jsonl | parquet | arrow
    paths: list[str] = field(default_factory=list)  # files, URLs (https://, s3://, gs://) or glob patterns of either
    weight: float = 1.0  # share of the training tokens; shares are normalised over all corpora
    source: str = ""  # where the files come from, for the manifest
    licence: str = ""
    language: str = "en"
    minimum_characters: int = 1  # shorter documents are dropped, after extraction
    text_field: str = "text"  # jsonl, parquet, arrow: the field or column with the text
    score_field: str = "score"  # and the one with what readers thought of it
    minimum_score: float | None = None  # documents with a lower score, or none, are dropped
    filters: FilterSettings = field(default_factory=FilterSettings)  # by name, and their thresholds
    deduplicate_paragraphs: bool = False  # take out paragraphs that came before, in any corpus that asks for it

    def check(self, name: str) -> None:
        prefix = f"corpora.{name}"
        require_choice(f"{prefix}.reader", self.reader, ("warc", "mediawiki", "book", "jsonl", "parquet", "arrow"))
        require(bool(self.paths), f"{prefix}.paths", "names no file", "give files or glob patterns")
        require_positive(f"{prefix}.weight", self.weight)
        self.filters.check(f"{prefix}.filters")


@dataclass
class TokenizerConfig:
    algorithm: str = "bpe"  # bpe (Sennrich et al. 2016, arXiv:1508.07909) | unigram (Kudo 2018, arXiv:1804.10959)
    vocabulary_size: int = 4096  # ids, the reserved ones and the 256 bytes included
    # Text the tokenizer is trained on, at most; the corpora share it by their weights. Of memory, training takes 11 to
    # 19 bytes for each with bpe, 21 to 25 with unigram, and 93 and 60 where hardly a word comes twice: 100 MB of the
    # worst text that was measured stay below 10 GB (benchmarks/tokenizer.py).
    sample_bytes: int = 100_000_000
    seed: int = 0  # which documents are in that sample
    # A tokenizer to take instead, as data for a model that there is: a model directory, its tokenizer.json, or a
    # tokenizer.model of Loam's. Empty: train one
    path: str = ""

    def check(self) -> None:
        require_choice("tokenizer.algorithm", self.algorithm, ("bpe", "unigram"))
        require(
            self.vocabulary_size >= 512,
            "tokenizer.vocabulary_size",
            f"is {self.vocabulary_size}",
            "256 bytes and the reserved ids need at least 512",
        )
        require(
            0 < self.sample_bytes < 1 << 31,
            "tokenizer.sample_bytes",
            f"is {self.sample_bytes:,}",
            "SentencePiece counts in 32 bits: give 1 to 2,147,483,647",
        )


@dataclass
class ShardConfig:
    bytes_per_shard: int = 256_000_000  # a shard is closed once it is at least this large
    block_tokens: int = 1_048_576  # tokens in a block, at most
    minimum_blocks: int = 256  # a small corpus gets smaller blocks, so that there are this many

    def check(self) -> None:
        for name in ("bytes_per_shard", "block_tokens", "minimum_blocks"):
            require_positive(f"shards.{name}", getattr(self, name))


@dataclass
class ExecutorConfig:
    """Where `prepare` works. What it makes does not depend on this, with one exception: `tasks`."""

    name: str = "local"  # local | slurm | ray
    workers: int = 0  # tasks at a time; 0: as many as there are cores, or as the cluster grants
    # A corpus is read in this many tasks, each of which resumes alone; it names the text shards, and changes no
    # token. 0: a task for every 64 MiB of raw files, a larger file in a task of its own
    tasks: int = 0
    cpus_per_task: int = 1  # slurm, ray: asked for
    memory_gigabytes: float = 4.0  # slurm, ray: asked for, for each task
    slurm_partition: str = ""
    slurm_time: str = "12:00:00"  # limit of each task, in Slurm's notation
    ray_address: str = ""  # of a running cluster, e.g. ray://head:10001 or auto; empty: start one on this machine

    def check(self) -> None:
        require_choice("executor.name", self.name, ("local", "slurm", "ray"))
        for name in ("workers", "tasks"):
            require_not_negative(f"executor.{name}", getattr(self, name))
        require(self.tasks < 100_000, "executor.tasks", f"is {self.tasks}", "there can be 99,999 at most")
        for name in ("cpus_per_task", "memory_gigabytes"):
            require_positive(f"executor.{name}", getattr(self, name))
        require(
            self.name != "slurm" or bool(self.slurm_partition),
            "executor.slurm_partition",
            "is missing",
            "name one that `sinfo` lists",
        )


@dataclass
class PrepareConfig:
    """`python -m framework.prepare`: raw files to text shards, tokenizer and token shards."""

    output: str = "data/samples"  # directory for documents/, duplicates/, text/, tokenizer/ and tokens/
    corpora: dict[str, CorpusConfig] = field(default_factory=dict)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    shards: ShardConfig = field(default_factory=ShardConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    deduplication: DeduplicationSettings = field(default_factory=DeduplicationSettings)
    decontamination: DecontaminationSettings = field(default_factory=DecontaminationSettings)
    validation_fraction: float = 0.02  # of the documents, chosen by a hash of their text

    def check(self, world_size: int = 1) -> None:
        require(world_size == 1, "torchrun", f"started {world_size} processes", "prepare runs as one")
        require(bool(self.output), "output", "is empty", "name a directory")
        require("://" not in self.output, "output", f"{self.output} is a URL", "name a directory, and upload it later")
        require(bool(self.corpora), "corpora", "there is none", "choose some, e.g. corpus=[sample_web]")
        for name, corpus in self.corpora.items():
            require(name.isidentifier(), f"corpora.{name}", "is no plain name", "use letters, digits and _")
            corpus.check(name)
        self.tokenizer.check()
        self.shards.check()
        self.executor.check()
        self.deduplication.check("deduplication")
        self.decontamination.check("decontamination")
        require(
            0 < self.validation_fraction < 0.5,
            "validation_fraction",
            f"is {self.validation_fraction}",
            "it must lie between 0 and 0.5",
        )
