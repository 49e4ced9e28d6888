"""What an update does: loss, optimizer, and learning rate by step."""

from dataclasses import dataclass

from framework.checks import require, require_choice, require_not_negative, require_positive


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
