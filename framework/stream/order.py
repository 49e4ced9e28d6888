"""The order of the data: pure functions, no files.

Corpus `c`, epoch `e`: its blocks are permuted by a generator seeded with (seed, c, e) and dealt to
`lanes` in turn, one epoch's dealing going on where the last one stopped, so that no lane is favoured
however few blocks there are. Within a block, documents are permuted by (seed, c, e, block). A lane is
thus an endless stream of tokens, and row `r` of it is tokens `r * sequence_length` and following.

The position of a run in its data is therefore one integer, and neither the number of ranks nor
anything that happened before enters.
"""

import numpy as np
from numpy.typing import NDArray

from framework.stream.draws import GOLDEN, key_state, splitmix64

Int64Array = NDArray[np.int64]


def permutation(length: int, *key: object) -> Int64Array:
    """A permutation of `range(length)` that depends on `key` alone.

    Indices are sorted by the number that each draws.
    """
    drawn = splitmix64(key_state(*key) + np.arange(1, length + 1, dtype=np.uint64) * GOLDEN)
    return np.argsort(drawn, kind="stable").astype(np.int64)


class BlockOrder:
    """Which block of one corpus is the k-th of a lane, and where in it a token of the lane lies.

    Args:
        tokens: token count of each block, in the manifest's order, shape [blocks].
        lanes: number of lanes.
        seed: of the order.
        corpus: name of the corpus; its order does not depend on which others there are.
    """

    def __init__(self, tokens: Int64Array, lanes: int, seed: int, corpus: str) -> None:
        self.tokens = tokens
        self.lanes = lanes
        self.key = (seed, corpus)
        self._epochs: dict[int, Int64Array] = {}
        self._ends: dict[tuple[int, int], Int64Array] = {}  # by lane and epoch: where each of its blocks ends
        self._starts: list[Int64Array] = [np.zeros(lanes, np.int64)]  # by epoch: tokens each lane had before it

    def blocks(self, epoch: int) -> Int64Array:
        """The blocks of one epoch in the order they are dealt, shape [blocks]."""
        if epoch not in self._epochs:
            if len(self._epochs) > 3:
                self._epochs.clear()
                self._ends.clear()
            self._epochs[epoch] = permutation(len(self.tokens), *self.key, epoch)
        return self._epochs[epoch]

    def documents(self, epoch: int, block: int, count: int) -> Int64Array:
        """The order of the `count` documents of a block in an epoch, shape [count]."""
        return permutation(count, *self.key, epoch, block)

    def first_dealt(self, lane: int, epoch: int) -> int:
        """Place of the first block of `lane` in the dealing of `epoch`; then every `lanes`-th."""
        return (lane - epoch * len(self.tokens)) % self.lanes

    def locate(self, lane: int, token: int) -> tuple[int, int, int]:
        """Where token number `token` of a lane lies: (epoch, place in the lane's blocks of that epoch, offset).

        O(log blocks) in an epoch already visited; each new epoch costs one permutation of the blocks.
        """
        while self._starts[-1][lane] <= token:
            self._starts.append(self._starts[-1] + self._lane_totals(len(self._starts) - 1))
        epoch = self._epoch_of(lane, token)
        ends = self._block_ends(lane, epoch)
        rest = token - int(self._starts[epoch][lane])
        place = int(np.searchsorted(ends, rest, side="right"))
        return epoch, place, rest - (int(ends[place - 1]) if place else 0)

    def lane_blocks(self, lane: int, epoch: int) -> Int64Array:
        """The blocks of a lane in an epoch, in order."""
        return self.blocks(epoch)[self.first_dealt(lane, epoch) :: self.lanes]

    def _block_ends(self, lane: int, epoch: int) -> Int64Array:
        if (lane, epoch) not in self._ends:
            self._ends[lane, epoch] = np.cumsum(self.tokens[self.lane_blocks(lane, epoch)])
        return self._ends[lane, epoch]

    def _epoch_of(self, lane: int, token: int) -> int:
        low, high = 0, len(self._starts) - 1  # starts[low] <= token < starts[high]
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._starts[middle][lane] <= token else (low, middle)
        return low

    def _lane_totals(self, epoch: int) -> Int64Array:
        """Tokens that each lane gets in an epoch, shape [lanes]."""
        dealt = self.tokens[self.blocks(epoch)]
        lane = (np.arange(len(dealt)) + epoch * len(dealt)) % self.lanes
        return np.bincount(lane, weights=dealt, minlength=self.lanes).astype(np.int64)
