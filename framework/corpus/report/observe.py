"""The step that gathers statistics of the documents that pass, and what all tasks have gathered."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from framework.corpus.filters.sample import Entry, describe, in_order, keep_smallest
from framework.corpus.report.statistics import DocumentStatistics
from framework.errors import UserError


class ObserveDocuments(PipelineStep):
    """Lets documents pass; of each task it writes `FOLDER/TASK.json` with statistics and a sample of them.

    The file is in place before the task's own directory is, so whoever finds a task done finds its file. It
    follows from the task's documents alone. The sample is made of the documents with the smallest hashes (see
    `DroppedSample`), so it does not depend on what the tasks were; neither do the statistics but for one: with
    more hosts than `statistics.HOSTS` their counts do, within the error that is told beside them.

    Args:
        folder: on a disk that all workers see.
        sample: documents to keep for reading.

    Memory: see `DocumentStatistics`; of each of `sample` documents 2,000 characters.
    """

    type = "statistics"
    name = "observe"

    def __init__(self, folder: Path, sample: int = 0) -> None:
        super().__init__()
        self._folder, self._sample = folder, sample

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The same documents."""
        seen = DocumentStatistics()
        sample: list[Entry] = []
        for document in data:
            self.stat_update("total")
            seen.add(document.text, document.metadata)
            if self._sample:
                keep_smallest(sample, describe(document), self._sample)
            yield document
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._place(rank).with_suffix(".partial")
        partial.write_text(json.dumps({"statistics": seen.as_json(), "sample": in_order(sample)}, default=str))
        partial.replace(self._place(rank))

    def _place(self, task: int) -> Path:
        return self._folder / f"{task:05d}.json"

    def gathered(self, tasks: int) -> tuple[DocumentStatistics, list[dict[str, Any]]]:
        """The statistics of all tasks as one, and the sample of all, records as `sample.describe` makes them.

        Raises:
            UserError: the file of a task was taken away.
        """
        seen = DocumentStatistics()
        sample: list[Entry] = []
        for task in range(tasks):
            try:
                found = json.loads(self._place(task).read_text())
            except (OSError, ValueError) as error:
                raise UserError(
                    f"output: {self._place(task)} is missing or damaged; remove {self._folder.parent} and start again"
                ) from error
            seen.merge(DocumentStatistics.from_json(found["statistics"]))
            for record in found["sample"]:
                keep_smallest(sample, record, self._sample)
        return seen, in_order(sample)
