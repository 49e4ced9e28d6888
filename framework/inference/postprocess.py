"""What is done with a text that was written: white space cut, a part taken out, checked to be the JSON wanted."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from framework.config import HookConfig
from framework.errors import UserError

Hook = Callable[[str], str]


class _FailedError(Exception):
    """What a check says against a text."""


class Postprocess:
    """The hooks of `postprocess`, in their order.

    Raises UserError naming the entry whose pattern or schema is none.
    """

    def __init__(self, hooks: Sequence[HookConfig]) -> None:
        self._hooks = [_hook(hook, f"postprocess[{number}]") for number, hook in enumerate(hooks)]

    def __call__(self, text: str) -> tuple[str, str | None]:
        """What becomes of a text; and what the first check that it fails says, after which no hook is asked."""
        for hook in self._hooks:
            try:
                text = hook(text)
            except _FailedError as failure:
                return text, str(failure)
        return text, None


def _hook(config: HookConfig, name: str) -> Hook:
    if config.strip:
        return str.strip
    if config.json_schema:
        return _json_schema(Path(config.json_schema), f"{name}.json_schema")
    try:
        pattern = re.compile(config.regex)
        if config.replacement is not None:
            pattern.sub(config.replacement, "")  # which looks at the replacement first
    except (re.error, IndexError) as error:
        raise UserError(f"{name}.regex: {config.regex!r} is no pattern ({error}); see Python's re") from error
    return _replaced(pattern, config.replacement) if config.replacement is not None else _found(pattern)


def _replaced(pattern: re.Pattern[str], replacement: str) -> Hook:
    return lambda text: pattern.sub(replacement, text)


def _found(pattern: re.Pattern[str]) -> Hook:
    def found(text: str) -> str:
        match = pattern.search(text)
        part = match and match[min(1, pattern.groups)]
        if part is None:
            raise _FailedError(f"nothing in it is as {pattern.pattern!r} has it")
        return part

    return found


def _json_schema(file: Path, name: str) -> Hook:
    """A check against JSON Schema (json-schema.org), of the draft that it names; it may refer to nothing but itself."""
    try:
        from jsonschema import SchemaError
        from jsonschema.exceptions import best_match
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry
        from referencing.exceptions import Unresolvable
    except ImportError as error:
        raise UserError(f"{name}: needs jsonschema; pip install 'loam[generate]'") from error
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{name}: {file} cannot be read as JSON ({error}); give a file with a JSON schema") from error
    except SchemaError as error:
        raise UserError(f"{name}: {file} is no JSON schema ({error.json_path}: {error.message}); mend it") from error
    validator = kind(schema, registry=Registry())  # which fetches nothing from a network

    def check(text: str) -> str:
        try:
            mismatch = best_match(validator.iter_errors(_json(text)))
        except Unresolvable as error:
            raise UserError(f"{name}: {file} refers to {error.ref}, which is not in it; put it there") from error
        if mismatch is not None:
            raise _FailedError(f"JSON {mismatch.json_path}: {mismatch.message}")
        return text

    return check


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise _FailedError(f"is no JSON ({error})") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
