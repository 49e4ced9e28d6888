"""Second stage: which documents and paragraphs of which corpus are copies. Only their numbers are kept.

    duplicates/exact/named/TASK/*.npy, near/..., paragraphs/..., host-lines/...    see `deduplication.digests`

Tasks are numbered over all corpora as they are listed. The digests and signatures that lead there lie in
`.duplicates.work` until the stage is done.
"""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from framework.corpus.deduplication import (
    EXACT,
    HOST_LINES,
    NAMING,
    NEAR,
    PARAGRAPHS,
    Part,
    Plan,
    drop_documents,
    first_tasks,
    plan_documents,
    plan_paragraphs,
)
from framework.corpus.deduplication.digests import read_named
from framework.corpus.deduplication.settings import DeduplicationSettings
from framework.corpus.digests import json_digest
from framework.corpus.engine import Engine, Output
from framework.corpus.reading import ReadDocuments
from framework.corpus.stages import Facts, Stage

_FOUND = {
    EXACT: "exact copies",
    NEAR: "near copies",
    PARAGRAPHS: "repeated paragraphs",
    HOST_LINES: "lines of hosts",
}


class Pass(Output):
    """Takes the documents, if there are any, and keeps nothing: for pipelines whose steps write for themselves."""

    name = "pass"

    def write(self, documents: Iterable[Document], task: int, directory: Path) -> Facts:
        """See the class."""
        return {"documents": sum(1 for _ in documents)}


def find_duplicates(
    directory: Path,
    work: Path,
    settings: DeduplicationSettings,
    documents: dict[str, Stage],
    paragraphs: Sequence[str],
    inputs: Any,
    engine: Engine,
) -> Facts:
    """Name the copies among the documents of all corpora.

    Args:
        directory: where the stage goes.
        work: a folder for these inputs alone; the next call goes on from there.
        settings: of deduplication.
        documents: the corpora in their order, read.
        paragraphs: those of them whose paragraphs are compared.
        inputs: everything the outcome follows from, as JSON.
        engine: runs the pipelines.

    Returns:
        `named`: by corpus, a digest of what is named of it. A corpus of which the same is named need not be
        written again. `found`: how many documents and paragraphs are named, by what they are.
    """
    parts = list_parts(documents)
    firsts, digest = first_tasks(parts), json_digest(inputs)

    def carry_out(plan: Plan, what: str, before: dict[str, list[PipelineStep]]) -> None:
        for part in parts:
            if plan.sign[part.name]:
                read = ReadDocuments(documents[part.name].directory)
                end = Pass(work / f"{what}-of-{part.name}", [digest] * part.tasks)
                label = f"{part.name} {what} to compare"
                engine.run(label, [read, *before.get(part.name, []), *plan.sign[part.name], end])
        for stage in plan.decide:
            engine.run(stage.name, [*stage.steps, Pass(work / stage.name.replace(" ", "-"), [digest] * stage.tasks)])

    carry_out(plan_documents(settings, work, parts), "documents", {})
    drop = {name: drop_documents(settings, work, first) for name, first in firsts.items()}
    carry_out(plan_paragraphs(settings, work, parts, paragraphs), "paragraphs", drop)
    for name in NAMING:
        if (work / name / "named").exists():
            shutil.copytree(work / name / "named", directory / name / "named")
    tasks = sum(part.tasks for part in parts)
    found = {name: sum(len(read_named(directory / name, task)) for task in range(tasks)) for name in NAMING}
    return {
        "named": {part.name: _named_digest(directory, part, firsts[part.name]) for part in parts},
        "found": {_FOUND[name]: count for name, count in found.items() if count},
    }


def list_parts(documents: dict[str, Stage]) -> list[Part]:
    """The corpora in their order, with the number of their tasks."""
    return [Part(name, stage.facts["tasks"]) for name, stage in documents.items()]


def _named_digest(directory: Path, part: Part, first: int) -> str:
    """Digest of what was named of one corpus, whatever was named of others and how it was found."""
    digest = hashlib.sha256()
    for name in NAMING:
        for task in range(part.tasks):
            named = read_named(directory / name, first + task)
            digest.update(f"{name} {task} {len(named)} ".encode() + named.tobytes())
    return digest.hexdigest()
