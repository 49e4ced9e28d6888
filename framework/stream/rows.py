"""Rows of tokens cut from a lane, written where the batch wants them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.stream.manifest import Block
from framework.stream.order import BlockOrder
from framework.stream.shards import Shards


@dataclass(frozen=True)
class _OpenBlock:
    """A block with its documents in the order of one epoch."""

    tokens: NDArray[Any]  # as stored
    ends: list[int]  # where each document ends in the permuted block
    sources: list[int]  # where each of them begins in the block as stored


@dataclass
class _Cursor:
    """Where a lane stands, so that its next row needs no search."""

    token: int  # of the lane's stream
    epoch: int
    place: int  # among the lane's blocks of the epoch
    block: _OpenBlock
    document: int  # of the permuted block
    offset: int  # tokens into the permuted block


class LaneRows:
    """The rows of every lane of one corpus, at any position; the next one of a lane is the cheapest.

    A lane keeps the block it stands in, so all lanes together hold that many blocks open.
    """

    def __init__(self, order: BlockOrder, blocks: tuple[Block, ...], shards: Shards) -> None:
        self.order = order
        self._blocks = blocks
        self._shards = shards
        self._cursors: dict[int, _Cursor] = {}

    def read(self, lane: int, start: int, tokens: NDArray[Any], document: NDArray[np.int32]) -> None:
        """Write tokens `start ... start + T` of a lane into `tokens`, shape [T + 1].

        `document`, shape [T] and zeros, becomes the number of the document within the row; what a row begins with
        is its document 0, cut or whole. The lane then stands at the last token written, with which its next row
        begins.
        """
        cursor = self._cursors.get(lane)
        if cursor is None or cursor.token != start:
            cursor = self._cursors[lane] = self._seek(lane, start)
        filled, number, wanted = 0, 0, len(tokens)
        while True:
            block, index, offset = cursor.block, cursor.document, cursor.offset
            ends, sources, stored = block.ends, block.sources, block.tokens
            while index < len(ends):
                begin = ends[index - 1] if index else 0
                if offset == begin and 0 < filled < wanted - 1:
                    number += 1
                    document[filled:] = number
                length = min(ends[index] - offset, wanted - filled)
                source, until = sources[index] + offset - begin, filled + length
                tokens[filled:until] = stored[source : source + length]
                filled, offset = until, offset + length
                if filled == wanted:
                    cursor.token, cursor.document, cursor.offset = start + wanted - 1, index, offset - 1
                    return
                index += 1
            cursor.epoch, cursor.place = self._next_place(lane, cursor.epoch, cursor.place + 1)
            cursor.block = self._open(lane, cursor.epoch, cursor.place)
            cursor.document = cursor.offset = 0

    def blocks(self, lane: int, start: int, count: int) -> Iterator[Block]:
        """The blocks in which tokens `start ... start + count - 1` of a lane lie."""
        epoch, place, offset = self.order.locate(lane, start)
        needed = offset + count
        while needed > 0:
            epoch, place = self._next_place(lane, epoch, place)
            block = self._blocks[int(self.order.lane_blocks(lane, epoch)[place])]
            yield block
            needed, place = needed - block.tokens, place + 1

    def _seek(self, lane: int, start: int) -> _Cursor:
        epoch, place, offset = self.order.locate(lane, start)
        block = self._open(lane, epoch, place)
        return _Cursor(start, epoch, place, block, int(np.searchsorted(block.ends, offset, side="right")), offset)

    def _next_place(self, lane: int, epoch: int, place: int) -> tuple[int, int]:
        """The same place if the lane has a block there, else the first one in the epochs that follow."""
        while place >= len(self.order.lane_blocks(lane, epoch)):
            epoch, place = epoch + 1, 0
        return epoch, place

    def _open(self, lane: int, epoch: int, place: int) -> _OpenBlock:
        number = int(self.order.lane_blocks(lane, epoch)[place])
        data = self._shards.read(self._blocks[number])
        documents = self.order.documents(epoch, number, len(data.lengths))
        starts = np.cumsum(data.lengths) - data.lengths
        return _OpenBlock(data.tokens, np.cumsum(data.lengths[documents]).tolist(), starts[documents].tolist())
