"""Deduplication within and across corpora: passes over the documents with decisions between them.

A plan has three parts. Every corpus runs its `sign` steps behind its documents (they let them pass, so they can
stand at the end of a pipeline that does something else). When all corpora have done so, the stages of `decide`
run, one after another. Then every corpus runs its `drop` steps behind the same documents, in the same tasks.

First is what comes first in the order of the corpora as they are listed, of their tasks, and of the documents in
a task. Where tasks in their order are the files of a corpus in theirs, the number of tasks changes nothing, and
the number of workers never does.

Importing this package costs nothing; the steps import datatrove, so they are imported when they are built.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from framework.corpus.deduplication.settings import DeduplicationSettings

if TYPE_CHECKING:
    from datatrove.pipeline.base import PipelineStep

    from framework.corpus.filters.sample import DroppedSample


@dataclass(frozen=True)
class Part:
    """One corpus that takes part."""

    name: str
    tasks: int  # that its documents come in


@dataclass(frozen=True)
class Stage:
    """A pipeline without documents, of so many tasks."""

    name: str
    tasks: int
    steps: "list[PipelineStep]"


@dataclass(frozen=True)
class Plan:
    """Steps by corpus, and the stages between them; nothing where nothing is to be done."""

    sign: "dict[str, list[PipelineStep]]"
    decide: list[Stage]
    drop: "dict[str, list[PipelineStep]]"


def plan_documents(
    settings: DeduplicationSettings, folder: str | Path, parts: Sequence[Part], dropped: str | Path | None = None
) -> Plan:
    """Drop documents that are the same as, or nearly the same as, an earlier one of any corpus.

    Args:
        settings: `exact` and `near` say what is done.
        folder: a new or empty one, on a disk that all workers see, for digests and signatures.
        parts: the corpora, first the ones whose documents stay.
        dropped: folder for the samples of what is dropped; each corpus has one of its own in it.

    Raises:
        UserError: a setting is wrong.
    """
    from framework.corpus.deduplication.digests import FindRepeated
    from framework.corpus.deduplication.documents import DocumentDigests, DropDocuments

    settings.check("deduplication")
    folder = Path(folder)
    firsts = _first_tasks(parts)
    plan = Plan({part.name: [] for part in parts}, [], {part.name: [] for part in parts})
    folders = {}
    if settings.exact:
        folders["duplicate"] = exact = folder / "exact"
        plan.decide.append(Stage("exact duplicates", settings.partitions, [FindRepeated(exact)]))
        for part in parts:
            plan.sign[part.name].append(DocumentDigests(exact, firsts[part.name], settings.partitions))
    if settings.near:
        folders["near_duplicate"] = near = folder / "near"
        _plan_near(plan, settings, near, firsts)
    for name, steps in plan.drop.items() if folders else ():
        steps.append(
            DropDocuments(folders, firsts[name], _sample(dropped, name, "duplicates", settings.dropped_sample))
        )
    return plan


def _plan_near(plan: Plan, settings: DeduplicationSettings, folder: Path, firsts: dict[str, int]) -> None:
    from framework.corpus.deduplication.minhash import KeepFirstOfClusters, MinhashBands, MinhashSignatures

    signatures, pairs = folder / "signatures", folder / "pairs"
    for name, first in firsts.items():
        plan.sign[name].append(MinhashSignatures(signatures, first, settings))
    plan.decide.append(Stage("MinHash bands", settings.bands, [MinhashBands(signatures, pairs, settings)]))
    plan.decide.append(Stage("MinHash clusters", 1, [KeepFirstOfClusters(pairs, folder)]))


def plan_paragraphs(
    settings: DeduplicationSettings, folder: str | Path, parts: Sequence[Part], dropped: str | Path | None = None
) -> Plan:
    """Take out of documents the paragraphs that came before, and the lines that their hosts put on many pages.

    To be run on what `plan_documents` has left: of a paragraph that came first in a document that is dropped,
    no copy would stay. Documents get shorter, so a minimum length has to be asked for afterwards.

    Args, errors: as in `plan_documents`; `parts` are the corpora whose paragraphs are compared (web).
    """
    from framework.corpus.deduplication.digests import FindRepeated
    from framework.corpus.deduplication.paragraphs import DropParagraphs, HostLineDigests, ParagraphDigests

    settings.check("deduplication")
    repeated, host_lines = Path(folder) / "paragraphs", Path(folder) / "host-lines"
    firsts = _first_tasks(parts)
    plan = Plan({}, [Stage("repeated paragraphs", settings.partitions, [FindRepeated(repeated)])], {})
    folders = [repeated]
    if settings.boilerplate_pages:
        folders.append(host_lines)
        find = FindRepeated(host_lines, settings.boilerplate_pages)
        plan.decide.append(Stage("lines of hosts", settings.partitions, [find]))
    for name, first in firsts.items():
        plan.sign[name] = [ParagraphDigests(repeated, first, settings)]
        if settings.boilerplate_pages:
            plan.sign[name].append(HostLineDigests(host_lines, first, settings))
        sample = _sample(dropped, name, "paragraphs", settings.dropped_sample)
        plan.drop[name] = [DropParagraphs("duplicate_paragraphs", folders, first, sample)]
    return plan


def _first_tasks(parts: Sequence[Part]) -> dict[str, int]:
    """The number of each corpus's first task among the tasks of all."""
    starts = accumulate((part.tasks for part in parts), initial=0)
    return {part.name: first for part, first in zip(parts, starts, strict=False)}


def _sample(dropped: str | Path | None, corpus: str, step: str, per_rule: int) -> "DroppedSample | None":
    from framework.corpus.filters.sample import DroppedSample

    return DroppedSample(str(Path(dropped) / corpus), step, per_rule) if dropped else None
