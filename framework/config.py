"""Every configuration field there is, once, with its default and its unit.

`configs/` holds only what differs from here. Types are checked while Hydra composes; what one field
demands of another is checked by the `check` methods, whose messages start with the field's name.
"""

import math
import re
from dataclasses import dataclass, field

from framework.corpus.filters.settings import FilterSettings
from framework.errors import UserError


def require(condition: bool, field_name: str, problem: str, remedy: str) -> None:
    """Raise `UserError` naming the field, the problem and the remedy unless `condition` holds."""
    if not condition:
        raise UserError(f"{field_name}: {problem}; {remedy}")


def require_choice(field_name: str, value: str, choices: tuple[str, ...]) -> None:
    require(value in choices, field_name, f"unknown value {value!r}", f"choose {' | '.join(choices)}")


def require_positive(field_name: str, value: float) -> None:
    require(0 < value < math.inf, field_name, f"is {value}", "it must be a number greater than 0")


def require_not_negative(field_name: str, value: float) -> None:
    require(0 <= value < math.inf, field_name, f"is {value}", "it must not be negative")


# ---------------------------------------------------------------------------------------- corpora


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

    def check(self, name: str) -> None:
        prefix = f"corpora.{name}"
        require_choice(f"{prefix}.reader", self.reader, ("warc", "mediawiki", "book", "jsonl", "parquet", "arrow"))
        require(bool(self.paths), f"{prefix}.paths", "names no file", "give files or glob patterns")
        require_positive(f"{prefix}.weight", self.weight)
        self.filters.check(f"{prefix}.filters")


@dataclass
class TokenizerConfig:
    vocabulary_size: int = 4096  # ids, the reserved ones and the 256 bytes included
    sample_bytes: int = 100_000_000  # text the tokenizer is trained on, at most
    seed: int = 0  # which documents are in that sample

    def check(self) -> None:
        require(
            self.vocabulary_size >= 512,
            "tokenizer.vocabulary_size",
            f"is {self.vocabulary_size}",
            "256 bytes and the reserved ids need at least 512",
        )
        require_positive("tokenizer.sample_bytes", self.sample_bytes)


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

    output: str = "data/samples"  # directory for text/, tokenizer/ and tokens/
    corpora: dict[str, CorpusConfig] = field(default_factory=dict)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    shards: ShardConfig = field(default_factory=ShardConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    validation_fraction: float = 0.02  # of the documents, chosen by a hash of their text

    def check(self, world_size: int = 1) -> None:
        require(world_size == 1, "torchrun", f"started {world_size} processes", "prepare runs as one")
        require(bool(self.corpora), "corpora", "there is none", "choose some, e.g. corpus=[sample_web]")
        for name, corpus in self.corpora.items():
            require(name.isidentifier(), f"corpora.{name}", "is no plain name", "use letters, digits and _")
            corpus.check(name)
        self.tokenizer.check()
        self.shards.check()
        self.executor.check()
        require(
            0 < self.validation_fraction < 0.5,
            "validation_fraction",
            f"is {self.validation_fraction}",
            "it must lie between 0 and 0.5",
        )


# ------------------------------------------------------------------------------------------ model


@dataclass
class ModelConfig:
    """Shape of a decoder. GPT-2, Llama, Mistral and Qwen3 are settings of these fields."""

    vocabulary_size: int = 0  # 0: that of the data's tokenizer
    hidden_size: int = 256
    layers: int = 6
    heads: int = 8
    key_value_heads: int = 0  # 0: as many as heads; fewer: grouped-query attention
    head_size: int = 0  # 0: hidden_size / heads
    intermediate_size: int = 0  # 0: 4 x hidden_size for gelu, 8/3 x hidden_size (to a multiple of 32) for swiglu
    norm: str = "rmsnorm"  # rmsnorm | layernorm
    norm_epsilon: float = 1e-5
    activation: str = "swiglu"  # swiglu | gelu (tanh approximation)
    position: str = "rotary"  # rotary | learned
    maximum_positions: int = 2048  # longest sequence the model is made for
    rope_theta: float = 10_000.0
    rope_scaling: dict[str, float] | None = None  # Llama 3.1: factor, low_freq_factor, ...; None: plain rotary
    qk_norm: bool = False  # RMSNorm on each query and key head (Qwen3)
    attention_bias: bool = False  # on query, key and value projections
    attention_output_bias: bool = False
    mlp_bias: bool = False
    tied_embeddings: bool = True
    sliding_window: int = 0  # keys a query sees, itself included; 0: all
    initializer_range: float = 0.02  # standard deviation; residual projections divide it by sqrt(2 x layers)

    def __post_init__(self) -> None:
        if self.key_value_heads == 0:
            self.key_value_heads = self.heads
        if self.head_size == 0 and self.heads > 0:
            self.head_size = self.hidden_size // self.heads
        if self.intermediate_size == 0:
            exact = 4 * self.hidden_size if self.activation == "gelu" else 8 * self.hidden_size / 3
            self.intermediate_size = round(exact / 32) * 32 or 32

    def check(self) -> None:
        for name in ("hidden_size", "layers", "heads", "key_value_heads", "maximum_positions", "norm_epsilon"):
            require_positive(f"model.{name}", getattr(self, name))
        for name in ("vocabulary_size", "sliding_window", "initializer_range"):
            require_not_negative(f"model.{name}", getattr(self, name))
        for name in ("head_size", "intermediate_size"):
            require_positive(f"model.{name}", getattr(self, name))
        require_choice("model.norm", self.norm, ("rmsnorm", "layernorm"))
        require_choice("model.activation", self.activation, ("swiglu", "gelu"))
        require_choice("model.position", self.position, ("rotary", "learned"))
        require(
            self.head_size * self.heads == self.hidden_size or self.hidden_size % self.heads == 0,
            "model.heads",
            f"{self.heads} heads do not divide model.hidden_size={self.hidden_size}",
            f"use one of {_divisors(self.hidden_size)}",
        )
        require(
            self.heads % self.key_value_heads == 0,
            "model.key_value_heads",
            f"{self.key_value_heads} do not divide model.heads={self.heads}",
            f"use one of {_divisors(self.heads)}",
        )
        require(
            self.position == "learned" or self.head_size % 2 == 0,
            "model.head_size",
            f"is {self.head_size}",
            "rotary positions turn pairs, so it must be even",
        )


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, min(number, 129)) if number % d == 0)


