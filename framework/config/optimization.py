"""What an update does: loss, optimizer, learning rate by step, average of the weights."""

from dataclasses import dataclass, field

from framework.checks import require, require_choice, require_not_negative, require_positive

OPTIMIZERS = ("adamw", "muon", "lion")
SCHEDULES = ("cosine", "warmup_stable_decay", "inverse_square_root", "constant")


@dataclass
class LossConfig:
    """What is minimised; `train/loss` stays the plain negative log likelihood, whatever is set here."""

    z_loss: float = 0.0  # factor on the mean squared log of the softmax's denominator (PaLM has 1e-4); 0: none
    label_smoothing: float = 0.0  # share of each label's probability that is spread over the vocabulary; 0: none
    chunk_tokens: int = 0  # tokens of a micro-batch whose logits stand in memory at a time; 0: 256 MiB in fp32

    def check(self) -> None:
        require_not_negative("loss.z_loss", self.z_loss)
        require_not_negative("loss.chunk_tokens", self.chunk_tokens)
        require(
            0 <= self.label_smoothing < 1,
            "loss.label_smoothing",
            f"is {self.label_smoothing}",
            "it must lie in [0, 1)",
        )


@dataclass
class OptimizerConfig:
    name: str = "adamw"  # adamw | muon (hidden matrices; AdamW for the rest) | lion
    learning_rate: float = 1e-3  # peak
    adamw_learning_rate: float = 0.0  # muon: peak of what AdamW trains; 0: learning_rate
    beta1: float = 0.9
    beta2: float = 0.95
    momentum: float = 0.95  # muon: of the hidden matrices
    epsilon: float = 1e-8  # adamw
    weight_decay: float = 0.1  # on matrices and embeddings; norms and biases have none
    no_decay: list[str] = field(default_factory=list)  # nor have parameters named so; * and ? as in file names
    gradient_clipping: float = 1.0  # global L2 norm; 0: none

    def check(self) -> None:
        require_choice("optimizer.name", self.name, OPTIMIZERS)
        for name in ("learning_rate", "epsilon"):
            require_positive(f"optimizer.{name}", getattr(self, name))
        for name in ("beta1", "beta2", "momentum"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", f"is {value}", "it must lie in [0, 1)")
        for name in ("weight_decay", "gradient_clipping", "adamw_learning_rate"):
            require_not_negative(f"optimizer.{name}", getattr(self, name))
        require(
            self.name == "muon" or self.adamw_learning_rate == 0,
            "optimizer.adamw_learning_rate",
            f"is {self.adamw_learning_rate}, which optimizer.name={self.name} does not use",
            "set optimizer.learning_rate, or choose optimizer=muon",
        )


@dataclass
class ScheduleConfig:
    name: str = "cosine"  # cosine | warmup_stable_decay | inverse_square_root | constant
    steps: int = 400  # updates in the whole run
    warmup_steps: int = 20  # linear from 0
    decay_steps: int = 0  # warmup_stable_decay, inverse_square_root: length of the final decay
    minimum_ratio: float = 0.1  # learning rate at the end of a decay, as a share of the peak
    decay_shape: str = "linear"  # of the final decay: linear | one_minus_sqrt (arXiv:2405.18392)

    def check(self) -> None:
        require_choice("schedule.name", self.name, SCHEDULES)
        require_choice("schedule.decay_shape", self.decay_shape, ("linear", "one_minus_sqrt"))
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
class EmaConfig:
    """Exponential moving average of the fp32 weights, kept beside them in the same shards."""

    decay: float = 0.0  # share of the average that an update of it keeps, in the long run; 0: no average
    every: int = 1  # steps between updates of the average
    hand_over: bool = False  # validate and hand over the average instead of the last weights

    def check(self, steps: int) -> None:
        require(0 <= self.decay < 1, "ema.decay", f"is {self.decay}", "it must lie in [0, 1); 0 keeps no average")
        require_positive("ema.every", self.every)
        require(
            self.decay > 0 or not self.hand_over,
            "ema.hand_over",
            "is true, but ema.decay=0 keeps no average",
            "set ema.decay, e.g. to 0.999",
        )
        require(
            self.decay == 0 or self.every <= steps,
            "ema.every",
            f"is {self.every}, more than schedule.steps={steps}, so that there would be no average",
            "lower it",
        )
