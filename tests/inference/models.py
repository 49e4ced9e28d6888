"""Tokenizers and models of which a test knows what they say."""

import torch

from framework.config import ModelConfig
from framework.model.tokenizer import Tokenizer


class Spelled(Tokenizer):
    """Token n is the n-th of the given pieces; token 0 begins and ends texts."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.begin, self.end, self.size = 0, frozenset({0}), len(pieces)

    @property
    def reserved(self) -> dict[str, int]:
        return {}

    def encode(self, text: str) -> list[int]:
        return [self.pieces.index(bytes([byte])) for byte in text.encode()]

    encode_whole = encode_controlled = encode_spelled = encode  # nobody asks here

    def piece(self, token: int) -> bytes:
        return self.pieces[token]


class Tokens(Spelled):
    """Every token is a letter and none ends a text."""

    def __init__(self, size: int) -> None:
        super().__init__(*[b"x"] * size)
        self.end = frozenset()


class Scripted(torch.nn.Module):
    """A model that says the given tokens, whatever it reads; it remembers what that was."""

    def __init__(self, tokens: list[int], vocabulary_size: int) -> None:
        super().__init__()
        self.config = ModelConfig(vocabulary_size=vocabulary_size, hidden_size=8, heads=1, layers=1)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.script = list(tokens)
        self.read: list[int] = []

    def forward(self, tokens, document=None, cache=None, last_only=False):
        self.read += tokens[0].tolist()
        return torch.nn.functional.one_hot(torch.tensor([[self.script.pop(0)]]), self.config.vocabulary_size).float()
