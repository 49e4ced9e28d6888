"""Decontamination: training documents that share an n-gram with an evaluation set are dropped and reported.

Importing this package costs nothing; the step imports datatrove, so it is imported when it is built.
"""

from typing import TYPE_CHECKING

from framework.corpus.decontamination.settings import DecontaminationSettings

if TYPE_CHECKING:
    from datatrove.pipeline.base import PipelineStep

    from framework.corpus.filters.sample import DroppedSample


def decontamination_steps(
    settings: DecontaminationSettings, report: str | None = None, sample: "DroppedSample | None" = None
) -> "list[PipelineStep]":
    """The step that drops contaminated documents; none where no evaluation set is named.

    Args:
        settings: which evaluation sets, and the length of the n-grams.
        report: folder for one line of JSON for each document that is dropped; None writes none.
        sample: of what is dropped.

    Raises:
        UserError: a setting is wrong, or an evaluation file cannot be read.
    """
    settings.check("decontamination")
    if not settings.evaluation:
        return []
    from framework.corpus.decontamination.step import Decontaminate

    return [Decontaminate(settings, report, sample)]
