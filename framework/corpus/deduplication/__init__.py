"""Deduplication within and across corpora: passes over the documents with decisions between them.

A plan has two parts. Every corpus runs its `sign` steps behind its documents (they let them pass). When all corpora
have done so, the stages of `decide` run, one after another. They name what is to go in folders beside the
signatures (`NAMING`); `drop_documents` and `drop_paragraphs` are the steps that drop it, behind the same documents,
in the same tasks.

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

EXACT, NEAR, PARAGRAPHS, HOST_LINES = "exact", "near", "paragraphs", "host-lines"
NAMING = (EXACT, NEAR, PARAGRAPHS, HOST_LINES)  # in FOLDER/NAME/named is what has to go


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
    """Steps by corpus, and the stages that follow them; nothing where nothing is to be done."""

    sign: "dict[str, list[PipelineStep]]"
    decide: list[Stage]


def plan_documents(settings: DeduplicationSettings, folder: Path, parts: Sequence[Part]) -> Plan:
    """Name documents that are the same as, or nearly the same as, an earlier one of any corpus.

    Args:
        settings: `exact` and `near` say what is done.
        folder: a new or empty one, on a disk that all workers see, for digests and signatures.
        parts: the corpora, first the ones whose documents stay.

    Raises:
        UserError: a setting is wrong.
    """
    from framework.corpus.deduplication.digests import FindRepeated
    from framework.corpus.deduplication.documents import DocumentDigests
    from framework.corpus.deduplication.minhash import KeepFirstOfClusters, MinhashBands, MinhashSignatures

    settings.check("deduplication")
    firsts = first_tasks(parts)
    plan = Plan({part.name: [] for part in parts}, [])
    if settings.exact:
        exact = folder / EXACT
        plan.decide.append(Stage("exact duplicates", settings.partitions, [FindRepeated(exact)]))
        for name, first in firsts.items():
            plan.sign[name].append(DocumentDigests(exact, first, settings.partitions))
    if settings.near:
        signatures, pairs = folder / NEAR / "signatures", folder / NEAR / "pairs"
        plan.decide.append(Stage("MinHash bands", settings.bands, [MinhashBands(signatures, pairs, settings)]))
        plan.decide.append(Stage("MinHash clusters", 1, [KeepFirstOfClusters(pairs, folder / NEAR)]))
        for name, first in firsts.items():
            plan.sign[name].append(MinhashSignatures(signatures, first, settings))
    return plan


def plan_paragraphs(settings: DeduplicationSettings, folder: Path, parts: Sequence[Part], among: Sequence[str]) -> Plan:
    """Name paragraphs that came before, and lines that their hosts put on many pages.

    To be run on what `drop_documents` has left: of a paragraph that came first in a document that is dropped,
    no copy would stay. Documents get shorter, so a minimum length has to be asked for afterwards.

    Args, errors: as in `plan_documents`.
        among: names of the corpora whose paragraphs are compared (web).
    """
    from framework.corpus.deduplication.digests import FindRepeated
    from framework.corpus.deduplication.paragraphs import HostLineDigests, ParagraphDigests

    settings.check("deduplication")
    plan = Plan({part.name: [] for part in parts}, [])
    if not among:
        return plan
    repeated, host_lines = folder / PARAGRAPHS, folder / HOST_LINES
    plan.decide.append(Stage("repeated paragraphs", settings.partitions, [FindRepeated(repeated)]))
    if settings.boilerplate_pages:
        find = FindRepeated(host_lines, settings.boilerplate_pages)
        plan.decide.append(Stage("lines of hosts", settings.partitions, [find]))
    for name, first in first_tasks(parts).items():
        if name in among:
            plan.sign[name].append(ParagraphDigests(repeated, first, settings))
            if settings.boilerplate_pages:
                plan.sign[name].append(HostLineDigests(host_lines, first, settings))
    return plan


def drop_documents(
    settings: DeduplicationSettings, folder: Path, first_task: int, sample: "DroppedSample | None" = None
) -> "list[PipelineStep]":
    """The step that drops what a plan for documents has named; none where nothing was asked for.

    Args:
        settings: those of the plan.
        folder: of the plan; what the stages named is enough.
        first_task: of the corpus (`first_tasks`).
        sample: of what is dropped.
    """
    from framework.corpus.deduplication.documents import DropDocuments

    rules = {"duplicate": (settings.exact, EXACT), "near_duplicate": (settings.near, NEAR)}
    folders = {rule: folder / name for rule, (asked, name) in rules.items() if asked}
    return [DropDocuments(folders, first_task, sample)] if folders else []


def drop_paragraphs(
    settings: DeduplicationSettings, folder: Path, first_task: int, sample: "DroppedSample | None" = None
) -> "list[PipelineStep]":
    """The step that takes out what a plan for paragraphs has named; arguments as in `drop_documents`."""
    from framework.corpus.deduplication.paragraphs import DropParagraphs

    folders = [folder / PARAGRAPHS, *([folder / HOST_LINES] if settings.boilerplate_pages else [])]
    return [DropParagraphs("duplicate_paragraphs", folders, first_task, sample)]


def first_tasks(parts: Sequence[Part]) -> dict[str, int]:
    """The number of each corpus's first task among the tasks of all."""
    starts = accumulate((part.tasks for part in parts), initial=0)
    return {part.name: first for part, first in zip(parts, starts, strict=False)}
