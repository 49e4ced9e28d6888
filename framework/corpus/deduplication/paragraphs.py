"""Paragraphs, that is lines: those that came before in any document, and those that a host puts on its pages."""

import re
from collections.abc import Iterator
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.typeshelper import StatHints

from framework.corpus.deduplication.digests import DigestWriter, read_named
from framework.corpus.deduplication.settings import DeduplicationSettings
from framework.corpus.filters.sample import DroppedSample
from framework.corpus.hosts import host_of

_EMPTY_LINES = re.compile(r"\n{3,}")


class ParagraphDigests(PipelineStep):
    """Writes the digests of paragraphs that are to be dropped wherever they come again; documents pass unchanged.

    Two paragraphs are the same if their words are, whatever the white space between them. Shorter ones than
    `paragraph_minimum_characters` are left alone: headings and captions repeat for good reason.
    The idea is that of CCNet (Wenzek et al. 2019, arXiv:1911.00359, section 3.1), without its change of
    letters and digits.

    Memory: see `DigestWriter`.
    """

    type = "deduplication"
    name = "paragraph digests"

    def __init__(self, folder: Path, first_task: int, settings: DeduplicationSettings) -> None:
        super().__init__()
        self._folder, self._first_task, self._settings = folder, first_task, settings

    def texts(self, document: Document) -> Iterator[tuple[int, str]]:
        """Which paragraphs are digested, and as what."""
        for paragraph, line in enumerate(document.text.split("\n")):
            words = " ".join(line.split())
            if words and len(words) >= self._settings.paragraph_minimum_characters:
                yield paragraph, words

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The same documents."""
        with DigestWriter(self._folder, self._first_task + rank, self._settings.partitions) as digests:
            for number, document in enumerate(data):
                self.stat_update(StatHints.total)
                for paragraph, text in self.texts(document):
                    digests.add(text, number, paragraph)
                yield document


class HostLineDigests(ParagraphDigests):
    """Writes the digests of lines together with the host of their page; documents pass unchanged.

    What extraction leaves of a page's frame (cookie banners, licences, calls to subscribe) comes again on the
    host's other pages, and is no more wanted the first time than the last.
    """

    name = "host line digests"

    def texts(self, document: Document) -> Iterator[tuple[int, str]]:
        """Which lines are digested, and as what."""
        host = host_of(document.metadata.get("url") or "")
        for paragraph, line in enumerate(document.text.split("\n") if host else ()):
            words = " ".join(line.split())
            if words and len(words) <= self._settings.boilerplate_maximum_characters:
                yield paragraph, f"{host}\0{words}"


class DropParagraphs(BaseFilter):
    """Takes named paragraphs out of documents, and drops documents of which nothing is left.

    The documents must come in the order in which the digests were taken.

    Args:
        rule: by which a document is dropped.
        folders: where paragraphs were named.
        first_task: number of the corpus's first task among those of all corpora.
        sample: of documents that are dropped.

    Memory: 8 bytes a named paragraph of the task.
    """

    name = "repeated paragraphs"

    def __init__(self, rule: str, folders: list[Path], first_task: int, sample: DroppedSample | None = None) -> None:
        super().__init__(sample)
        self._rule, self._folders, self._first_task = rule, folders, first_task

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The documents that are left, without their repeated paragraphs."""
        task = self._first_task + rank
        self._waiting = _by_document([read_named(folder, task) for folder in self._folders])
        self._next = next(self._waiting, None)
        self._number = -1
        yield from super().run(data, rank, world_size)
        if self._next is not None:
            raise RuntimeError(f"task {rank}: document {self._next[0]} was to lose paragraphs, and there is none")

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether anything of the document stays."""
        self._number += 1
        if self._next is None or self._next[0] != self._number:
            return True
        gone = self._next[1]
        self._next = next(self._waiting, None)
        lines = doc.text.split("\n")
        left = "\n".join(line for paragraph, line in enumerate(lines) if paragraph not in gone)
        left = _EMPTY_LINES.sub("\n\n", left).strip()
        self.stat_update("paragraphs", value=len(gone))
        if not left:
            return False, self._rule
        doc.text = left
        return True


def _by_document(parts: list[Any]) -> Iterator[tuple[int, set[int]]]:
    """Documents in order, with the paragraphs that any of the parts names."""
    rows = merge(*((row.item() for row in part) for part in parts))
    for number, mine in groupby(rows, key=lambda row: row[0]):
        yield number, {paragraph for _, paragraph in mine}