# --------------------------------------------------------------------------------------- training


@dataclass
class RemoteConfig:
    """Reading token shards from a URL; without meaning for a local path."""

    threads: int = 8  # range reads of one rank at a time
    batches_ahead: int = 2  # how far ahead of their use blocks are read
    memory_bytes: int = 2_000_000_000  # blocks that a rank holds, at most
    cache: str = ""  # directory on a local disk where blocks are kept; empty: none
    cache_bytes: int = 100_000_000_000  # size of that directory, at most
    attempts: int = 8  # how often a read is tried
    backoff_seconds: float = 0.5  # before the second attempt; doubled before each further one, 30 at most

    def check(self) -> None:
        for name in ("threads", "memory_bytes", "cache_bytes", "attempts"):
            require_positive(f"data.remote.{name}", getattr(self, name))
        for name in ("batches_ahead", "backoff_seconds"):
            require_not_negative(f"data.remote.{name}", getattr(self, name))


@dataclass
class DataConfig:
    path: str = "data/samples"  # what `prepare` wrote: a directory, or its URL (https://, s3://, gs://)
    sequence_length: int = 256  # tokens in a row
    length_changes: dict[int, int] = field(default_factory=dict)  # other lengths, each from a sequence number on
    weights: dict[str, float] = field(default_factory=dict)  # share of tokens by corpus; empty: as prepared
    lanes: int = 64  # token streams the order is dealt to; part of the order, so constant over a run
    seed: int = 0  # of the order
    allow_change: bool = False  # of weights, lanes, lengths or corpora in a resumed run: go on in a new order
    remote: RemoteConfig = field(default_factory=RemoteConfig)


