"""Model directory to a server: `configs/serve.yaml`."""

from dataclasses import dataclass, field

from framework.checks import require, require_not_negative, require_positive
from framework.config.chat import ChatConfig
from framework.config.generate import ModelSource


@dataclass
class LimitsConfig:
    """What one request, and all of them together, may take; what exceeds it is refused with a status that says so."""

    queue: int = 64  # texts that wait for one of `rows`, and requests that wait to be classified or embedded; then 429
    maximum_tokens: int = 0  # that a request may ask for; 0: as many as there are positions
    texts: int = 256  # of one request for embeddings or classes
    body: int = 1 << 20  # bytes
    connections: int = 1024  # open at once; 503 for those above
    seconds: float = 300.0  # that a request may take, from its first byte on, with waiting
    grace: float = 30.0  # seconds that running requests have to end after SIGTERM

    def check(self) -> None:
        for name in ("queue", "maximum_tokens", "grace"):
            require_not_negative(f"limits.{name}", getattr(self, name))
        for name in ("texts", "body", "connections", "seconds"):
            require_positive(f"limits.{name}", getattr(self, name))


@dataclass
class ServeConfig:
    """`python -m framework.serve`: a model directory behind HTTP."""

    model: ModelSource = field(default_factory=ModelSource)
    name: str = ""  # of the model, as clients call it; empty: model.path
    host: str = "127.0.0.1"  # others than this machine's own need a key in LOAM_API_KEY
    port: int = 8000  # 0: a free one
    rows: int = 16  # texts that are written side by side
    positions: int = 0  # tokens of a text, prompt and continuation; 0: the model's, at most 4096
    prefill_tokens: int = 512  # of a prompt that is read between two tokens of the others
    chat: ChatConfig = field(default_factory=ChatConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def check(self, world_size: int = 1) -> None:
        require(world_size == 1, "torchrun", f"started {world_size} processes", "serve runs as one")
        require(bool(self.model.path), "model.path", "is missing", "give a model directory, e.g. runs/demo/model")
        require(bool(self.host), "host", "is empty", "give an address, e.g. 127.0.0.1")
        require(0 <= self.port < 65536, "port", f"is {self.port}", "it must lie in 0 to 65535")
        require_positive("rows", self.rows)
        require_not_negative("positions", self.positions)
        require_positive("prefill_tokens", self.prefill_tokens)
        self.chat.check()
        self.limits.check()
