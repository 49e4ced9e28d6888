"""Which tokens are trained on, in which batches, and what of them is to be predicted."""

from dataclasses import dataclass, field

from framework.checks import divisors, require, require_choice, require_not_negative, require_positive


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
    tokens: float = 0.0  # to train on, in place of schedule.steps: as many steps as see them; 0: schedule.steps says
    sequence_length: int = 256  # tokens in a row
    length_changes: dict[int, int] = field(default_factory=dict)  # other lengths, each from a sequence number on
    weights: dict[str, float] = field(default_factory=dict)  # share of tokens by corpus; empty: as prepared
    lanes: int = 64  # token streams the order is dealt to; part of the order, so constant over a run
    seed: int = 0  # of the order
    allow_change: bool = False  # of weights, lanes, lengths, corpora or objective of a resumed run: a new order
    remote: RemoteConfig = field(default_factory=RemoteConfig)


_USED = {"causal_lm": (), "fill_in_middle": ("rate", "spm_rate"), "masked_lm": ("rate", "masked", "random")}


@dataclass
class ObjectiveConfig:
    """What training rows ask for; but for masked_lm, held-out rows are read left to right, so bits per byte compare."""

    name: str = "causal_lm"  # causal_lm | fill_in_middle | masked_lm
    rate: float = 0.0  # fill_in_middle: probability of a document to be rearranged; masked_lm: of a token to be asked
    spm_rate: float = 0.0  # fill_in_middle: probability of a document that is rearranged to have its suffix first
    masked: float = 0.0  # masked_lm: share of the tokens asked for that become <|mask|>
    random: float = 0.0  # masked_lm: share of them that become another token; the rest stay as they are

    def check(self) -> None:
        require_choice("objective.name", self.name, tuple(_USED))
        for name in ("rate", "spm_rate", "masked", "random"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"objective.{name}", f"is {value}", "it must lie between 0 and 1")
            require(
                name in _USED[self.name] or value == 0,
                f"objective.{name}",
                f"is {value}, which objective.name={self.name} does not use",
                "choose " + " or ".join(f"objective={other}" for other, used in _USED.items() if name in used),
            )
        require(
            self.name == "causal_lm" or self.rate > 0,
            "objective.rate",
            f"is 0, so that {self.name} would change nothing",
            "raise it, or choose objective=causal_lm",
        )
        require(
            self.name != "masked_lm" or 0 < self.masked + self.random <= 1,
            "objective.masked",
            f"and objective.random come to {self.masked + self.random}",
            "their sum is a share: greater than 0, and at most 1",
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
