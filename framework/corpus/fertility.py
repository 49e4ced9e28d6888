"""How well a tokenizer fits a corpus."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fertility:
    """Means over the training split, without the `<|endoftext|>` that opens each document.

    Tokens a word is what Rust et al. 2021 (arXiv:2012.15613, section 4.1) call fertility; words are
    those of `encoding`.
    """

    tokens_per_word: float
    bytes_per_token: float


def measure_fertility(documents: int, size: int, tokens: int, words: int) -> Fertility:
    """Of `documents` with `size` bytes of text, which are `words` and `tokens`, an `<|endoftext|>` each included."""
    learned = tokens - documents
    return Fertility(learned / words, size / learned)
