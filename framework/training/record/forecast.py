"""What a plan says of a run before its first step, kept as `plan.json`, and what came of it after the last."""

import json
import os
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from framework import distributed
from framework.config import TrainingConfig
from framework.planning.parameters import parameters_of
from framework.planning.plan import plan_training
from framework.planning.wording import brief
from framework.training.checkpoints.store import MANIFEST, open_store
from framework.training.engine import Engine
from framework.training.start import logger, say
from framework.training.watching.memory import there_are

FILE = "plan.json"
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Given:
    """What there is to know of a model and its process before the engine takes the model, and shards it.

    Attributes:
        trained, frozen: shapes of parameters by name.
        packed_bytes: of weights that are no parameters.
        resident: bytes of this process before it had the model.
    """

    trained: Shapes
    frozen: Shapes
    packed_bytes: int
    resident: int

    @classmethod
    def of(cls, model: nn.Module, resident: int) -> "Given":
        """A model that is whole, its weights filled."""
        named = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
        return cls(
            trained={name: shape for name, shape, trains in named if trains},
            frozen={name: shape for name, shape, trains in named if not trains},
            packed_bytes=sum(_stored_bytes(module) for module in model.modules()),
            resident=resident,
        )


def foretell(run: Path, config: TrainingConfig, given: Given, engine: Engine) -> None:
    """Print the plan of a run and keep it; that it does not fit is a warning, as nobody knows better than a try."""
    if distributed.rank() != 0:
        return
    here = copy(config)
    here.cluster = replace(config.cluster, device="gpu" if engine.device.type == "cuda" else "cpu")
    plan = plan_training(
        here,
        parameters_of(here, given.trained, given.frozen, given.packed_bytes),
        engine.world_size,
        engine.processors,
        there_are(engine.device, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) * config.cluster.memory_share,
        "finetune" if hasattr(config, "task") else "pretrain",
    )
    for line in brief(plan, here):
        say(line)
    if not plan.verdict.fits:
        logger.warning("the plan is that memory does not suffice")
    partial = run / f".{FILE}.partial"
    partial.write_text(json.dumps(asdict(plan) | {"resident_before": given.resident}, indent=1) + "\n")
    partial.replace(run / FILE)


def comparison(run: Path, config: TrainingConfig, facts: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Prediction and fact by what they are of; what was not measured is left out.

    Args:
        run: the run directory.
        config: of the run.
        facts: `device`, `peak_bytes`, `tokens_per_second`, `training_seconds` of the run, and a rank's `trained`
            parameters.
    """
    plan = planned(run)
    partly = plan["purpose"] != "pretrain" or config.parallel.tensor > 1  # no rank has all of the model to count
    memory = "memory_bytes" if facts["device"] == "cuda" else "memory_of_process_bytes"  # with libraries, not planned
    found = {
        "parameters": (plan["work"]["parameters"], None if partly else facts["trained"]),
        memory: (plan["memory"]["moments"][plan["memory"]["moment"]], facts.get("peak_bytes")),
        "tokens_per_second": (plan["duration"]["tokens_per_second"], facts["tokens_per_second"]),
        "training_seconds": (plan["duration"]["seconds"], facts["training_seconds"]),
        "checkpoint_bytes": (plan["checkpoints"]["bytes"], _checkpoint_bytes(run, config)),
    }
    return {name: {"predicted": one, "fact": other} for name, (one, other) in found.items() if other}


def peak_bytes(run: Path, records: list[dict[str, Any]], device: torch.device) -> int | None:
    """Of the fullest rank; without a GPU, what its process grew by since before it had a model."""
    peak = max((record["memory/peak_bytes"] for record in records if "memory/peak_bytes" in record), default=None)
    if peak is None or device.type == "cuda":
        return peak  # also of what other runs of this process took, as in a sweep
    return int(peak - planned(run)["resident_before"])


def planned(run: Path) -> dict[str, Any]:
    """What `foretell` kept, as JSON; empty for a run that has none."""
    found: dict[str, Any] = json.loads((run / FILE).read_bytes()) if (run / FILE).exists() else {}
    return found


def _stored_bytes(module: Any) -> int:
    """Of a layer that packs its weight."""
    return module.stored_bytes() if hasattr(module, "stored_bytes") else 0


def _checkpoint_bytes(run: Path, config: TrainingConfig) -> int | None:
    store = open_store(run, config.checkpoint)
    steps = [] if store.remote else store.steps()
    if not steps:
        return None
    files = json.loads(store.read(steps[-1], MANIFEST))["files"]
    return sum(entry["bytes"] for entry in files.values())
