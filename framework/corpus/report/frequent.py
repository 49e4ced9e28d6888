"""The most frequent items of a stream in bounded memory, with a bound on the error that is known."""

from collections import Counter
from collections.abc import Iterable
from typing import Any


class FrequentItems:
    """Misra and Gries 1982, "Finding repeated elements"; merged as in Agarwal et al. 2012, "Mergeable summaries".

    With `n` items counted and `capacity` counters, whatever the order, and whatever was merged with what:

        true count - error <= count <= true count,    error <= n / (capacity + 1)

    where `error` is known exactly, and 0 as long as there were no more different items than counters. An item
    that has no counter occurred `error` times at most.

    Args:
        capacity: counters, at least 1.

    Memory: `capacity` items, `capacity` more while two are merged. Time: O(log capacity) an item, amortised.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.items = self.error = 0  # counted; how much any count may be too low
        self._counts: Counter[str] = Counter()

    def add(self, item: str) -> None:
        """Count one more item."""
        self.items += 1
        self._counts[item] += 1
        self._shrink()

    def merge(self, other: "FrequentItems") -> None:
        """Take in what another one of the same capacity has counted."""
        assert self.capacity == other.capacity, (self.capacity, other.capacity)
        self.items += other.items
        self.error += other.error
        self._counts.update(other._counts)
        self._shrink()

    def _shrink(self) -> None:
        """Lower all counts by that of the first item that has no place, and forget those that have none left.

        At least `capacity + 1` counts are lowered by as much, which is why the sum of all that was ever taken
        off any one count, `error`, is at most `items / (capacity + 1)`.
        """
        if len(self._counts) <= self.capacity:
            return
        surplus = sorted(self._counts.values(), reverse=True)[self.capacity]
        self.error += surplus
        self._counts = Counter({item: count - surplus for item, count in self._counts.items() if count > surplus})

    def top(self, limit: int) -> list[tuple[str, int]]:
        """The `limit` items with the highest counts, those first; equal ones by name."""
        return sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]

    def count(self, item: str) -> int:
        """The count of an item; 0 where it has no counter."""
        return self._counts[item]

    def as_json(self) -> dict[str, Any]:
        """Everything, for `from_json`; the same content gives the same text."""
        counts = dict(self.top(self.capacity))
        return {"capacity": self.capacity, "items": self.items, "error": self.error, "counts": counts}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "FrequentItems":
        """What `as_json` gave."""
        found = cls(value["capacity"])
        found.items, found.error, found._counts = value["items"], value["error"], Counter(value["counts"])
        return found

    @classmethod
    def of(cls, items: Iterable[str], capacity: int) -> "FrequentItems":
        """The summary of some items."""
        found = cls(capacity)
        for item in items:
            found.add(item)
        return found
