"""`python -m framework.plan`: the plan for people, for machines, and the command that it is for."""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from framework.config import PlanConfig
from framework.errors import UserError
from framework.planning.inference import plan_inference
from framework.planning.parameters import Parameters
from framework.planning.plan import memory_limit, plan_training

# fields of a plan alone
_OWN = ("purpose", "format", "output", "inference.", "cluster.gpus", "cluster.device")
_OF_FINETUNING = {"data.sequence_length": "rows.length", "model.from": "model.path"}  # as they are called there
_NOT_OF_FINETUNING = ("data.", "model", "objective", "experiment")


def tell(config: PlanConfig, parameters: Callable[[PlanConfig], Parameters]) -> None:
    """Print the plan, and write it where `output` says.

    Raises:
        UserError: the file cannot be written.
    """
    if config.purpose == "inference":
        found: Any = plan_inference(config)
        facts = {"purpose": "inference", "model": asdict(config.model), **asdict(found)}
    else:
        gpus = config.cluster.gpus
        found = plan_training(config, parameters(config), gpus, gpus, memory_limit(config.cluster), config.purpose)
        facts = asdict(found) | {"model": asdict(config.model), "command": command_of(config, sys.argv[1:])}
    facts["cluster"] = asdict(config.cluster)
    text = json.dumps(facts, indent=1)
    if config.output:
        try:
            Path(config.output).write_text(text + "\n")
        except OSError as error:
            raise UserError(f"output: cannot write {config.output}: {error.strerror}; choose another") from error
    if config.format == "json":
        print(text)
        return
    from framework.planning.wording import show_inference, show_training

    if config.purpose == "inference":
        show_inference(found, config)
    else:
        show_training(found, config, facts["command"])


def command_of(config: PlanConfig, arguments: list[str]) -> str:
    """What starts the run that the plan is for: the plan's own arguments, and what it chose in their stead."""
    finetunes = config.purpose == "finetune"
    fields = [a for a in arguments if "=" in a and not a.startswith("-")]
    given = {name: value for name, _, value in (field.partition("=") for field in fields)}
    chosen = {
        "precision": config.precision.dtype,
        "cluster": "h100_8",
        "data.sequence_length": str(config.data.sequence_length),
        "batch.sequences": str(config.batch.sequences),
        "batch.micro": str(config.batch.micro),
    }
    if "precision.dtype" in given:
        chosen.pop("precision")
    if config.data.tokens:
        chosen["data.tokens"] = f"{config.data.tokens:.15g}"
    if finetunes:
        chosen["task"] = config.task.name
    wanted = {name: value for name, value in (chosen | given).items() if not name.startswith(_OWN)}
    if finetunes:
        renamed = {_OF_FINETUNING.get(name, name): value for name, value in wanted.items()}
        wanted = {n: v for n, v in renamed.items() if n == "model.path" or not n.startswith(_NOT_OF_FINETUNING)}
        wanted = {"model.path": "...", "data.train": "..."} | wanted
    gpus, node = config.cluster.gpus, config.cluster.gpus_per_node
    nodes = -(-gpus // node)
    launch = f"torchrun --nproc-per-node {min(gpus, node)} " if gpus > 1 else "python "
    if nodes > 1:
        # on each node, with the number that it has
        launch = f"NODES={nodes} NODE_RANK=0 MASTER_ADDR=HOST RANKS={node} launch/torchrun_nodes.sh "
    overrides = " ".join(shlex.quote(f"{name}={value}") for name, value in wanted.items())
    return f"{launch}{'' if nodes > 1 else '-m '}framework.{config.purpose} {overrides}"
