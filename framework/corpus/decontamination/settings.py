"""Settings of decontamination. Plain data: imports nothing heavy."""

from dataclasses import dataclass, field

from framework.checks import require


@dataclass
class EvaluationSet:
    path: str = ""  # file, URL or pattern: .txt, texts between empty lines; .jsonl, one a line; either compressed
    field: str = "text"  # of .jsonl: a string or a list of strings; name the file again for another field

    def check(self, prefix: str) -> None:
        require(bool(self.path), f"{prefix}.path", "is empty", "give a .txt or .jsonl file or a pattern")


@dataclass
class DecontaminationSettings:
    evaluation: list[EvaluationSet] = field(default_factory=list)  # none: no document is dropped
    ngram_words: int = 13  # Brown et al. 2020, arXiv:2005.14165, appendix C
    # A shorter evaluation text of at least so many words counts as one n-gram of its own length; 8 is the least
    # length that the paper takes. Still shorter ones are not looked for.
    minimum_words: int = 8

    def check(self, prefix: str) -> None:
        for number, evaluation in enumerate(self.evaluation):
            evaluation.check(f"{prefix}.evaluation[{number}]")
        require(self.ngram_words >= 2, f"{prefix}.ngram_words", f"is {self.ngram_words}", "give 2 or more")
        require(
            1 <= self.minimum_words <= self.ngram_words,
            f"{prefix}.minimum_words",
            f"is {self.minimum_words}",
            f"it must lie between 1 and ngram_words={self.ngram_words}",
        )
