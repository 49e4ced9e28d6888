"""Which corpus a sequence draws from: shares exact in tokens, at every point of the run.

Sequence `i` falls on the point `i * STEP mod MODULUS` of a circle that the corpora divide in
proportion to their weights. STEP / MODULUS is close to the golden ratio, whose multiples are spread
as evenly as multiples can be (three-distance theorem; Knuth, The Art of Computer Programming vol. 3,
6.4), so that the realised share of a corpus strays from the asked one by a few sequences however
long the run is. Every sequence has the same number of tokens, so shares of sequences are shares of
tokens. And since the rule is arithmetic, how many sequences of a lane came from a corpus before
position `i` is a sum of floors, known in O(log MODULUS) without walking there.
"""

from bisect import bisect_right
from collections.abc import Mapping

from framework.errors import UserError

MODULUS = 2**31 - 1  # prime, so that every lane visits the whole circle
STEP = 1_327_217_884  # MODULUS x 0.6180339887 (the golden ratio less 1), to the nearest integer


class Mixture:
    """The corpus of every global sequence.

    Args:
        weights: share of the tokens by corpus; normalised here, so 60/22/16/3 is as good as 0.594/...
        lanes: number of lanes the sequences are dealt to: sequence `i` is in lane `i % lanes`.
    """

    def __init__(self, weights: Mapping[str, float], lanes: int) -> None:
        total = sum(weights.values())
        if not weights or total <= 0 or min(weights.values()) < 0:
            raise UserError(f"data.weights: {dict(weights)} are no shares; give one positive weight at least")
        self.corpora = sorted(name for name in weights if weights[name] > 0)
        self.lanes = lanes
        cumulative, self._ends = 0.0, []
        for name in self.corpora:
            cumulative += weights[name]
            self._ends.append(round(MODULUS * (cumulative / total)))

    def corpus(self, sequence: int) -> str:
        """The corpus that global sequence number `sequence` draws from."""
        return self.corpora[bisect_right(self._ends, sequence * STEP % MODULUS)]

    def drawn_before(self, sequence: int, corpus: str) -> int:
        """How many earlier sequences of the same lane draw from `corpus`: the row's number in its stream."""
        lane, rows = sequence % self.lanes, sequence // self.lanes
        index = self.corpora.index(corpus)
        start = self._ends[index - 1] if index else 0
        step, offset = STEP * self.lanes, STEP * lane
        return _below(self._ends[index], rows, step, offset) - _below(start, rows, step, offset)

    def drawn(self, sequences: int) -> dict[str, int]:
        """How many of the first `sequences` of the run draw from each corpus."""
        before = [_below(end, sequences, STEP, 0) for end in (0, *self._ends)]
        return {name: before[i + 1] - before[i] for i, name in enumerate(self.corpora)}


def _below(bound: int, count: int, step: int, offset: int) -> int:
    """How many of `offset + step * t`, t = 0 ... count - 1, fall on the circle before `bound`."""
    # [x mod M < h] = floor(x / M) - floor((x - h + M) / M) + 1, summed over all x
    return count + floor_sum(count, MODULUS, step, offset) - floor_sum(count, MODULUS, step, offset - bound + MODULUS)


def floor_sum(count: int, divisor: int, step: int, offset: int) -> int:
    """Sum of `(step * t + offset) // divisor` for t = 0 ... count - 1, by Euclid's algorithm.

    All arguments are non-negative, `divisor` positive. The recurrence counts lattice points under a
    line and swaps its axes (Graham, Knuth, Patashnik, Concrete Mathematics, 3.5).
    """
    total = 0
    while count > 0:
        total += (step // divisor) * (count * (count - 1) // 2) + (offset // divisor) * count
        step, offset = step % divisor, offset % divisor
        top = step * count + offset
        count, offset = top // divisor, top % divisor
        divisor, step = step, divisor
    return total
