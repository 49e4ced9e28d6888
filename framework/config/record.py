"""What a run is called and how it is watched."""

import re
from dataclasses import dataclass

from framework.checks import require, require_choice, require_not_negative, require_positive


@dataclass
class RunConfig:
    name: str = "first"  # the run directory is directory/name
    directory: str = "runs"
    resume: str = "auto"  # auto: from the newest sound checkpoint if there is one | never: refuse an existing run
    seed: int = 0  # of the initial weights
    stop_after: int = 0  # stop with a checkpoint after this step; 0: run to schedule.steps
    log_every: int = 10  # steps between lines on the console; metrics.jsonl has every step

    def check(self) -> None:
        require_choice("run.resume", self.resume, ("auto", "never"))
        require_positive("run.log_every", self.log_every)
        require_not_negative("run.stop_after", self.stop_after)
        require(
            re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", self.name) is not None,
            "run.name",
            f"{self.name!r} is no directory name",
            "use letters, digits, '.', '_' and '-', the first a letter or digit",
        )


@dataclass
class ValidationConfig:
    every: int = 100  # steps between evaluations on the held-out split; the last step is always evaluated

    def check(self) -> None:
        require_positive("validation.every", self.every)


@dataclass
class TrackerConfig:
    name: str = "none"  # none | wandb
    project: str = "loam"
    mode: str = "auto"  # wandb: auto (online where there is a key, else offline) | online | offline

    def check(self) -> None:
        require_choice("tracker.name", self.name, ("none", "wandb"))
        require_choice("tracker.mode", self.mode, ("auto", "online", "offline"))
