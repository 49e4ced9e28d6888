"""Commands of the pages that start an entry point: its module, its overrides, its ranks; and whether they compose."""

import functools
import importlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

import framework.config
from framework.composition import CONFIGS, _typed_defaults, validated, with_quoted_texts
from framework.errors import UserError

STARTERS = r"(\.venv/bin/)?(python3?|torchrun|deepspeed|sbatch|srun|launch/\w+\.(sh|sbatch))"
_MODULE = r"(framework|kernels|benchmarks|tests)(\.\w+)+"
_RANKS = ("--nproc-per-node", "--nproc_per_node", "--nnodes", "--num_accelerators", "--num_gpus", "--num_nodes")


@dataclass(frozen=True)
class Started:
    """`python -m MODULE ARGUMENTS`, or the same under a launcher."""

    module: str
    arguments: tuple[str, ...]
    ranks: int = 1


def started(words: list[str]) -> Started | None:
    """What a simple command starts; None if that is no module of the repository."""
    words = [re.sub(r"\$\{?\w+\}?", "1", word) for word in words]
    while words and re.match(r"[A-Z_]+=|(exec|nohup|time)$", words[0]):
        words = words[1:]
    modules = [number for number, word in enumerate(words) if re.fullmatch(_MODULE, word)]
    if not modules or not re.fullmatch(STARTERS, words[0]):
        return None
    ranks = 1
    for name, value in itertools.pairwise(words[: modules[-1]]):
        if name in _RANKS and value.isdecimal():
            ranks *= int(value)
    return Started(words[modules[-1]], tuple(words[modules[-1] + 1 :]), ranks)


@functools.cache
def problem(command: Started) -> str:
    """Why the configuration of an entry point does not compose or pass its own `check`; empty: it does.

    As `framework.composition.run_hydra` does it, but by Hydra's `compose`, which is three times as fast.
    """
    name = command.module.removeprefix("framework.")
    schema = getattr(framework.config, f"{name.capitalize()}Config")
    _store(name, schema)
    overrides = _overrides(with_quoted_texts(list(command.arguments), schema))
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            composed = compose(name, overrides)
        config = validated(composed, schema)[0]
        _settle(command, config)
        config.check(command.ranks)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        return f"{error} {error.__cause__ or ''}"
    return ""


def _settle(command: Started, config: Any) -> None:
    """What follows from other fields; what follows from a model directory only where it is there."""
    settle = getattr(importlib.import_module(command.module), "_settle", None)
    origin = getattr(config, "origin", "")
    if settle and (not origin or Path(origin).exists()):
        settle(config, {argument.partition("=")[0] for argument in command.arguments})


@functools.cache
def _store(name: str, schema: type) -> None:
    ConfigStore.instance().store(name=f"{name}_schema", node=_typed_defaults(schema))
    ConfigStore.instance().store(name="loam", group="hydra/help", node={"template": ""})


def _overrides(arguments: list[str]) -> list[str]:
    """A command line as `compose` takes it: flags as overrides, and of several values of a field the first."""
    found, waiting = [], iter(arguments)
    for argument in waiting:
        if argument == "--config-dir":
            folder = Path(next(waiting)).resolve()
            assert folder.is_dir(), folder
            found.append(f"hydra.searchpath=[file://{folder}]")
        elif argument == "--cfg":
            next(waiting)
        elif argument != "--multirun":
            found.append(_first(argument))
    return found


def _first(argument: str) -> str:
    override = OverridesParser.create().parse_override(argument)
    if not override.is_sweep_override():
        return argument
    start = getattr(override.value(), "start", None)
    return f"{override.key_or_group}={next(override.sweep_string_iterator()) if start is None else start}"
