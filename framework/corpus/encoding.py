"""Texts to ids, by the shortest way there is for the algorithm of the tokenizer.

A word, here and in fertility, is a run of characters other than spaces, tabs and newlines.
"""

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framework.corpus.foreign import ForeignTokenizer
from framework.corpus.unigram import is_unigram

_OPENS = "\0"  # opens a document among others; cleaning leaves no such character in a text
# A word with the spaces before it, spaces before a newline or the end, or newlines.
_WORD = re.compile(f"{_OPENS}| *[^ \n{_OPENS}]+| +|\n+")
_REMEMBERED = 1 << 19  # words; with their ids about 100 MB
_PART = 1 << 14  # characters of a long text that are encoded together


class Encoded(NamedTuple):
    """Some texts: ids, int32 [tokens], with `<|endoftext|>` before each text; int64 [texts], how many; words of all."""

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    words: int


def encode_batches(processor: Any, batches: Iterable[list[str]], threads: int) -> Iterator[Encoded]:
    """Encode cleaned texts as `SentencePieceProcessor.encode` does, with the id of `<|endoftext|>` before each.

    Args:
        processor: a `SentencePieceProcessor` over a tokenizer of ours, or the tokenizer of another model, with the id
            before each text that it says.
        batches: texts that are encoded together; but with BPE of ours, two more for each thread are held.
        threads: how many may work; they do not change the ids.
    """
    if isinstance(processor, ForeignTokenizer):
        yield from _in_order(lambda texts: _encode_foreign(processor, texts), batches, threads)
    elif is_unigram(processor):
        yield from _in_order(lambda texts: _encode_whole(processor, texts), batches, threads)
    else:
        yield from map(_WordEncoder(processor, threads).encode, batches)


class _WordEncoder:
    """Encodes each word once, and looks it up when it comes again: with BPE that takes half the time or less.

    No piece reaches from a word into the space after it, nor across a newline (`tokenizer_sample`), so the ids of
    a text are those of its words in their order.
    """

    def __init__(self, processor: Any, threads: int) -> None:
        self._processor, self._threads = processor, threads
        self._end_of_text = processor.eos_id()
        self._forget()

    def encode(self, texts: list[str]) -> Encoded:
        if len(self._numbers) > _REMEMBERED:
            self._forget()
        found = _WORD.findall(_OPENS + _OPENS.join(texts))
        known = len(self._numbers)
        numbers = np.fromiter(map(self._numbers.__getitem__, found), np.int64, len(found))
        self._learn(list(itertools.islice(self._numbers, known, None)))
        lengths = self._lengths[numbers]
        before = np.cumsum(lengths) - lengths
        ids = self._ids[np.repeat(self._starts[numbers] - before, lengths) + np.arange(lengths.sum())]
        opens = np.flatnonzero(ids == self._end_of_text)
        return Encoded(ids, np.diff(opens, append=len(ids)), int(self._words[numbers].sum()))

    def _forget(self) -> None:
        self._numbers = _Numbers({_OPENS: 0})
        self._ids = np.array([self._end_of_text], np.int32)  # of all words, one after another
        self._starts, self._lengths, self._words = np.array([0]), np.array([1]), np.array([0])

    def _learn(self, new: list[str]) -> None:
        if not new:
            return
        encoded = self._processor.encode(new, num_threads=self._threads, return_type="numpy")
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        starts = len(self._ids) + np.cumsum(lengths) - lengths
        words = np.fromiter((sum(map(bool, word.strip(" \n").split("\t"))) for word in new), np.int64, len(new))
        self._ids = np.concatenate([self._ids, *encoded])
        self._starts = np.concatenate([self._starts, starts])
        self._lengths = np.concatenate([self._lengths, lengths])
        self._words = np.concatenate([self._words, words])


class _Numbers(dict[str, int]):
    """Numbers the keys it is asked for, in the order in which they come first."""

    def __missing__(self, key: str) -> int:
        self[key] = number = len(self)
        return number


def _encode_whole(processor: Any, texts: list[str]) -> Encoded:
    """With unigram, SentencePiece is as fast as it would be to look words up."""
    opening = np.array([processor.eos_id()], np.int32)
    parts = [_parts(text) for text in texts]
    encoded = iter(processor.encode(list(itertools.chain.from_iterable(parts)), num_threads=1, return_type="numpy"))
    documents = [[opening, *itertools.islice(encoded, len(some))] for some in parts]
    lengths = np.array([sum(map(len, document)) for document in documents])
    return Encoded(np.concatenate(list(itertools.chain.from_iterable(documents))), lengths, _count("\n".join(texts)))


def _encode_foreign(tokenizer: ForeignTokenizer, texts: list[str]) -> Encoded:
    """Whole texts: what a piece may reach over is not known."""
    encoded, opening = tokenizer.encode(texts), np.array([tokenizer.opens], np.int32)
    lengths = np.array([1 + len(ids) for ids in encoded])
    return Encoded(
        np.concatenate([part for ids in encoded for part in (opening, ids)]), lengths, _count("\n".join(texts))
    )


def _parts(text: str) -> list[str]:
    """The text in parts of about `_PART` characters, cut after newlines.

    A newline is always a piece of its own, and the sums of scores within a part are exact (`unigram`). Whole, a
    long text would take SentencePiece forty times its size in memory.
    """
    parts, start = [], 0
    while len(text) - start > _PART:
        end = text.rfind("\n", start, start + _PART) + 1 or text.find("\n", start + _PART) + 1 or len(text)
        parts.append(text[start:end])
        start = end
    return [*parts, text[start:]] if start < len(text) else parts


def _count(text: str) -> int:
    """How many words there are in a text; four times as fast as to split it."""
    white = np.frombuffer(text.encode(), np.uint8) <= ord(" ")  # of control characters, cleaning leaves tab and newline
    return int(np.count_nonzero(white[:-1] > white[1:])) + int(len(white) and not white[0])


def _in_order(work: Callable[[list[str]], Encoded], batches: Iterable[list[str]], threads: int) -> Iterator[Encoded]:
    """`map(work, batches)` on threads, ahead of the caller by two batches for each."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Encoded]] = deque()
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
