"""Quality filters: each a datatrove step that says by which rule it drops a document.

Importing this package costs nothing; the steps import datatrove, so they are imported when they are built.
"""

from typing import TYPE_CHECKING, Any

from framework.corpus.filters.settings import FilterSettings

if TYPE_CHECKING:
    from datatrove.pipeline.base import PipelineStep


def quality_steps(settings: FilterSettings, dropped: str | None = None) -> "list[PipelineStep]":
    """The filters that `settings.use` names, in that order.

    Args:
        settings: of one corpus.
        dropped: folder for the samples of what each rule dropped (`sample.merge_samples` reads them);
            None keeps none.

    Raises:
        UserError: a setting is wrong, or a file that it names.
    """
    from framework.corpus.filters import heuristics
    from framework.corpus.filters.blocklist import BlocklistFilter
    from framework.corpus.filters.language import LanguageFilter
    from framework.corpus.filters.personal_data import MaskPersonalData
    from framework.corpus.filters.sample import DroppedSample

    settings.check("filters")
    filters: dict[str, Any] = {
        "blocklist": BlocklistFilter,
        "language": LanguageFilter,
        "gopher_repetition": heuristics.gopher_repetition,
        "gopher_quality": heuristics.gopher_quality,
        "c4": heuristics.c4,
        "fineweb": heuristics.fineweb,
    }
    steps: list[PipelineStep] = []
    for name in settings.use:
        if name == "personal_data":
            steps.append(MaskPersonalData(settings.personal_data))
        else:
            sample = DroppedSample(dropped, name, settings.dropped_sample) if dropped else None
            steps.append(filters[name](getattr(settings, name), sample))
    return steps