@dataclass
class BatchConfig:
    sequences: int = 16  # global batch: sequences that one update sees
    changes: dict[int, int] = field(default_factory=dict)  # other batches, each from a sequence number on
    micro: int = 8  # sequences in one forward pass of one rank, at most
    # Gradient accumulation follows: sequences / (ranks x micro).

    def check(self, lanes: int, world_size: int) -> None:
        require_positive("batch.micro", self.micro)
        sizes = {"batch.sequences": self.sequences}
        sizes |= {f"batch.changes.{begin}": sequences for begin, sequences in self.changes.items()}
        for name, sequences in sizes.items():
            _check_batch(name, sequences, lanes, world_size)
        micro = self.micro_on(world_size)
        for sequences in sizes.values():
            share = sequences // world_size
            require(
                share % micro == 0,
                "batch.micro",
                f"{micro} does not divide the {share} sequences of a rank",
                f"use one of {_divisors(share)}",
            )

    def micro_on(self, world_size: int) -> int:
        """Sequences in one forward pass of one of `world_size` ranks."""
        return min(self.micro, min([self.sequences, *self.changes.values()]) // world_size)


def _check_batch(name: str, sequences: int, lanes: int, world_size: int) -> None:
    require_positive(name, sequences)
    require(
        sequences % lanes == 0 or lanes % sequences == 0,
        name,
        f"{sequences} is neither a multiple nor a divisor of data.lanes={lanes}",
        f"use {max(1, round(sequences / lanes)) * lanes}, or change data.lanes",
    )
    require(
        sequences % world_size == 0,
        name,
        f"{sequences} cannot be shared by {world_size} ranks",
        f"use a multiple of {world_size}",
    )


@dataclass
class OptimizerConfig:
    learning_rate: float = 1e-3  # peak
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1  # on matrices and embeddings; norms and biases have none
    gradient_clipping: float = 1.0  # global L2 norm; 0: none

    def check(self) -> None:
        for name in ("learning_rate", "epsilon"):
            require_positive(f"optimizer.{name}", getattr(self, name))
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", f"is {value}", "it must lie in [0, 1)")
        for name in ("weight_decay", "gradient_clipping"):
            require_not_negative(f"optimizer.{name}", getattr(self, name))


@dataclass
class ScheduleConfig:
    name: str = "cosine"  # cosine | warmup_stable_decay | constant
    steps: int = 400  # updates in the whole run
    warmup_steps: int = 20  # linear from 0
    decay_steps: int = 0  # warmup_stable_decay: length of the final linear decay
    minimum_ratio: float = 0.1  # learning rate at the end, as a share of the peak

    def check(self) -> None:
        require_choice("schedule.name", self.name, ("cosine", "warmup_stable_decay", "constant"))
        require_positive("schedule.steps", self.steps)
        for name in ("warmup_steps", "decay_steps"):
            require_not_negative(f"schedule.{name}", getattr(self, name))
        require(
            self.warmup_steps + self.decay_steps <= self.steps,
            "schedule.warmup_steps",
            f"warm-up ({self.warmup_steps}) and decay ({self.decay_steps}) exceed schedule.steps={self.steps}",
            "shorten them or lengthen the run",
        )
        require(
            0 <= self.minimum_ratio <= 1,
            "schedule.minimum_ratio",
            f"is {self.minimum_ratio}",
            "it must lie between 0 and 1",
        )


@dataclass
class ZeroConfig:
    """What DeepSpeed shards over the ranks (ZeRO, arXiv:1910.02054)."""

    stage: int = 2  # 0: nothing, 1: optimizer state, 2: and gradients, 3: and weights

    def check(self) -> None:
        require(self.stage in (0, 1, 2, 3), "zero.stage", f"is {self.stage}", "choose 0, 1, 2 or 3")


@dataclass
class PrecisionConfig:
    dtype: str = "fp32"  # fp32 | bf16 (with fp32 master weights and optimizer state)

    def check(self) -> None:
        require_choice("precision.dtype", self.dtype, ("fp32", "bf16"))


@dataclass
class TrackerConfig:
    name: str = "none"  # none | wandb
    project: str = "loam"
    mode: str = "auto"  # wandb: auto (online where there is a key, else offline) | online | offline

    def check(self) -> None:
        require_choice("tracker.name", self.name, ("none", "wandb"))
        require_choice("tracker.mode", self.mode, ("auto", "online", "offline"))


@dataclass
class ClusterConfig:
    name: str = "cpu"
    peak_tflops: float = 0.1  # dense peak of one GPU or CPU core in the training precision, 1e12 FLOP/s, for MFU
    source: str = ""  # where that figure is from

    def check(self) -> None:
        require_positive("cluster.peak_tflops", self.peak_tflops)


@dataclass
class CheckpointConfig:
    every: int = 100  # steps; the last step is always kept
    keep: int = 2  # newest ones kept
    keep_every: int = 0  # and those whose step is a multiple of this; 0: none

    def check(self) -> None:
        require_positive("checkpoint.every", self.every)
        require_positive("checkpoint.keep", self.keep)
        require_not_negative("checkpoint.keep_every", self.keep_every)


@dataclass
class ValidationConfig:
    every: int = 100  # steps between evaluations on the held-out split; the last step is always evaluated

    def check(self) -> None:
        require_positive("validation.every", self.every)


@dataclass
class RunConfig:
    name: str = "first"  # the run directory is directory/name
    directory: str = "runs"
    resume: str = "auto"  # auto: from the newest sound checkpoint if there is one | never: refuse an existing run
    seed: int = 0  # of the initial weights
    stop_after: int = 0  # stop with a checkpoint after this step; 0: run to schedule.steps
    log_every: int = 10  # steps between lines on the console; metrics.jsonl has every step

    def check(self) -> None:
        require_choice("run.resume", self.resume, ("auto", "never"))
        require_positive("run.log_every", self.log_every)
        require_not_negative("run.stop_after", self.stop_after)
        require(
            re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", self.name) is not None,
            "run.name",
            f"{self.name!r} is no directory name",
            "use letters, digits, '.', '_' and '-', the first a letter or digit",
        )


@dataclass
class PretrainConfig:
    """`torchrun -m framework.pretrain`: token shards to checkpoints and a model directory."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)

    def check(self, world_size: int = 1) -> None:
        require_positive("data.lanes", self.data.lanes)
        self.data.remote.check()
        parts = (self.run, self.model, self.optimizer, self.schedule, self.zero, self.precision)
        for part in (*parts, self.cluster, self.checkpoint, self.validation, self.tracker):
            part.check()
        self.batch.check(self.data.lanes, world_size)
        require(
            self.precision.dtype == "fp32" or self.zero.stage > 0,
            "precision.dtype",
            "bf16 with zero.stage=0 would accumulate gradients in bf16",
            "choose zero=stage1, which gives the same updates",
        )
        self._check_lengths()

    def _check_lengths(self) -> None:
        lengths = {"data.sequence_length": self.data.sequence_length}
        lengths |= {f"data.length_changes.{begin}": length for begin, length in self.data.length_changes.items()}
        for name, length in lengths.items():
            require_positive(name, length)
            require(
                length <= self.model.maximum_positions,
                name,
                f"{length} exceeds model.maximum_positions={self.model.maximum_positions}",
                "shorten the sequences or raise model.maximum_positions",
            )
        begin, sequences = 0, self.batch.sequences
        for edge in sorted({**self.batch.changes, **self.data.length_changes}):
            group = "batch.changes" if edge in self.batch.changes else "data.length_changes"
            require(
                edge > 0 and (edge - begin) % sequences == 0,
                f"{group}.{edge}",
                f"falls inside a batch of {sequences} sequences",
                f"use {begin + max(1, round((edge - begin) / sequences)) * sequences}",
            )
            begin, sequences = edge, self.batch.changes.get(edge, sequences)


# -------------------------------------------------------------------------------------- inference


@dataclass
class ModelSource:
    path: str = ""  # a model directory


@dataclass
class GenerateConfig:
    """`python -m framework.generate`: model directory and prompt to text."""

    model: ModelSource = field(default_factory=ModelSource)
    prompt: str = field(default="", metadata={"text": True})
    echo: bool = True  # print the prompt before its continuation
    maximum_tokens: int = 128
    temperature: float = 0.8  # 0: greedy
    top_k: int = 0  # 0: all
    top_p: float = 0.95  # 1: all
    seed: int = 0
    stop: list[str] = field(default_factory=list)  # generation ends before the first of these texts

    def check(self, world_size: int = 1) -> None:
        require(world_size == 1, "torchrun", f"started {world_size} processes", "generate runs as one")
        require(bool(self.model.path), "model.path", "is missing", "give a model directory, e.g. runs/demo/model")
        require_positive("maximum_tokens", self.maximum_tokens)
        require_not_negative("temperature", self.temperature)
        require_not_negative("top_k", self.top_k)
        require(0 < self.top_p <= 1, "top_p", f"is {self.top_p}", "it must lie in (0, 1]")
