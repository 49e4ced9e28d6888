"""Words and sentences by rules alone, for datatrove's filters: no model, no download."""

from collections.abc import Iterator

import regex
from datatrove.utils.word_tokenizers import WordTokenizer

_WORD_BOUNDARY = regex.compile(r"(?V1w)\b")  # "w": the default word boundaries of Unicode, not those of \w
# Terminal punctuation, quotes and brackets that close after it, then white space; or the end of a line.
# The full-width marks of Chinese and Japanese need no space after them.
# A single capital before a full stop is an initial ("J. Austen"), a small letter after it goes on.
_SENTENCE_END = regex.compile(
    r"(?:(?<!\b\p{Lu})\.|[!?…])[.!?…]*[\p{Pf}\p{Pe}\"']*(?=\s+[^\s\p{Ll}]|\s*$)|[\u3002\uff01\uff1f][\p{Pf}\p{Pe}]*|\n+"
)


class UnicodeWords(WordTokenizer):
    """Splits at the default word boundaries of Unicode Standard Annex 29; punctuation marks are words too.

    Of scripts that write no spaces (Chinese, Japanese, Thai) each character is a word: thresholds in words
    want other values there. Handed to datatrove's filters as their `language`.
    """

    def word_tokenize(self, text: str) -> list[str]:
        """Words and punctuation marks of a text, in order; white space goes."""
        return [piece for piece in _WORD_BOUNDARY.split(text) if not piece.isspace() and piece]

    def sent_tokenize(self, text: str) -> list[str]:
        """Sentences of a text, without the white space around them."""
        return [text[start:end].strip() for start, end in self.span_tokenize(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where each sentence starts and ends, in characters."""
        return list(_sentences(text))

    # Tasks hold copies of their steps: equal ones share what datatrove caches by tokenizer.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for end in (*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)):
        if text[start:end].strip():
            yield start, end
        start = end
