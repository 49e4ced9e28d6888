"""Files of one JSON object a line, as a run writes them: `metrics.jsonl`, `samples.jsonl` and the like."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, none if there is no file; a last line that a kill cut off is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return


def cut_back(path: Path, last_step: int) -> None:
    """Remove what a file of objects with `step`, in order, has of later steps, and a line that a kill cut off.

    In place, so that neither a kill at this moment nor another hand that has it open can do harm.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = 0
        while (line := file.readline()).endswith(b"\n") and _step(line) <= last_step:
            end = file.tell()
        file.truncate(end)


def json_line(record: dict[str, Any]) -> str:
    """A record as a line of JSON, which has null for what is not finite."""
    return json.dumps(finite(record)) + "\n"


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """The record with None for what is not finite, of which JSON knows nothing."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }


def _step(line: bytes) -> float:
    """Of an object; beyond all others if it is none."""
    try:
        return int(json.loads(line)["step"])
    except ValueError:
        return math.inf
