"""Texts to the probabilities of their classes, with the classifier of a model directory."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from framework.errors import UserError
from framework.model.classifier import Classifier, class_logits
from framework.model.huggingface import assemble, classes_of, read_model_directory
from framework.model.tokenizer import load_tokenizer

BATCH = 32  # texts that share a forward pass


class TextClassifier:
    """A classifier and its tokenizer, on a GPU where there is one, in fp32.

    Raises UserError naming the file that is missing, damaged or not supported, and for a model that is none.

    Attributes:
        classes: what it tells apart.
        model: what judges.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        config, state, tokenizer = read_model_directory(path, classifiers=True)
        classes = classes_of(path)
        if classes is None:
            raise UserError(f"{path}: is no classifier; make one by python -m framework.finetune task=classification")
        self.classes = classes
        self._tokenizer = load_tokenizer(tokenizer)
        model = assemble(config, state, classes=classes)
        assert isinstance(model, Classifier)
        self.model = model.cuda() if torch.cuda.is_available() else model

    @property
    def positions(self) -> int:
        """Tokens that it reads of a text, at most."""
        return self.model.config.maximum_positions

    def probabilities(self, texts: Sequence[str | tuple[str, str]]) -> NDArray[np.float32]:
        """Of each class, [texts, classes]: those of a row sum to 1, unless a text may be of several classes.

        texts: or pairs of them that are judged together.

        Raises UserError for a text that is empty, or longer than the model reads, by its number from 0.
        """
        ids = self.encode(texts)
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))  # alike lengths share a batch
        found = np.empty((len(ids), len(self.classes.names)), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            found[part] = self.judge([ids[number] for number in part])
        return found

    def encode(self, texts: Sequence[str | tuple[str, str]]) -> list[list[int]]:
        """Ids of the texts, for `judge`. Raises UserError as `probabilities` does."""
        ids = self._tokenizer.encode_whole([(text, None) if isinstance(text, str) else text for text in texts])
        longest = self.positions
        for number, tokens in enumerate(ids):
            if not 0 < len(tokens) <= longest:
                raise UserError(f"text {number}: has {len(tokens)} tokens; the model reads 1 to {longest}")
        return ids

    def judge(self, texts: Sequence[list[int]]) -> NDArray[np.float32]:
        """The probabilities of texts as ids, in one pass."""
        return self.classes.probabilities(class_logits(self.model, texts)).cpu().numpy()


def classify(path: str | os.PathLike[str], texts: Sequence[str | tuple[str, str]]) -> NDArray[np.float32]:
    """Probabilities [texts, classes] by the classifier of a model directory; see `TextClassifier`."""
    return TextClassifier(path).probabilities(texts)
