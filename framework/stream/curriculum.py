"""Sequence length and batch size that change over a run, at given positions, so that position stays one integer."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import pairwise


class Curriculum:
    """A whole number by global sequence number.

    Args:
        first: its value from sequence 0 on.
        changes: its value from each of these sequence numbers on.
    """

    def __init__(self, first: int, changes: Mapping[int, int] | None = None) -> None:
        values = {0: first, **(changes or {})}
        self._begins = sorted(values)
        self._values = [values[begin] for begin in self._begins]

    def at(self, sequence: int) -> int:
        """The value in force for a sequence."""
        return self._values[bisect_right(self._begins, sequence) - 1]

    def pieces(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(first sequence, the one after the last, value) of each stretch of `begin ... end - 1`."""
        edges = [begin, *(edge for edge in self._begins if begin < edge < end), end]
        for start, stop in pairwise(edges):
            if start < stop:
                yield start, stop, self.at(start)

    def total(self, end: int) -> int:
        """Sum of the values over the first `end` sequences."""
        return sum((stop - start) * value for start, stop, value in self.pieces(0, end))

    @property
    def largest(self) -> int:
        """The largest value."""
        return max(self._values)

    @property
    def changes(self) -> list[int]:
        """Where the value changes."""
        return self._begins[1:]
