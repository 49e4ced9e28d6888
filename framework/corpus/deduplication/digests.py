"""Digests of texts on disk, sorted out by their value: how repeated texts are found in bounded memory.

Every task of every corpus writes the digests of its texts, dealt by their value to partitions; one worker a
partition then sees all copies of a text beside each other and names those that are to go, for each task.

    FOLDER/digests/PARTITION/TASK     what a task wrote
    FOLDER/named/TASK/PARTITION.npy   what a partition found
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import xxhash
from datatrove.pipeline.base import PipelineStep

# A text: its 128-bit digest, the document it is in (task << 32 | number in the task), and which paragraph.
# At 10^11 texts the chance that any two different ones have the same digest is 10^-17.
RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("document", "<u8"), ("paragraph", "<u4")])
NAMED = np.dtype([("number", "<u4"), ("paragraph", "<u4")])  # a text of a task: document and paragraph
_BUFFERED = 65_536  # records that a writer holds


class DigestWriter:
    """Writes the digests of one task, partition by partition; they count only once it was closed well.

    Memory: 65,536 records, about 20 MB as Python objects.
    """

    def __init__(self, folder: Path, task: int, partitions: int) -> None:
        self._final = [folder / "digests" / f"{partition:05d}" / f"{task:05d}" for partition in range(partitions)]
        self._partial = folder / "partial" / f"{task:05d}"
        self._first = task << 32
        self._records: list[tuple[int, int, int, int]] = []

    def __enter__(self) -> "DigestWriter":
        shutil.rmtree(self._partial, ignore_errors=True)  # of an attempt that was killed
        self._partial.mkdir(parents=True)
        for partition in range(len(self._final)):
            self._place(partition).touch()
        return self

    def add(self, text: str, number: int, paragraph: int = 0) -> None:
        """Note a text of document `number` of the task."""
        digest = xxhash.xxh3_128_intdigest(text.encode())
        self._records.append((digest >> 64, digest & (2**64 - 1), self._first | number, paragraph))
        if len(self._records) == _BUFFERED:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
            for partition, final in enumerate(self._final):
                final.parent.mkdir(parents=True, exist_ok=True)
                self._place(partition).replace(final)
        shutil.rmtree(self._partial)

    def _place(self, partition: int) -> Path:
        return self._partial / f"{partition:05d}"

    def _flush(self) -> None:
        records = np.array(self._records, RECORD)
        self._records.clear()
        dealt = records["low"] % np.uint64(len(self._final))
        for partition in np.unique(dealt):
            with self._place(int(partition)).open("ab") as file:
                file.write(records[dealt == partition].tobytes())


class FindRepeated(PipelineStep):
    """Names repeated texts: one task a partition, no documents in, none out.

    By default all copies but the first, in the order of tasks, documents and paragraphs. With `documents`,
    all copies of a text that is in at least so many different documents.

    Memory: 28 bytes a text of the partition, and twice as much while they are sorted.
    """

    type = "deduplication"
    name = "find repeated texts"

    def __init__(self, folder: Path, documents: int = 0) -> None:
        super().__init__()
        self._folder = folder
        self._documents = documents

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Write what is named; yields nothing."""
        with self.track_time():
            records = self._read(rank)
            repeated = _in_documents(records, self._documents) if self._documents else _same_as_before(records)
            write_named(self._folder, f"{rank:05d}", records[repeated])
        yield from ()

    def _read(self, partition: int) -> np.ndarray:
        """All records of a partition, equal texts beside each other in their order."""
        files = sorted((self._folder / "digests" / f"{partition:05d}").iterdir())
        records = np.concatenate([np.fromfile(file, RECORD) for file in files])
        return records[np.lexsort([records[name] for name in reversed(RECORD.names or ())])]


def _same_as_before(records: np.ndarray) -> np.ndarray:
    """Whether each record has the digest of the one before it."""
    same = np.zeros(len(records), bool)
    same[1:] = (records["high"][1:] == records["high"][:-1]) & (records["low"][1:] == records["low"][:-1])
    return same


def _in_documents(records: np.ndarray, minimum: int) -> np.ndarray:
    """Whether each record's text is in at least `minimum` documents."""
    same = _same_as_before(records)
    run = np.cumsum(~same) - 1  # number of the run of equal texts that each record is in
    another = ~same
    another[1:] |= records["document"][1:] != records["document"][:-1]
    return np.bincount(run, weights=another)[run] >= minimum if len(records) else same


def write_named(folder: Path, source: str, records: np.ndarray) -> None:
    """Keep the texts that `source` has named, for each task those of its documents."""
    tasks = records["document"] >> np.uint64(32)
    for task in np.unique(tasks):
        mine = records[tasks == task]
        named = np.empty(len(mine), NAMED)
        named["number"] = mine["document"] & np.uint64(2**32 - 1)
        named["paragraph"] = mine["paragraph"]
        place = folder / "named" / f"{task:05d}" / f"{source}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, named)


def read_named(folder: Path, task: int) -> np.ndarray:
    """The texts of a task that were named, in the order of its documents and paragraphs."""
    files = sorted((folder / "named" / f"{task:05d}").glob("*.npy"))
    named = np.concatenate([np.empty(0, NAMED), *(np.load(file) for file in files)])
    return named[np.lexsort([named["paragraph"], named["number"]])]
