"""Model directory to a smaller one: `configs/compress.yaml`."""

from dataclasses import dataclass, field

from framework.checks import require, require_choice, require_not_negative, require_positive
from framework.config.evaluate import PerplexityConfig
from framework.config.generate import ModelSource

QUANTIZATIONS = ("none", "int8", "int4", "int8_dynamic")
PATTERNS = ("none", "magnitude", "2:4")


@dataclass
class PruningConfig:
    """Weights of the blocks' matrices that become 0, those of least magnitude."""

    pattern: str = "none"  # none | magnitude: a share of each matrix | 2:4: of each four inputs of an output, two
    share: float | None = None  # of magnitude, and of that alone; null: a half

    def check(self) -> None:
        require_choice("pruning.pattern", self.pattern, PATTERNS)
        if self.share is not None:
            require(0 < self.share < 1, "pruning.share", f"is {self.share}", "it must lie in (0, 1)")
            told = f"is given, and pruning.pattern is {self.pattern}"
            require(
                self.pattern == "magnitude", "pruning.share", told, "choose pruning.pattern=magnitude, or leave it out"
            )


@dataclass
class QuantizationConfig:
    """The blocks' matrices as integers."""

    # none | int8 | int4: weights, of which activations are multiplied with what the integers stand for
    # | int8_dynamic: weights and, as they come, activations
    name: str = "none"
    # inputs of an output that share a scale, int4 only; 0: the largest of 128, 64, 32 and 16 that divides all inputs
    group: int = 0
    # int4 only: how scales are found. range: from the largest weight of a group | hqq: such that few weights are far
    # off (https://mobiusml.github.io/hqq_blog/)
    scales: str | None = None  # null: hqq

    def check(self) -> None:
        require_choice("quantization.name", self.name, QUANTIZATIONS)
        require_not_negative("quantization.group", self.group)
        if self.scales is not None:
            require_choice("quantization.scales", self.scales, ("range", "hqq"))
        for name in ("group", "scales"):
            told = f"is given, and quantization.name is {self.name}"
            given = bool(getattr(self, name))
            require(not given or self.name == "int4", f"quantization.{name}", told, "choose int4, or leave it out")


@dataclass
class CompressConfig:
    """`python -m framework.compress`: a model directory to a smaller one, and what that cost."""

    model: ModelSource = field(default_factory=ModelSource)
    output: str = ""  # the smaller model directory
    pruning: PruningConfig = field(default_factory=PruningConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    skip: list[str] = field(default_factory=list)  # matrices left as they are, by our names; * and ? as in file names
    perplexity: PerplexityConfig = field(default_factory=PerplexityConfig)  # held-out text, before and after
    batch_tokens: int = 8192  # tokens of a forward pass over held-out text
    speed_tokens: int = 64  # tokens written to measure speed, before and after; 0: none

    def check(self, world_size: int = 1) -> None:
        require(world_size == 1, "torchrun", f"started {world_size} processes", "compress runs as one")
        require(bool(self.model.path), "model.path", "is missing", "give a model directory, e.g. runs/demo/model")
        require(bool(self.output), "output", "is missing", "name the directory of the smaller model")
        for part in (self.pruning, self.quantization, self.perplexity):
            part.check()
        require(
            self.pruning.pattern != "none" or self.quantization.name != "none",
            "quantization.name",
            "is none, and so is pruning.pattern",
            "choose quantization.name=int8 | int4 | int8_dynamic, or pruning.pattern=magnitude | 2:4",
        )
        require_positive("batch_tokens", self.batch_tokens)
        require_not_negative("speed_tokens", self.speed_tokens)
