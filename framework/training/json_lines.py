"""Files of one JSON object a line, as a run writes them: `metrics.jsonl`, `samples.jsonl` and the like."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


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


def reopen(path: Path, last_step: int) -> TextIO:
    """A file of objects with `step`, to be written on after a step; what it has of later ones goes."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(one) + "\n" for one in objects(path) if one["step"] <= last_step)
    partial.replace(path)  # a kill at this moment must not cost the record of a month
    return path.open("a", encoding="utf-8", buffering=1)
