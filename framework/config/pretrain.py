"""Token shards to a model directory: `configs/pretrain.yaml`."""

import re
from dataclasses import dataclass, field

from framework.checks import divisors, require, require_choice, require_not_negative, require_positive
from framework.config.model import ModelConfig


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
    allow_change: bool = False  # of weights, lanes, lengths, corpora or objective of a resumed run: a new order
    remote: RemoteConfig = field(default_factory=RemoteConfig)


@dataclass
class ObjectiveConfig:
    """What training rows ask for; held-out rows are always read left to right, so that bits per byte compare."""

    name: str = "causal_lm"  # causal_lm | fill_in_middle
    rate: float = 0.0  # fill_in_middle: probability of a document to be rearranged
    spm_rate: float = 0.0  # fill_in_middle: probability of one of these to have its suffix first

    def check(self) -> None:
        require_choice("objective.name", self.name, ("causal_lm", "fill_in_middle"))
        for name in ("rate", "spm_rate"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"objective.{name}", f"is {value}", "it must lie between 0 and 1")
            require(
                self.name == "fill_in_middle" or value == 0,
                f"objective.{name}",
                f"is {value}, which objective.name={self.name} does not use",
                "choose objective=fill_in_middle",
            )
        require(
            self.name != "fill_in_middle" or self.rate > 0,
            "objective.rate",
            "is 0, so that no document would be rearranged",
            "raise it, or choose objective=causal_lm",
        )


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
                f"use one of {divisors(share)}",
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
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
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
        parts = (self.run, self.objective, self.model, self.optimizer, self.schedule, self.zero, self.precision)
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
