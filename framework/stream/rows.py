"""Rows of tokens cut from a lane, with the places where documents begin."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.stream.manifest import Block
from framework.stream.order import BlockOrder
from framework.stream.shards import Shards

OPEN_BLOCKS = 512  # of a corpus, at most; an open block holds its document order, not its tokens


@dataclass(frozen=True)
class _OpenBlock:
    """A block's documents in the order of one epoch."""

    ends: NDArray[np.int64]  # where each document ends in the permuted block, shape [documents]
    sources: NDArray[np.int64]  # where each of them begins in the block as stored, shape [documents]


class LaneRows:
    """Random access to the rows of every lane of one corpus."""

    def __init__(self, order: BlockOrder, blocks: tuple[Block, ...], shards: Shards) -> None:
        self.order = order
        self._blocks = blocks
        self._shards = shards
        self._open: OrderedDict[tuple[int, int], _OpenBlock] = OrderedDict()

    def read(self, lane: int, start: int, count: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Tokens `start ... start + count - 1` of a lane.

        Returns:
            The tokens, shape [count], and where a document begins among them, shape [count].
        """
        pieces: list[NDArray[Any]] = []
        begins = np.zeros(count, dtype=bool)
        filled = 0
        epoch, place, offset = self.order.locate(lane, start)
        while filled < count:
            lane_blocks = self.order.lane_blocks(lane, epoch)
            if place == len(lane_blocks):
                epoch, place = epoch + 1, 0
                continue
            number = int(lane_blocks[place])
            data = self._shards.read(self._blocks[number])
            opened = self._opened(epoch, number, data.lengths)
            filled += _take(data.tokens, opened, offset, count - filled, pieces, begins[filled:])
            place, offset = place + 1, 0
        return np.concatenate(pieces), begins

    def blocks(self, lane: int, start: int, count: int) -> Iterator[Block]:
        """The blocks that `read` with the same arguments takes its tokens from."""
        epoch, place, offset = self.order.locate(lane, start)
        needed = offset + count
        while needed > 0:
            lane_blocks = self.order.lane_blocks(lane, epoch)
            if place == len(lane_blocks):
                epoch, place = epoch + 1, 0
                continue
            block = self._blocks[int(lane_blocks[place])]
            yield block
            needed, place = needed - block.tokens, place + 1

    def _opened(self, epoch: int, block: int, lengths: NDArray[np.int64]) -> _OpenBlock:
        key = (epoch, block)
        if key not in self._open:
            if len(self._open) >= OPEN_BLOCKS:
                self._open.popitem(last=False)
            documents = self.order.documents(epoch, block, len(lengths))
            ends = np.cumsum(lengths)
            self._open[key] = _OpenBlock(np.cumsum(lengths[documents]), (ends - lengths)[documents])
        self._open.move_to_end(key)
        return self._open[key]


def _take(
    tokens: NDArray[Any],
    block: _OpenBlock,
    offset: int,
    wanted: int,
    pieces: list[NDArray[Any]],
    begins: NDArray[np.bool_],
) -> int:
    """Append up to `wanted` tokens of a block from `offset` on; mark document starts; say how many they are."""
    taken = 0
    document = int(np.searchsorted(block.ends, offset, side="right"))
    while taken < wanted and document < len(block.ends):
        end = int(block.ends[document])
        begin = int(block.ends[document - 1]) if document else 0
        length = min(end - offset, wanted - taken)
        source = int(block.sources[document]) + offset - begin
        pieces.append(tokens[source : source + length])
        begins[taken] |= offset == begin
        taken, offset, document = taken + length, offset + length, document + 1
    return taken
