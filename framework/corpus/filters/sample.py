"""Bounded samples of documents, for people to read: of what each rule dropped, and of what was kept."""

import heapq
import json
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import xxhash

if TYPE_CHECKING:
    from datatrove.data import Document

DROPPED, KEPT = "dropped.jsonl", "kept.jsonl"  # in a stage
CHARACTERS = 2000  # of each text that are kept: enough to see what was wrong with it

Entry = tuple[int, dict[str, Any]]  # (minus) the document's draw, and what is kept of it


class DroppedSample:
    """Keeps the `per_rule` documents with the smallest hashes of those that each rule drops.

    Which ones these are depends on the documents alone, not on their order or on the tasks they came in:
    the smallest of all are among the smallest of each task, so `merge_samples` gives the same sample for
    any number of tasks. Takes the place of a filter's `exclusion_writer` and writes
    `FOLDER/TASK-FILTER.jsonl` when its task has ended well.

    Memory: `per_rule` documents of at most 2,000 characters for each rule.
    """

    def __init__(self, folder: str, filter_name: str, per_rule: int) -> None:
        self._folder = Path(folder)
        self._filter_name = filter_name
        self._per_rule = per_rule
        self._kept: dict[str, list[Entry]] = defaultdict(list)
        self._task = 0

    def __enter__(self) -> "DroppedSample":
        self._kept.clear()
        return self

    def write(self, document: "Document", rank: int = 0) -> None:
        """Consider a document whose `filter_reason` names the rule that dropped it."""
        self._task = rank
        rule = document.metadata["filter_reason"]
        keep_smallest(self._kept[rule], {"rule": rule, **describe(document)}, self._per_rule)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._kept:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{self._task:05d}-{self._filter_name}.jsonl"
            records = [record for rule in sorted(self._kept) for record in in_order(self._kept[rule])]
            path.write_text("".join(json.dumps(record, default=str) + "\n" for record in records), encoding="utf-8")


def merge_samples(folder: str | Path, per_rule: int) -> dict[str, list[dict[str, Any]]]:
    """The samples that all tasks wrote into a folder as one: records by rule, smallest draw first.

    Memory: `per_rule` records for each rule and one file's lines.
    """
    kept: dict[str, list[Entry]] = defaultdict(list)
    for path in sorted(Path(folder).glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            keep_smallest(kept[record["rule"]], record, per_rule)
    return {rule: in_order(kept[rule]) for rule in sorted(kept)}


def describe(document: "Document") -> dict[str, Any]:
    """What a sample keeps of a document; `draw` is a hash of all of it, which says whether it is kept."""
    return {
        "draw": xxhash.xxh64_intdigest(f"{document.id}\0{document.text}".encode()),
        "id": document.id,
        "text": document.text[:CHARACTERS],
        "characters": len(document.text),
        "metadata": {key: value for key, value in document.metadata.items() if key != "filter_reason"},
    }


def keep_smallest(heap: list[Entry], record: dict[str, Any], count: int) -> None:
    """Put a record on a heap of at most `count` if its draw is among the smallest, and not there yet."""
    entry = (-record["draw"], record)
    if entry[0] in {draw for draw, _ in heap}:  # the same document again: once is enough to read
        return
    if len(heap) < count:
        heapq.heappush(heap, entry)
    elif heap and entry[0] > heap[0][0]:
        heapq.heapreplace(heap, entry)


def in_order(heap: list[Entry]) -> list[dict[str, Any]]:
    """The records of a heap, smallest draw first."""
    return [record for _, record in sorted(heap, key=lambda entry: -entry[0])]
