"""What a text is asked for with, and the pieces in which it comes."""

from dataclasses import dataclass
from typing import Literal

from framework.checks import require, require_not_negative, require_positive
from framework.inference.sampling import Sampling

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Request:
    """A text that is to be continued.

    tokens: of the prompt, with what begins a text.
    maximum_tokens: of the continuation.
    stop: texts before the first of which it ends.
    log_probabilities: None: none are told; else those of the tokens that came, and of so many likeliest ones.

    Raises UserError, naming the field, where one is out of its range.
    """

    tokens: tuple[int, ...]
    maximum_tokens: int
    sampling: Sampling
    stop: tuple[str, ...] = ()
    log_probabilities: int | None = None

    def __post_init__(self) -> None:
        require(bool(self.tokens), "prompt", "is empty, and this model has no token that starts a text", "give one")
        require_positive("maximum_tokens", self.maximum_tokens)
        if self.log_probabilities is not None:
            require_not_negative("log_probabilities", self.log_probabilities)


@dataclass(frozen=True)
class Likelihood:
    """How likely the model held a token, before temperature and whatever else changes the distribution.

    log_probability: natural logarithm.
    alternatives: the likeliest tokens there, whether or not it is among them, and their log-probabilities.
    """

    log_probability: float
    alternatives: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Piece:
    """What one step adds to a continuation.

    text: what is certain now; it may be empty, where bytes are part of a character or may begin a stop text.
    tokens: the ids that came; the one that ends a text is left out.
    likelihoods: of each, where they were asked for.
    finish: None: more will come; stop: the model ended the text, or a stop text came; length: `maximum_tokens` came.
    """

    text: str
    tokens: tuple[int, ...] = ()
    likelihoods: tuple[Likelihood, ...] = ()
    finish: Finish | None = None
