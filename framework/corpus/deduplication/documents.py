"""Whole documents: their digests, and the filter that drops what was named."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.typeshelper import StatHints

from framework.corpus.deduplication.digests import DigestWriter, read_named
from framework.corpus.filters.sample import DroppedSample


class DocumentDigests(PipelineStep):
    """Writes the digest of every document's text; the documents pass unchanged.

    Memory: see `DigestWriter`.
    """

    type = "deduplication"
    name = "digests"

    def __init__(self, folder: Path, first_task: int, partitions: int) -> None:
        super().__init__()
        self._folder, self._first_task, self._partitions = folder, first_task, partitions

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The same documents."""
        with DigestWriter(self._folder, self._first_task + rank, self._partitions) as digests:
            for number, document in enumerate(data):
                self.stat_update(StatHints.total)
                digests.add(document.text, number)
                yield document


class DropDocuments(BaseFilter):
    """Drops the documents that were named, which must come in the order in which their digests were taken.

    Args:
        folders: by rule, where its documents were named; a document that is named twice goes by the first.
        first_task: number of the corpus's first task among those of all corpora.
        sample: of what is dropped.

    Memory: 9 bytes a dropped document of the task.
    """

    name = "duplicates"

    def __init__(self, folders: dict[str, Path], first_task: int, sample: DroppedSample | None = None) -> None:
        super().__init__(sample)
        self._folders, self._first_task = folders, first_task
        self._rules = list(folders)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The documents that are left."""
        named = [read_named(folder, self._first_task + rank)["number"] for folder in self._folders.values()]
        rules = np.repeat(np.arange(len(named), dtype=np.uint8), [len(numbers) for numbers in named])
        numbers, first = np.unique(np.concatenate(named), return_index=True)  # the first: of the first rule
        self._waiting = zip(numbers, rules[first], strict=True)
        self._next = next(self._waiting, None)
        self._number = -1
        yield from super().run(data, rank, world_size)
        if self._next is not None:
            raise RuntimeError(f"task {rank}: document {self._next[0]} was to be dropped, and there is none")

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether the document stays, else the rule that names it."""
        self._number += 1
        if self._next is None or self._next[0] != self._number:
            return True
        rule = self._rules[self._next[1]]
        self._next = next(self._waiting, None)
        return False, rule
