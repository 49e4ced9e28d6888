"""Where metrics go besides `metrics.jsonl`: Weights & Biases, or nowhere."""

import netrc
import os
import uuid
from pathlib import Path
from typing import Any, Literal, Protocol

from framework.config import TrackerConfig
from framework.errors import UserError


class Tracker(Protocol):
    """Takes the record of each step, and in the end the summary."""

    def log(self, record: dict[str, Any]) -> None:
        """One step's record; it has `step`."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The run is over."""


class NoTracker:
    """`tracker=none`."""

    def log(self, record: dict[str, Any]) -> None:
        """Nothing to do: `metrics.jsonl` has the record."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Nothing to do: `summary.json` has the summary."""


class WandbTracker:
    """`tracker=wandb`: one W&B run for the whole job, taken up again when the run resumes."""

    def __init__(self, config: TrackerConfig, run: Path, settings: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "tracker.name: wandb is not installed; pip install 'loam[wandb]', or tracker=none"
            ) from error
        mode = _mode(config)
        id_file = run / "wandb.id"
        identity = id_file.read_text().strip() if id_file.exists() else uuid.uuid4().hex[:8]
        id_file.write_text(identity)
        self._run = wandb.init(
            project=config.project,
            name=run.name,
            id=identity,
            resume="allow" if mode == "online" else None,
            mode=mode,
            dir=str(run),
            config=settings,
            settings=wandb.Settings(silent=True),
        )

    def log(self, record: dict[str, Any]) -> None:
        """One step's record, under the names `metrics.jsonl` has."""
        self._run.log({key: value for key, value in record.items() if key != "step"}, step=record["step"])

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary and close the run."""
        self._run.summary.update(summary)
        self._run.finish()


def _mode(config: TrackerConfig) -> Literal["online", "offline"]:
    online = config.mode == "online" or (config.mode == "auto" and _has_key())
    return "online" if online else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def open_tracker(config: TrackerConfig, run: Path, settings: dict[str, Any]) -> Tracker:
    """The tracker that the configuration names."""
    return WandbTracker(config, run, settings) if config.name == "wandb" else NoTracker()
