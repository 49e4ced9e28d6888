"""Settings of deduplication. Plain data: imports nothing heavy."""

from dataclasses import dataclass

from framework.checks import require


@dataclass
class DeduplicationSettings:
    exact: bool = True  # drop documents whose text came before, in any corpus
    near: bool = False  # drop documents that nearly came before, in any corpus
    # MinHash: two texts of Jaccard similarity s over their word n-grams are found to be near with probability
    # 1 - (1 - s^rows)^bands: 0.77 at s = 0.75 and 0.92 at 0.8 as it stands, the values of FineWeb
    # (Penedo et al. 2024, arXiv:2406.17557, section 3.3).
    ngram_words: int = 5
    bands: int = 14
    rows: int = 8
    seed: int = 1  # of the hash functions
    paragraph_minimum_characters: int = 40  # shorter paragraphs are never dropped for having come before
    boilerplate_pages: int = 0  # lines on so many pages of one host go from all of them; 0: off
    boilerplate_maximum_characters: int = 500  # longer lines are no boilerplate
    partitions: int = 16  # a worker holds one part in so many of all digests: 28 bytes each, three times over

    def check(self, prefix: str) -> None:
        for name in ("ngram_words", "bands", "rows", "partitions", "boilerplate_maximum_characters"):
            require(getattr(self, name) >= 1, f"{prefix}.{name}", f"is {getattr(self, name)}", "give 1 or more")
        require(self.partitions <= 1024, f"{prefix}.partitions", f"is {self.partitions}", "give 1024 at most")
        for name in ("paragraph_minimum_characters", "boilerplate_pages"):
            require(getattr(self, name) >= 0, f"{prefix}.{name}", "is negative", "give 0 or more")
        require(self.boilerplate_pages != 1, f"{prefix}.boilerplate_pages", "is 1: all text would go", "give 2 or more")
