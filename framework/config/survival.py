"""What keeps a run alive: checkpoints."""

from dataclasses import dataclass

from framework.checks import require_not_negative, require_positive


@dataclass
class CheckpointConfig:
    every: int = 100  # steps; the last step is always kept
    keep: int = 2  # newest ones kept
    keep_every: int = 0  # and those whose step is a multiple of this; 0: none

    def check(self) -> None:
        require_positive("checkpoint.every", self.every)
        require_positive("checkpoint.keep", self.keep)
        require_not_negative("checkpoint.keep_every", self.keep_every)
