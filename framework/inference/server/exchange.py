"""What is known of one request while it is answered."""

import contextlib
from dataclasses import dataclass, field

HUNG_UP = 499  # as nginx has it; nobody sees it but the metrics and the log
POSTS = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/classify")  # what a model can be asked


@dataclass
class Exchange:
    """One request and what became of it; `scope["loam"]`.

    What has to be given back, whatever happens, is in `at_end`.
    """

    began: float  # on the clock of the event loop, seconds
    deadline: float
    status: int = HUNG_UP  # until an answer begins
    answered: bool = False
    reason: str = ""  # of a refusal, for the log
    first_token: float | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    at_end: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
