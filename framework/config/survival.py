"""What keeps a run alive: checkpoints, and what is done about a loss that leaps and a rank that hangs."""

from dataclasses import dataclass

from framework.checks import require, require_choice, require_not_negative, require_positive


@dataclass
class CheckpointConfig:
    every: int = 100  # steps; the last step is always kept
    keep: int = 2  # newest ones kept
    keep_every: int = 0  # and those whose step is a multiple of this; 0: none
    directory: str = ""  # they lie in DIRECTORY/NAME of the run, a path or s3://...; empty: in the run directory
    start_from: str = ""  # where a run begins that has none yet: a path or URL of checkpoints, or of one of them

    def check(self) -> None:
        require_positive("checkpoint.every", self.every)
        require_positive("checkpoint.keep", self.keep)
        require_not_negative("checkpoint.keep_every", self.keep_every)
        require(
            not self.directory.startswith(("http://", "https://")),
            "checkpoint.directory",
            f"{self.directory} can be read but not written",
            "choose a path or s3://..., and give the URL to checkpoint.start_from to begin from what lies there",
        )


@dataclass
class GuardConfig:
    """What is done about a step whose loss or gradient is not finite, or far above those before it (a spike).

    A factor is in robust standard deviations (1.4826 x the median absolute deviation) above the median. Gradient
    norms have the longer tail: in sound runs they go beyond 10, losses stay below 3.
    """

    name: str = (
        "rollback"  # stop: end where a number is not finite | skip: make no update | rollback: skip, and go back
    )
    window: int = 128  # updates that a step is measured against; spikes are looked for once half of them were made
    loss_factor: float = 10.0
    gradient_factor: float = 50.0  # of the global gradient norm before clipping
    skips: int = 20  # skip, rollback: the run ends when so many updates in a row were skipped
    spikes: int = 3  # rollback: so many skipped updates ...
    within: int = 50  # ... in so many steps take the run back to a checkpoint from before the first of them
    rollbacks: int = 5  # rollback: the run ends instead of going back once more
    timeout: float = 600.0  # seconds without progress after which the job ends and names the hung rank; 0: never

    def check(self) -> None:
        require_choice("guard.name", self.name, ("stop", "skip", "rollback"))
        require(
            self.window >= 4, "guard.window", f"is {self.window}", "it takes 4 or more, as half of them have a spread"
        )
        for name in ("loss_factor", "gradient_factor", "skips", "spikes", "within"):
            require_positive(f"guard.{name}", getattr(self, name))
        require_not_negative("guard.rollbacks", self.rollbacks)
        require_not_negative("guard.timeout", self.timeout)
        if self.name == "rollback":
            require(
                self.spikes <= self.within,
                "guard.spikes",
                f"{self.spikes} cannot fall within guard.within={self.within} steps",
                f"use {self.within} at most",
            )
            require(
                self.spikes <= self.skips,
                "guard.spikes",
                f"{self.spikes} in a row would end the run before it goes back, as guard.skips={self.skips} says",
                f"use {self.skips} at most",
            )
