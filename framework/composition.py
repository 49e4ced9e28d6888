"""Hydra, kept in one place: compose, validate, and say what is wrong in one line."""

import dataclasses
import difflib
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framework.errors import UserError

if TYPE_CHECKING:
    from framework.sweeping.sweep import Sweep

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


class _Task:
    """What Hydra calls: a job, or a sweep of it. What they raise is kept, as Hydra would reword it."""

    def __init__(self, job: Callable[[Any], None]) -> None:
        self._job = job
        self.failure: Exception | None = None

    def __call__(self, composed: Any) -> None:
        if self.failure:  # an earlier one of Hydra's own sweeper failed
            return
        try:
            self._job(composed)
        except Exception as error:
            self.failure = error

    def outcome(self) -> Exception | None:
        """What the last trial of a sweep ended with."""
        failure, self.failure = self.failure, None
        return failure

    def sweep(self, sweep: "Sweep", launch: Callable[[int, dict[str, str]], Exception | None]) -> None:
        """For `hydra_plugins.loam_sweeper`."""
        try:
            sweep.conduct(launch)
        except Exception as error:
            self.failure = error


def run_hydra(name: str, schema: type, job: Callable[[Any], None]) -> None:
    """Give `job` the composed configuration NAME: once, or with `--multirun` once for each trial.

    Also answers `--help`, `--cfg` and Hydra's other flags.

    Raises:
        UserError: the command line or a file under `configs/` does not compose.
    """
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    from hydra_plugins.loam_sweeper import LoamSweeper

    _check_flags()
    Plugins.instance().register(LoamSweeper)  # which Hydra does not find by itself in an editable installation
    ConfigStore.instance().store(name=f"{name}_schema", node=_typed_defaults(schema))
    ConfigStore.instance().store(name="loam", group="hydra/help", node=_help(name))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    task = _Task(job)
    try:
        try:
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)(task)()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who reads what `--help` prints has enough; at the exit Python would try once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UserError:
        raise
    except Exception as error:  # what the job raised is in the task, so this is about composing
        raise UserError(explain(error, schema)) from error
    if task.failure:
        raise task.failure


def with_quoted_texts(arguments: list[str], schema: type) -> list[str]:
    """The command line with values of free text quoted for Hydra, whose grammar gives commas and the like a meaning."""
    if {"-m", "--multirun"} & set(arguments):
        return arguments  # there a comma means a sweep
    texts = {f.name for f in dataclasses.fields(schema) if f.metadata.get("text")}
    quoted = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name in texts and not re.fullmatch(r"(['\"]).*\1", value, re.S):
            value = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)  # \ counts before '
            argument = f"{name}='{value.replace('${', chr(92) + '${')}'"
        quoted.append(argument)
    return quoted


def _check_flags() -> None:
    """Refuse flags that Hydra does not know in one line; its own parser prints the whole usage."""
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> typing.NoReturn:
        raise UserError(f"{message}; write fields as NAME=VALUE, all of them before or after the flags; see --help")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args()


def _help(name: str) -> dict[str, str]:
    """What `--help` prints: Hydra's own lists all groups, those of other entry points too."""
    import yaml

    defaults = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))["defaults"]
    groups = [group for entry in defaults if isinstance(entry, dict) for group in entry]
    listed = "\n".join(f"{group}: {', '.join(_options(group))}" for group in groups)
    chosen = f"== Groups: GROUP=OPTION ==\n\n{listed}\n\n" if groups else ""
    template = "${hydra.help.header}\n\n" + chosen + "== Fields: FIELD=VALUE ==\n\n$CONFIG\n${hydra.help.footer}\n"
    return {"app_name": name, "header": "", "footer": "", "template": template}


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
        elif typing.get_origin(kind) is dict:
            OmegaConf.set_struct(node[name], False)  # its keys are the user's
    return node


def given() -> set[str]:
    """The fields and groups that the command line sets, and the fields that an experiment of its choice sets itself.

    To be called within the job that `run_hydra` runs.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    overrides = {
        name.lstrip("+~"): value for name, _, value in (o.partition("=") for o in HydraConfig.get().overrides.task)
    }
    found = set(overrides)
    for name in overrides.get("experiment", "").strip("[]").split(","):
        files = (folder / "experiment" / f"{name.strip()}.yaml" for folder in _folders())
        if file := next((file for file in files if file.exists()), None):
            found |= set(_names_in(OmegaConf.to_container(OmegaConf.load(file))))
    return found


def _names_in(fields: Any, prefix: str = "") -> Iterator[str]:
    for name, value in fields.items() if isinstance(fields, dict) else ():
        if isinstance(value, dict):
            yield from _names_in(value, f"{prefix}{name}.")
        elif name != "defaults":
            yield f"{prefix}{name}"


def validated(composed: Any, schema: type) -> tuple[Any, str]:
    """The configuration as dataclasses, and as YAML with every interpolation resolved."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        resolved = OmegaConf.to_yaml(composed, resolve=True)
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere
        raise UserError(explain(error, schema)) from error
    return from_yaml(resolved, schema), resolved


def from_yaml(resolved: str, schema: type) -> Any:
    """An instance of `schema` from what `validated` wrote."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf._utils import get_yaml_loader
    from omegaconf.errors import OmegaConfBaseException

    literal = OmegaConf.create(_literal(yaml.load(resolved, Loader=get_yaml_loader())))
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), literal))
    except OmegaConfBaseException as error:  # a field added with +
        raise UserError(explain(error, schema)) from error


def _literal(value: Any) -> Any:
    """`value` with every text such that OmegaConf takes it as it stands; what it resolves was resolved before."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def to_yaml(config: Any) -> str:
    """What `from_yaml` reads."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(_literal(dataclasses.asdict(config))), resolve=True)


def explain(error: Exception, schema: type) -> str:
    """One line for an error of Hydra or OmegaConf: the field, what is wrong, what would be right."""
    from hydra.errors import OverrideParseException

    text = "\n".join(str(e) for e in (error, error.__cause__) if e is not None)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be understood; write field=value, in quotes where the shell needs them"
    for group, option in _options_missed(text):
        return f"{group}: there is no {option!r}; choose {' | '.join(_options(group))}"
    named = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    field = named.group(1) if named else ""
    unknown = re.search(r"[Kk]ey '(.*)' (is )?not in", text)
    if field and unknown:
        if field in field_names(schema):  # a list of groups of fields, one of which has another name
            near = _nearest_of(field, unknown[1], schema)
            return f"{field}: an entry has {unknown[1]!r}, which is no field of it; {near}"
        return f"{field}: there is no such field; {_nearest(field, list(field_names(schema)))}"
    if field and re.search("is not a ListConfig|is not a list", text):
        return f"{field}: takes a list; write {field}=[VALUE,VALUE]"
    if re.search(r"dict is not a subclass of", text):
        return f"{field}: takes fields one by one; write {field}.FIELD=VALUE, or put them into a file of their own"
    if (
        field
        and "interval(" in text + " ".join(sys.argv)
        and re.search("'float' could not be converted to Integer", text)
    ):
        return f"{field}: takes whole numbers; write int(interval(LOW,HIGH)), or range(LOW,END)"
    told = text.partition("Config search path")[0].splitlines()
    reason = " ".join(line.strip() for line in told if _tells(line))
    return f"{field + ': ' if field and field not in reason else ''}{reason}; --help lists the fields"


def _options_missed(text: str) -> Iterator[tuple[str, str]]:
    """Each GROUP=OPTION without a file that an error is about: Hydra names one, or none if it is no string."""
    named = re.search(r"Could not (?:find|load) '(\w+)/([^']*)'", text)
    if named:
        yield named[1], named[2]
    elif "Config group override" in text or "is not iterable" in text:
        for argument in sys.argv[1:]:
            group, _, options = argument.partition("=")
            for option in options.strip("[]").split(",") if _options(group) else ():
                if option.strip() not in _options(group):
                    yield group, option.strip()


def _options(group: str) -> list[str]:
    """The options of a configuration group, the user's own of --config-dir too; none if there is no such group."""
    return sorted({file.stem for folder in _folders() for file in (folder / group).glob("*.yaml")}) if group else []


def _folders() -> list[Path]:
    """Where configuration groups lie, in the order in which Hydra looks."""
    from hydra._internal.utils import get_args_parser

    own = get_args_parser().parse_args().config_dir
    return [Path(own), CONFIGS] if own else [CONFIGS]


def _tells(line: str) -> bool:
    """Whether a line of an error says what is wrong, rather than where in the library."""
    return bool(line.strip()) and not line.strip().startswith(
        ("full_key", "object_type", "reference_type", "Error merging")
    )


def _nearest_of(field: str, name: str, schema: type) -> str:
    """A hint at the field of a list's entries that was probably meant, or all that they have."""
    kind: Any = schema
    for part in field.split("."):
        kind = typing.get_type_hints(kind)[part]
    known = [entry.name for entry in dataclasses.fields(typing.get_args(kind)[0])]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"they are {', '.join(known)}"


def _nearest(field: str, known: list[str]) -> str:
    """A hint at the field that was probably meant: the same word elsewhere, or a similar one."""
    same_word = [name for name in known if name.rsplit(".", 1)[-1] == field.rsplit(".", 1)[-1]]
    known += sorted({name.split(".")[0] for name in known})  # the groups
    near = same_word or difflib.get_close_matches(field, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "--help lists the fields"


def field_names(schema: type, prefix: str = "") -> Iterator[str]:
    """Every field of a configuration dataclass, as it is written on the command line."""
    types = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kind = types[field.name]
        if dataclasses.is_dataclass(kind):
            yield from field_names(typing.cast(type, kind), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"
