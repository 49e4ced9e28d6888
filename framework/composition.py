"""Hydra, kept in one place: compose, validate, and say what is wrong in one line."""

import dataclasses
import difflib
import os
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from framework.errors import UserError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def run_hydra(name: str, schema: type, job: Callable[[Any], None]) -> None:
    """Give `job` the composed configuration NAME: once, or with `--multirun` once for each trial.

    Also answers `--help`, `--cfg` and Hydra's other flags.

    Raises:
        UserError: the command line or a file under `configs/` does not compose.
    """
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    ConfigStore.instance().store(name=f"{name}_schema", node=_typed_defaults(schema))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    failure: list[Exception] = []

    def task(composed: Any) -> None:
        if failure:  # an earlier trial of a sweep failed
            return
        try:
            _name_trial(composed)
            job(composed)
        except Exception as error:  # raised again below, where Hydra cannot reword it
            failure.append(error)

    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, schema)) from error
    if failure:
        raise failure[0]


def _typed_defaults(schema: type) -> Any:
    """The fields of `schema` with their declared defaults.

    From the classes, not from instances, whose `__post_init__` would derive fields before the
    overrides are known.
    """
    from omegaconf import OmegaConf

    node = OmegaConf.structured(schema)
    for name, kind in typing.get_type_hints(schema).items():
        if dataclasses.is_dataclass(kind):
            node[name] = _typed_defaults(typing.cast(type, kind))
    return node


def _name_trial(composed: Any) -> None:
    """In a sweep every trial needs a run directory of its own: append the trial's number to the name."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN and "run" in composed:
        composed.run.name = f"{composed.run.name}-{hydra_config.job.num}"


def validated(composed: Any, schema: type) -> tuple[Any, str]:
    """The configuration as dataclasses, and as YAML with every interpolation resolved."""
    from omegaconf import OmegaConf

    resolved = OmegaConf.to_yaml(composed, resolve=True)
    return from_yaml(resolved, schema), resolved


def from_yaml(resolved: str, schema: type) -> Any:
    """An instance of `schema` from what `validated` wrote."""
    from omegaconf import OmegaConf

    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(resolved)))


def explain(error: Exception, schema: type) -> str:
    """One line for an error of Hydra or OmegaConf: the field, what is wrong, what would be right."""
    text = "\n".join(str(e) for e in (error, error.__cause__) if e is not None)
    full_key = re.search(r"full_key: (\S+)", text)
    override = re.search(r"Could not override '([^']+)'", text)
    missing_group = re.search(
        r"Could not find '([^']+)'\s+Available options in '([^']+)':\s+(.*?)(?:\n\n|\nConfig|$)", text, re.S
    )
    if missing_group:
        path, group, options = missing_group.groups()
        choices = " | ".join(options.split())
        return f"{group}: there is no {path.removeprefix(group + '/')!r}; choose {choices}"
    field = (override or full_key).group(1) if (override or full_key) else ""
    known = list(field_names(schema))
    if field and field not in known and re.search(r"[Kk]ey '.*' (is )?not in", text):
        near = difflib.get_close_matches(field, known, n=1, cutoff=0.5) or [
            name for name in known if name.rsplit(".", 1)[-1] == field.rsplit(".", 1)[-1]
        ]
        hint = f"did you mean {near[0]}?" if near else "--help lists the fields"
        return f"{field}: there is no such field; {hint}"
    first = next(line for line in text.splitlines() if line.strip() and not line.startswith("Error merging"))
    return f"{field + ': ' if field and field not in first else ''}{first.strip()}; --help lists the fields"


def field_names(schema: type, prefix: str = "") -> Iterator[str]:
    """Every field of a configuration dataclass, as it is written on the command line."""
    types = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kind = types[field.name]
        if dataclasses.is_dataclass(kind):
            yield from field_names(typing.cast(type, kind), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"
