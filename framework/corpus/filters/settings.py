"""Settings of the filters, with the paper that each threshold comes from. Plain data: imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Any

from framework.checks import require


def require_fractions(prefix: str, settings: Any, *names: str) -> None:
    """Raise `UserError` unless each of the named fields lies between 0 and 1."""
    for name in names:
        value = getattr(settings, name)
        require(0 <= value <= 1, f"{prefix}.{name}", f"is {value}", "it is a share between 0 and 1")


@dataclass
class LanguageSettings:
    languages: list[str] = field(default_factory=lambda: ["en"])  # ISO 639-1 codes that are kept
    minimum_probability: float = 0.65  # FineWeb, section 3.1 (there of fastText's classifier)

    def check(self, prefix: str) -> None:
        require(bool(self.languages), f"{prefix}.languages", "names none", "give codes such as en")
        require_fractions(prefix, self, "minimum_probability")


@dataclass
class GopherRepetitionSettings:
    """Rae et al. 2021, arXiv:2112.11446, table A1: shares of a document, above which it is dropped (0: off)."""

    duplicate_line_fraction: float = 0.30
    duplicate_paragraph_fraction: float = 0.30
    duplicate_line_character_fraction: float = 0.20
    duplicate_paragraph_character_fraction: float = 0.20
    # words in the n-gram: share of the characters that its most frequent one may cover
    top_ngram_character_fraction: dict[int, float] = field(default_factory=lambda: {2: 0.20, 3: 0.18, 4: 0.16})
    # words in the n-gram: share of the characters that repeated ones may cover
    duplicate_ngram_character_fraction: dict[int, float] = field(
        default_factory=lambda: {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    )

    def check(self, prefix: str) -> None:
        require_fractions(
            prefix,
            self,
            "duplicate_line_fraction",
            "duplicate_paragraph_fraction",
            "duplicate_line_character_fraction",
            "duplicate_paragraph_character_fraction",
        )
        for name in ("top_ngram_character_fraction", "duplicate_ngram_character_fraction"):
            for words, share in getattr(self, name).items():
                entry = f"{prefix}.{name}.{words}"
                require(2 <= words <= 10, entry, f"is for {words} words", "n-grams have 2 to 10")
                require(0 <= share <= 1, entry, f"is {share}", "it is a share between 0 and 1")


@dataclass
class GopherQualitySettings:
    """Rae et al. 2021, arXiv:2112.11446, appendix A1.1."""

    minimum_words: int = 50
    maximum_words: int = 100_000
    minimum_mean_word_characters: float = 3
    maximum_mean_word_characters: float = 10
    maximum_symbols_per_word: float = 0.1  # "#" and "..." each
    maximum_bullet_line_fraction: float = 0.9
    maximum_ellipsis_line_fraction: float = 0.3
    minimum_alphabetic_word_fraction: float = 0.8
    minimum_stop_words: int = 2  # different ones
    stop_words: list[str] = field(  # English; another language needs its own
        default_factory=lambda: ["the", "be", "to", "of", "and", "that", "have", "with"]
    )

    def check(self, prefix: str) -> None:
        for name in ("minimum_words", "maximum_words"):
            require(getattr(self, name) >= 1, f"{prefix}.{name}", f"is {getattr(self, name)}", "give 1 or more")
        require_fractions(
            prefix,
            self,
            "maximum_bullet_line_fraction",
            "maximum_ellipsis_line_fraction",
            "minimum_alphabetic_word_fraction",
        )
        require(
            len(set(self.stop_words)) >= self.minimum_stop_words,
            f"{prefix}.stop_words",
            f"has fewer than minimum_stop_words={self.minimum_stop_words}",
            "no document could pass; add words or lower it",
        )


@dataclass
class C4Settings:
    """Raffel et al. 2019, arXiv:1910.10683, section 2.2. Lines are dropped, then what is left is judged."""

    require_terminal_punctuation: bool = True  # else the line goes
    minimum_words_per_line: int = 3  # else the line goes
    maximum_word_characters: int = 1000  # else the line goes; from the code of C4, not the paper
    minimum_sentences: int = 5
    drop_lorem_ipsum: bool = True
    drop_curly_brackets: bool = True  # whole documents: turn it off for text about programs
    drop_javascript_lines: bool = True
    drop_policy_lines: bool = True  # cookies, terms of use
    remove_citations: bool = True  # "[1]", "[edit]", "[citation needed]"

    def check(self, prefix: str) -> None:
        for name in ("minimum_words_per_line", "maximum_word_characters", "minimum_sentences"):
            require(getattr(self, name) >= 0, f"{prefix}.{name}", "is negative", "give 0 or more")


@dataclass
class FineWebSettings:
    """Penedo et al. 2024, arXiv:2406.17557, section 3.4."""

    minimum_terminal_line_fraction: float = 0.12  # lines that end in punctuation
    maximum_short_line_fraction: float = 0.67
    short_line_characters: int = 30  # a line of so many or fewer is short
    # Ours, and looser than datatrove's default of 0.01.
    maximum_duplicate_line_character_fraction: float = 0.1
    maximum_lines_per_word: float = 0.3  # from that pipeline, not in the paper

    def check(self, prefix: str) -> None:
        require_fractions(
            prefix,
            self,
            "minimum_terminal_line_fraction",
            "maximum_short_line_fraction",
            "maximum_duplicate_line_character_fraction",
        )


@dataclass
class PersonalDataSettings:
    emails: bool = True
    ip_addresses: bool = True  # of public ranges
    credit_cards: bool = True  # with a valid checksum
    phones: bool = True
    # Countries (ISO 3166 codes) whose numbers are recognised without "+": an empty list means only with it.
    phone_regions: list[str] = field(default_factory=lambda: ["US"])

    def check(self, prefix: str) -> None:
        for region in self.phone_regions:
            plain = len(region) == 2 and region.isalpha() and region.isupper()
            require(plain, f"{prefix}.phone_regions", f"has {region!r}", "give ISO 3166 codes such as US")


@dataclass
class BlocklistSettings:
    path: str = ""  # UTF-8 text, one domain a line, "#" starts a comment; subdomains match too

    def check(self, prefix: str) -> None:
        require(bool(self.path), f"{prefix}.path", "is empty", "give a file with one domain a line")


@dataclass
class FilterSettings:
    """Which filters a corpus passes, in which order, and their thresholds."""

    use: list[str] = field(default_factory=list)  # names of the fields below, in order
    blocklist: BlocklistSettings = field(default_factory=BlocklistSettings)
    language: LanguageSettings = field(default_factory=LanguageSettings)
    gopher_repetition: GopherRepetitionSettings = field(default_factory=GopherRepetitionSettings)
    gopher_quality: GopherQualitySettings = field(default_factory=GopherQualitySettings)
    c4: C4Settings = field(default_factory=C4Settings)
    fineweb: FineWebSettings = field(default_factory=FineWebSettings)
    personal_data: PersonalDataSettings = field(default_factory=PersonalDataSettings)
    dropped_sample: int = 20  # dropped documents kept for reading, for each rule

    def check(self, prefix: str) -> None:
        """Raise `UserError` for a filter that does not exist or a setting that makes no sense."""
        for name in self.use:
            require(name in FILTERS, f"{prefix}.use", f"unknown filter {name!r}", f"choose among {', '.join(FILTERS)}")
            require(self.use.count(name) == 1, f"{prefix}.use", f"has {name!r} twice", "name it once")
            getattr(self, name).check(f"{prefix}.{name}")
        require(self.dropped_sample >= 0, f"{prefix}.dropped_sample", "is negative", "give 0 or more")


FILTERS = tuple(name for name in FilterSettings.__dataclass_fields__ if name not in ("use", "dropped_sample"))
