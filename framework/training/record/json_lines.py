"""Files of one JSON object with its `step` a line, as a run writes them: `metrics.jsonl`, `samples.jsonl`, and so on.

A kill may cut off the last line, which then has no line end; any other line that is no such object is damage.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from framework.errors import UserError


def objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, none if there is no file; a last line that a kill cut off is left out.

    Raises:
        UserError: a line is damaged.
    """
    if path.exists():
        with path.open("rb") as file:
            yield from _objects(path, file)


def cut_back(path: Path, last_step: int) -> None:
    """Remove what a file has of later steps, which come after the others, and a line that a kill cut off.

    In place, so that neither a kill at this moment nor another hand that has it open can do harm.

    Raises:
        UserError: a line before those of later steps is damaged; nothing is removed.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = 0
        for record in _objects(path, file):
            if record["step"] > last_step:
                break
            end = file.tell()
        file.truncate(end)


def _objects(path: Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
    number = 0
    while (line := file.readline()).endswith(b"\n"):
        number += 1
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise UserError(
                f"{path} line {number}: is no JSON object with a step, the file is damaged; remove the line"
            )
        yield record


def json_line(record: dict[str, Any]) -> str:
    """A record as a line of JSON, which has null for what is not finite."""
    return json.dumps(finite(record)) + "\n"


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """The record with None for what is not finite, of which JSON knows nothing."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }
