"""What a model directory takes on disk and in memory, how fast it writes, and how well it predicts."""

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from framework.config import CompressConfig
from framework.evaluation.models import open_subject
from framework.evaluation.perplexity import Perplexity
from framework.inference.classification import TextClassifier
from framework.inference.generation import load_any
from framework.model.cache import KeyValueCache
from framework.model.huggingface import classes_of
from framework.model.transformer import Transformer
from framework.model.verifying import probe
from framework.model.weights import weight_files

_ROUNDS = 5


@dataclass(frozen=True)
class Speed:
    """Tokens a second in the median round, and in the slowest and the fastest."""

    median: float
    slowest: float
    fastest: float


@dataclass
class Measured:
    """A model directory in numbers.

    Attributes:
        disk: bytes of the weights' files.
        memory: bytes of the weights as they are held for computing.
        zeros: share of the numbers in the blocks' matrices.
        speed: of tokens that are written one after another by one row; None where the model writes none.
        bits_per_byte: of held-out text, by corpus.
    """

    disk: int
    memory: int
    zeros: float
    speed: Speed | None = None
    bits_per_byte: dict[str, float] = field(default_factory=dict)


def measure(directory: Path, asked: Perplexity | None, config: CompressConfig) -> Measured:
    """Look at a directory. Raises UserError where it cannot be read, or cannot predict the held-out text."""
    disk = sum(file.stat().st_size for file in weight_files(directory))
    classifies = classes_of(directory) is not None
    model = TextClassifier(directory).model if classifies else load_any(directory)[0]
    found = Measured(disk, _memory(model), _zeros(model))
    if model.config.causal and config.speed_tokens and not classifies:
        found.speed = _speed(model, config.speed_tokens)
    if asked is not None:
        subject = open_subject(str(directory), directory.name, config.batch_tokens)
        rows = asked(subject).rows
        found.bits_per_byte = {row.name: row.value for row in rows if row.name.endswith("bits_per_byte")}
    return found


def _memory(model: Transformer) -> int:
    return sum(part.nbytes for parameter in model.parameters() for part in _parts(parameter))


def _parts(parameter: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that a tensor of torchao's is made of, or the tensor itself."""
    if not hasattr(parameter, "__tensor_flatten__"):
        return [parameter]
    return [getattr(parameter, name) for name in parameter.__tensor_flatten__()[0]]


def _zeros(model: Transformer) -> float:
    """Of all matrices of the blocks."""
    zeros = count = 0
    for block in model.blocks:
        for parameter in block.parameters():
            if parameter.dim() == 2:
                whole = parameter.dequantize() if hasattr(parameter, "__tensor_flatten__") else parameter
                zeros, count = zeros + int((whole == 0).sum()), count + whole.numel()
    return zeros / count


@torch.inference_mode()
def _speed(model: Transformer, tokens: int) -> Speed:
    """Of one row that grows, after a prompt that is read beforehand."""
    prompt = probe(model.config)[:1, : model.config.maximum_positions - tokens]
    weight = model.norm.weight
    assert isinstance(weight, torch.Tensor)
    rates = []
    for _ in range(_ROUNDS):
        capacity = prompt.shape[1] + tokens
        cache = KeyValueCache(model.config, 1, capacity, dtype=weight.dtype, device=weight.device)
        last = model(prompt.to(weight.device), cache=cache, last_only=True).argmax(-1)
        began = time.perf_counter()
        for _ in range(tokens):
            last = model(last, cache=cache, last_only=True).argmax(-1)
        last.tolist()  # waits for a GPU
        rates.append(tokens / (time.perf_counter() - began))
    return Speed(statistics.median(rates), min(rates), max(rates))
