"""Model directory to text: `configs/generate.yaml`."""

from dataclasses import dataclass, field

from framework.checks import require, require_not_negative, require_positive


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
