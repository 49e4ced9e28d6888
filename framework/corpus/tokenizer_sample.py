"""Which text a tokenizer is trained on: of every corpus as much as its weight asks for, chosen by lot.

The lot of a document is a hash of its text and the seed, so the sample depends neither on the order of the
documents nor on how they lie in shards.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from framework.corpus.shards import read_texts

LONGEST_SENTENCE = 4096  # bytes; SentencePiece leaves longer ones out


@dataclass(frozen=True)
class Source:
    """The training split of one corpus: its text shards, and how many bytes of their text are wanted."""

    shards: list[Path]
    wanted: int


def wanted_bytes(sizes: dict[str, int], weights: dict[str, float], limit: int) -> dict[str, int]:
    """How many bytes of each corpus go into a sample of `limit` bytes, or fewer where there are not so many.

    In proportion to the weights. A corpus that is smaller than its share gives everything, and the others
    share what it leaves, again by their weights.

    Args:
        sizes: bytes of text by corpus.
        weights: by corpus, greater than 0; they need not sum to 1.
        limit: of the whole sample.
    """
    wanted: dict[str, int] = {}
    sharing = sorted(sizes)
    while sharing:
        left = limit - sum(wanted.values())
        total = sum(weights[name] for name in sharing)
        shares = {name: int(left * (weights[name] / total)) for name in sharing}
        small = [name for name in sharing if sizes[name] <= shares[name]]
        wanted |= {name: sizes[name] for name in small} if small else shares
        sharing = [name for name in sharing if name not in wanted]
    return wanted


def draw_sentences(sources: Iterable[Source], seed: int) -> Iterator[str]:
    """The lines of the documents drawn, in the order of their lots, long ones in parts.

    Holds the sample in memory, and gives it up as it goes.
    """
    drawn = sorted(document for source in sources for document in _draw(source, seed))
    drawn.reverse()
    while drawn:
        yield from _sentences(drawn.pop()[1].decode())


def _draw(source: Source, seed: int) -> list[tuple[int, bytes]]:
    """The documents with the lowest lots that together make the bytes wanted, each with its lot.

    Of the document with the highest only the beginning is taken, as much as is missing.
    """
    if not source.wanted:
        return []
    prefix = f"{seed}:".encode()
    heap: list[tuple[int, bytes]] = []  # highest lot first
    size = 0
    for text in (text.encode() for path in source.shards for text in read_texts(path)):
        lot = int.from_bytes(hashlib.sha256(prefix + text).digest()[:8])
        if size >= source.wanted and lot > -heap[0][0]:
            continue
        heapq.heappush(heap, (-lot, text))
        size += len(text)
        while size - len(heap[0][1]) >= source.wanted:
            size -= len(heapq.heappop(heap)[1])
    drawn = [(-lot, text) for lot, text in heap]
    if size > source.wanted:
        lot, text = drawn[0]
        drawn[0] = lot, text[: len(text) - (size - source.wanted)].decode(errors="ignore").encode()
    return drawn


def _sentences(text: str) -> Iterator[str]:
    """The lines of a text, long ones in parts.

    A part ends before a space, where no piece can reach across: a piece has spaces at its start only.
    """
    limit = LONGEST_SENTENCE // 4  # characters: none has more than 4 bytes
    for line in text.split("\n"):
        while len(line) > limit:
            cut = line.rfind(" ", 1, limit)
            cut = cut if cut > 0 else limit
            yield line[:cut]
            line = line[cut:]
        if line:
            yield line
