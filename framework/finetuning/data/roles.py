"""Which column of a file is what: by the name it goes by, or as `data.columns` says."""

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from framework.errors import UserError

# The names that a role goes by, the first one that a file has being taken; compared without regard to case.
Roles = dict[str, tuple[str, ...]]
CLASSIFICATION: Roles = {
    "text": ("text", "sentence", "content", "review", "document", "sentence1", "premise", "question1"),
    "text_pair": ("text_pair", "sentence2", "hypothesis", "question2"),
    "label": ("label", "labels", "class", "category", "target"),
}
INSTRUCTION: Roles = {
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "instruction", "question"),
    "input": ("input", "context"),
    "answer": ("response", "completion", "output", "answer"),
    "system": ("system",),
}
PREFERENCE: Roles = {
    "prompt": ("prompt", "instruction", "question"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "completion": ("completion", "response"),
    "label": ("label", "desirable"),
    "system": ("system",),
}
Columns = dict[str, Any]  # of each role that a file fills: its column, or for label several that are 0 or 1 each


def check_roles(configured: dict[str, Any], roles: Roles) -> None:
    """Raise `UserError` if `data.columns` names a role that the task has not."""
    for role in configured:
        if role not in roles:
            raise UserError(f"data.columns.{role}: there is no such role for this task; choose {' | '.join(roles)}")


def wanted_columns(configured: dict[str, Any], roles: Roles, names: list[str]) -> list[str]:
    """Those of the columns `names` that fill a role."""
    return [name for column in find_columns("", configured, roles, names, False).values() for name in _listed(column)]


def find_columns(
    location: str, configured: dict[str, Any], roles: Roles, names: list[str], strict: bool = True
) -> Columns:
    """The column of each role that the columns `names` of a file fill.

    Raises:
        UserError: the file lacks a column that is configured (where this is `strict`).
    """
    by_case = {name.casefold().strip(): name for name in reversed(names)}
    found: Columns = {}
    for role, aliases in roles.items():
        if role in configured:
            missing = [name for name in _listed(configured[role]) if name not in names]
            if missing and strict:
                raise UserError(
                    f"{location}: has no column {missing[0]!r} (data.columns.{role}); {_there_are(missing, names)}"
                )
            if not missing:
                found[role] = configured[role]
        elif column := next((by_case[alias] for alias in aliases if alias in by_case), None):
            found[role] = column
    return found


def require_columns(location: str, columns: Columns, needed: Iterable[str], roles: Roles, names: list[str]) -> None:
    """Raise `UserError` unless each of the needed roles is filled."""
    for role in needed:
        if role not in columns:
            aliases = roles[role]
            taken = {name for column in columns.values() for name in _listed(column)}
            raise UserError(
                f"{location}: no column is known to hold the {role} ({', '.join(aliases)}); "
                f"{_there_are(aliases, names, taken)}; name it with data.columns.{role}=COLUMN"
            )


def _listed(column: Any) -> list[str]:
    return [column] if isinstance(column, str) else [str(name) for name in column]


def _there_are(meant: Iterable[str], names: list[str], taken: Collection[str] = ()) -> str:
    """The columns there are, and the one that was probably meant, which is none that holds something else."""
    free = [name for name in names if name not in taken]
    near = [match for name in meant for match in difflib.get_close_matches(name, free, n=1)]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"it has {', '.join(map(repr, names)) or 'none'}{hint}"
