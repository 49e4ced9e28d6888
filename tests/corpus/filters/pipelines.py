"""Runs steps the way a preparation does: through datatrove's local executor."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from framework.corpus.readers import read_documents
from tests.corpus.conftest import ROOT

SAMPLES = {
    "books": ("book", "books/persuasion.txt"),
    "web": ("warc", "web/debian-handbook.warc.gz"),
    "webtext": ("jsonl", "webtext/jargon.jsonl.gz"),
    "wiki": ("mediawiki", "wiki/foldoc.xml.bz2"),
}


class Deal(PipelineStep):
    """Deals documents to tasks in runs of equal length, in their order."""

    type, name = "reader", "deal"

    def __init__(self, documents: list[Document]) -> None:
        super().__init__()
        self._documents = documents

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        count = len(self._documents)
        yield from self._documents[rank * count // world_size : (rank + 1) * count // world_size]


class Collect(PipelineStep):
    """Writes what is left of each task as JSON lines."""

    type, name = "writer", "collect"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        lines = [json.dumps([d.id, d.text, d.metadata]) for d in data]
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{rank:05d}").write_text("\n".join(lines))


def execute(steps: list[Any], folder: Path, tasks: int = 1, workers: int = 1) -> list[dict[str, Any]]:
    """Run steps to their end; the statistics of each, over all tasks."""
    executor = LocalPipelineExecutor(steps, tasks=tasks, workers=workers, logging_dir=str(folder))
    return [stats.to_dict() for stats in executor.run().stats]


def collected(folder: Path) -> list[Document]:
    lines = [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
    return [Document(id=key, text=text, metadata=metadata) for key, text, metadata in map(json.loads, lines)]


def survivors(
    documents: list[Document], steps: list[Any], folder: Path, tasks: int = 1, workers: int = 1
) -> tuple[list[Document], list[dict[str, Any]]]:
    """What steps leave of documents, and the statistics of each of the steps."""
    stats = execute([Deal(documents), *steps, Collect(folder / "kept")], folder / "log", tasks, workers)
    return collected(folder / "kept"), stats[1:-1]


def dropped(stats: dict[str, Any]) -> dict[str, int]:
    """Documents that a step dropped, by rule."""
    prefix = "dropped_"
    return {key.removeprefix(prefix): value for key, value in stats["stats"].items() if key.startswith(prefix)}


def sample_documents(name: str, count: int) -> list[Document]:
    """The first documents of one of the samples that ship."""
    reader, path = SAMPLES[name]
    found = (d for d in read_documents(reader, str(ROOT / "samples" / path)) if not d.rejected and d.text)
    return [
        Document(id=d.id, text=d.text, metadata={"url": d.url, "title": d.title, "score": d.score})
        for d in islice(found, count)
    ]
