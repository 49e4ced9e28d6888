"""The published heuristics, by datatrove's own filters under Loam's settings and rule names."""

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result

from framework.corpus.filters import rules
from framework.corpus.filters.sample import DroppedSample
from framework.corpus.filters.settings import (
    C4Settings,
    FineWebSettings,
    GopherQualitySettings,
    GopherRepetitionSettings,
)
from framework.corpus.filters.words import UnicodeWords


class Heuristic(BaseFilter):
    """One of datatrove's filters, whose reasons are called by the names of `rules.RULES`.

    Memory: the words of the last five documents, which datatrove keeps for the next filter.
    """

    def __init__(self, name: str, judge: BaseFilter, names: dict[str, str], sample: DroppedSample | None) -> None:
        super().__init__(sample)
        self.name = name
        self.stats.name = str(self)
        judge.stats = self.stats  # what the judge counts about lines belongs to this step
        self._judge = judge
        self._names = names

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether the document stays, else the rule that it broke."""
        keep, reason = get_filter_result(self._judge.filter(doc))
        return True if keep else (False, self._names[reason])


def gopher_repetition(settings: GopherRepetitionSettings, sample: DroppedSample | None = None) -> Heuristic:
    """Too much repetition: Rae et al. 2021, arXiv:2112.11446, table A1."""
    judge = GopherRepetitionFilter(
        dup_line_frac=settings.duplicate_line_fraction,
        dup_para_frac=settings.duplicate_paragraph_fraction,
        dup_line_char_frac=settings.duplicate_line_character_fraction,
        dup_para_char_frac=settings.duplicate_paragraph_character_fraction,
        top_n_grams=tuple(sorted(settings.top_ngram_character_fraction.items())),
        dup_n_grams=tuple(sorted(settings.duplicate_ngram_character_fraction.items())),
        language=UnicodeWords(),
    )
    return Heuristic("gopher_repetition", judge, rules.GOPHER_REPETITION, sample)


def gopher_quality(settings: GopherQualitySettings, sample: DroppedSample | None = None) -> Heuristic:
    """Not like prose: Rae et al. 2021, arXiv:2112.11446, appendix A1.1."""
    judge = GopherQualityFilter(
        min_doc_words=settings.minimum_words,
        max_doc_words=settings.maximum_words,
        min_avg_word_length=settings.minimum_mean_word_characters,
        max_avg_word_length=settings.maximum_mean_word_characters,
        max_symbol_word_ratio=settings.maximum_symbols_per_word,
        max_bullet_lines_ratio=settings.maximum_bullet_line_fraction,
        max_ellipsis_lines_ratio=settings.maximum_ellipsis_line_fraction,
        max_non_alpha_words_ratio=settings.minimum_alphabetic_word_fraction,
        min_stop_words=settings.minimum_stop_words,
        stop_words=list(settings.stop_words),
        language=UnicodeWords(),
    )
    return Heuristic("gopher_quality", judge, rules.GOPHER_QUALITY, sample)


def c4(settings: C4Settings, sample: DroppedSample | None = None) -> Heuristic:
    """Lines that are no sentences go, then documents with too few: Raffel et al. 2019, arXiv:1910.10683."""
    judge = C4QualityFilter(
        remove_citations=settings.remove_citations,
        filter_no_terminal_punct=settings.require_terminal_punctuation,
        min_num_sentences=settings.minimum_sentences or -1,  # -1: datatrove's word for off
        min_words_per_line=settings.minimum_words_per_line,
        max_word_length=settings.maximum_word_characters or -1,
        filter_lorem_ipsum=settings.drop_lorem_ipsum,
        filter_javascript=settings.drop_javascript_lines,
        filter_curly_bracket=settings.drop_curly_brackets,
        filter_policy=settings.drop_policy_lines,
        language=UnicodeWords(),
    )
    return Heuristic("c4", judge, rules.C4, sample)


def fineweb(settings: FineWebSettings, sample: DroppedSample | None = None) -> Heuristic:
    """Lists and fragments: Penedo et al. 2024, arXiv:2406.17557, section 3.4."""
    judge = FineWebQualityFilter(
        line_punct_thr=settings.minimum_terminal_line_fraction,
        short_line_thr=settings.maximum_short_line_fraction,
        short_line_length=settings.short_line_characters,
        char_duplicates_ratio=settings.maximum_duplicate_line_character_fraction,
        new_line_ratio=settings.maximum_lines_per_word,
        language=UnicodeWords(),
    )
    return Heuristic("fineweb", judge, rules.FINEWEB, sample)
