"""Rows of tokens cut from a lane, with the places where documents begin."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.stream.manifest import Block
from framework.stream.order import BlockOrder
from framework.stream.shards import BlockData, LocalShards

OPEN_BLOCKS = 512  # at most; an open block holds its document order, not its tokens


@dataclass(frozen=True)
class _OpenBlock:
    """A block with its documents in the order of one epoch."""

    data: BlockData
    ends: NDArray[np.int64]  # where each document ends in the permuted block, shape [documents]
    sources: NDArray[np.int64]  # where each of them begins in the block as stored, shape [documents]


class LaneRows:
    """Random access to the rows of every lane of one corpus."""

    def __init__(self, order: BlockOrder, blocks: tuple[Block, ...], shards: LocalShards) -> None:
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
            block = self._opened(epoch, int(lane_blocks[place]))
            filled += _take(block, offset, count - filled, pieces, begins[filled:])
            place, offset = place + 1, 0
        return np.concatenate(pieces), begins

    def _opened(self, epoch: int, block: int) -> _OpenBlock:
        key = (epoch, block)
        if key not in self._open:
            if len(self._open) >= OPEN_BLOCKS:
                self._open.popitem(last=False)
            data = self._shards.read(self._blocks[block])
            documents = self.order.documents(epoch, block, len(data.lengths))
            starts = np.cumsum(data.lengths) - data.lengths
            self._open[key] = _OpenBlock(data, np.cumsum(data.lengths[documents]), starts[documents])
        self._open.move_to_end(key)
        return self._open[key]


def _take(block: _OpenBlock, offset: int, wanted: int, pieces: list[NDArray[Any]], begins: NDArray[np.bool_]) -> int:
    """Append up to `wanted` tokens of `block` from `offset` on; mark document starts; say how many they are."""
    taken = 0
    document = int(np.searchsorted(block.ends, offset, side="right"))
    while taken < wanted and document < len(block.ends):
        end = int(block.ends[document])
        begin = int(block.ends[document - 1]) if document else 0
        length = min(end - offset, wanted - taken)
        source = int(block.sources[document]) + offset - begin
        pieces.append(block.data.tokens[source : source + length])
        begins[taken] |= offset == begin
        taken, offset, document = taken + length, offset + length, document + 1
    return taken
