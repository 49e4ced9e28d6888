"""Model directories to numbers: `configs/evaluate.yaml`."""

from dataclasses import dataclass, field

from framework.checks import require, require_not_negative, require_positive
from framework.config.generate import ModelSource
from framework.config.record import TrackerConfig
from framework.config.tasks import BiasConfig, HarnessConfig, TasksConfig


@dataclass
class PerplexityConfig:
    """Perplexity and bits per byte; without `data` and `text` there is none."""

    data: str = ""  # what `prepare` wrote: the held-out documents of each corpus
    text: dict[str, str] = field(default_factory=dict)  # by name of the corpus: .jsonl or .txt files, as a pattern
    text_field: str = "text"  # of a line of .jsonl
    context: int = 0  # tokens that the model sees at a time; 0: as many as it has positions
    stride: int = 0  # tokens between the beginnings of two windows of a longer document; 0: context, no overlap
    # data only: tokens of a row into which documents are cut one behind the other, as pretraining's
    # data.sequence_length does for its held-out figures; 0: each document by itself
    row_length: int = 0
    documents: int = 0  # of a corpus, the first ones; 0: all

    def check(self) -> None:
        for name in ("context", "stride", "row_length", "documents"):
            require_not_negative(f"perplexity.{name}", getattr(self, name))
        require(
            not (self.context and self.stride > self.context),
            "perplexity.stride",
            f"{self.stride} exceeds perplexity.context={self.context}, so tokens would be left out",
            "lower it",
        )
        require(
            not (self.row_length and (self.text or self.context or self.stride or self.documents)),
            "perplexity.row_length",
            "is for whole held-out splits of perplexity.data",
            "leave out text, context, stride and documents beside it",
        )


@dataclass
class MemorizationConfig:
    """Exact continuation of training text; without `data` and `text` there is none."""

    data: str = ""  # what `prepare` wrote: training documents of each corpus, beside held-out ones
    text: dict[str, str] = field(default_factory=dict)  # text trained on, as in perplexity.text
    held_out: dict[str, str] = field(default_factory=dict)  # text not trained on, under the same names
    text_field: str = "text"  # of a line of .jsonl
    prefix_tokens: int = 50  # of a passage, which the model is given
    continuation_tokens: int = 50  # of a passage, which it is to write
    passages: int = 500  # of each corpus and side, at most; one a document
    seed: int = 0  # of their choice

    def check(self) -> None:
        for name in ("prefix_tokens", "continuation_tokens", "passages"):
            require_positive(f"memorization.{name}", getattr(self, name))
        require_not_negative("memorization.seed", self.seed)
        odd = sorted(set(self.held_out) - set(self.text))
        require(
            not odd,
            f"memorization.held_out.{(odd or [''])[0]}",
            "has no text that was trained on beside it",
            "give memorization.text of the same name",
        )


@dataclass
class Questions:
    """What a model is asked; a group without data asks nothing."""

    batch_tokens: int = 8192  # tokens of a forward pass of one rank
    perplexity: PerplexityConfig = field(default_factory=PerplexityConfig)
    memorization: MemorizationConfig = field(default_factory=MemorizationConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    harness: HarnessConfig = field(default_factory=HarnessConfig)
    bias: BiasConfig = field(default_factory=BiasConfig)

    def check_questions(self, prefix: str = "") -> None:
        require_positive(f"{prefix}batch_tokens", self.batch_tokens)
        for part in (self.perplexity, self.memorization, self.tasks, self.harness, self.bias):
            part.check()


@dataclass
class EvaluationConfig(Questions):
    """What a model is asked while it is trained, beside the held-out loss."""

    every: int = 0  # steps between evaluations, and at the last step; 0: none

    def check(self) -> None:
        require_not_negative("evaluation.every", self.every)
        self.check_questions("evaluation.")


@dataclass
class EvaluateConfig(Questions):
    """`python -m framework.evaluate`: model directories to results.json and report.html."""

    model: ModelSource = field(default_factory=ModelSource)
    models: list[str] = field(default_factory=list)  # several model directories; each is compared with the first
    output: str = ""  # directory for results.json and report.html
    tracker: TrackerConfig = field(default_factory=TrackerConfig)

    @property
    def paths(self) -> list[str]:
        """The model directories, the one that others are compared with first."""
        return self.models or [self.model.path]

    def check(self, world_size: int = 1) -> None:
        require(
            bool(self.model.path) != bool(self.models),
            "model.path",
            "and models are both given" if self.models else "is missing",
            "give model.path=DIRECTORY, or models=[DIRECTORY,DIRECTORY] for several",
        )
        repeated = [path for path in self.models if self.models.count(path) > 1]
        require(not repeated, "models", f"names {(repeated or [''])[0]} twice", "name each once")
        require(bool(self.output), "output", "is missing", "name a directory for results.json and report.html")
        self.check_questions()
        self.tracker.check()
        require(self.tracker.name != "tensorboard", "tracker.name", "is tensorboard", "choose none | wandb")
