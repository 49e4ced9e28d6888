"""JSON lines: one document a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from framework.corpus.documents import Document
from framework.corpus.readers.streams import read_lines
from framework.errors import UserError


def read_jsonl(path: Path) -> Iterator[Document]:
    """The documents of a .jsonl file, compressed or not.

    A line is an object with `text`, and optionally `id`, `title`, `url` and `score` (a number). Other
    fields are ignored; so are blank lines.

    Raises:
        UserError: a line is no such object; the message names the line.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} line {number}: is no JSON ({error}); mend or remove the line") from error
        place = f"{path} line {number}"
        yield Document(
            id=str(_field(record, "id", (str, int), place) or f"{path.name}:{number}"),
            text=_required_text(record, place),
            title=_field(record, "title", (str,), place) or "",
            url=_field(record, "url", (str,), place) or "",
            score=_field(record, "score", (int, float), place),
        )


def _required_text(record: Any, place: str) -> str:
    if not isinstance(record, dict) or "text" not in record:
        raise UserError(f"{place}: has no field `text`; every line needs an object with one")
    if not isinstance(record["text"], str):
        raise UserError(f"{place}: field `text` is no string; every line needs one")
    return record["text"]


def _field(record: Any, name: str, types: tuple[type, ...], place: str) -> Any:
    """The optional field `name`; null counts as absent."""
    value = record.get(name) if isinstance(record, dict) else None
    if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
        wanted = " or ".join(kind.__name__ for kind in types)
        raise UserError(f"{place}: field `{name}` is {value!r}, not {wanted}; mend or remove the field")
    return value
