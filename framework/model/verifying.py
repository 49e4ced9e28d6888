"""Does a model directory give what the model gave? Logits of the same tokens, or of the same texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framework.config import ModelConfig
from framework.errors import UserError
from framework.model.classifier import Classifier, class_logits
from framework.model.integers import quiet_torchao
from framework.model.tokenizer import load_tokenizer
from framework.model.transformer import Transformer

TOLERANCE = 1e-4  # on logits and hidden states in fp32, relative to the largest one where that exceeds 1
_TEXTS = (
    "A text.",
    "Another text, which goes on for a little longer than the first one.",
    "Der dritte hat Umlaute wie ä, ö und ü, einen Zeilenumbruch\nund 1024 ist eine Zahl darin.",
    "Short",
)


def probe(config: ModelConfig) -> Tensor:
    """Two rows of random tokens, always the same."""
    length = min(64, config.maximum_positions)
    return torch.randint(config.vocabulary_size, (2, length), generator=torch.Generator().manual_seed(0))


def require_equal(how: str, found: Tensor, expected: Tensor, *, of: str = "model directory: {}, its logits") -> float:
    """The largest difference, which must be rounding.

    how: in which the numbers were `found`; of: what they are numbers of.
    """
    tolerance = TOLERANCE * max(1.0, expected.abs().max().item())
    difference = (found - expected).abs().max().item()
    if not difference <= tolerance:  # NaN is no agreement
        raise UserError(
            f"{of.format(how)} differ by {difference:.2g}, and at most "
            f"{tolerance:.2g} is rounding; it was not written, report this with its configuration"
        )
    return difference


@torch.no_grad()
def own_logits(model: Transformer, directory: Path) -> Tensor:
    """What a model says to the questions that `transformers_logits` asks: tokens, or texts of a classifier."""
    if isinstance(model, Classifier):
        return class_logits(model, load_tokenizer(directory).encode_whole(_questions(model.config, directory)))
    return model(probe(model.config))


@torch.no_grad()
def transformers_logits(directory: Path, config: ModelConfig, classifies: bool) -> Tensor:
    """What `transformers` makes of a directory: its tokenizer too, where it is asked of texts, all in one batch.

    Raises UserError for a text that becomes other ids there than here.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

    if not classifies:
        model = _load(AutoModelForCausalLM if config.causal else AutoModelForMaskedLM, directory)
        return model(probe(config)).logits
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    questions = _questions(config, directory)
    ids = load_tokenizer(directory).encode_whole(questions)
    for (text, _), own in zip(questions, ids, strict=True):
        if tokenizer(text)["input_ids"] != own:
            raise UserError(f"model.path: transformers' tokenizer reads {text!r} as other ids than it was trained with")
    batch = tokenizer([text for text, _ in questions], padding=True, return_tensors="pt")
    known = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return _load(AutoModelForSequenceClassification, directory)(**known).logits


def _questions(config: ModelConfig, directory: Path) -> list[tuple[str, None]]:
    """Texts of different lengths that the model can read."""
    encode: Callable[[list[Any]], list[list[int]]] = load_tokenizer(directory).encode_whole
    lengths = [len(ids) for ids in encode([(text, None) for text in _TEXTS])]
    return [(text, None) for text, length in zip(_TEXTS, lengths, strict=True) if length <= config.maximum_positions]


def _load(kind: Any, directory: Path) -> Any:
    quiet_torchao()  # which transformers imports where it is there
    from transformers.utils import logging

    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(directory, dtype=torch.float32).eval()
    finally:
        if shows_bars:
            logging.enable_progress_bar()
