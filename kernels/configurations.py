"""The tile in which each attention kernel works: a static table, so that no step of a run ever tunes.

The table is `configurations.json` beside this file, one row a line: architecture, kernel, head size (padded to a power
of two), bytes of an element, and the configuration. `measured` says on what a row was timed; null means never: the
row was then chosen because it compiles without spills (`python -m kernels.ahead_of_time`) and is near to what the
papers use. `python -m kernels.tune --write` times the candidates on the present GPU and rewrites its rows.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

TABLE = Path(__file__).with_name("configurations.json")
KERNELS = ("forward", "backward_keys", "backward_queries")
HEAD_SIZES = (32, 64, 128, 256)  # each serves those above the one before it
# Relatives whose compiler target and shared memory are those of a family that the table has.
RELATIVES = {"sm_87": "sm_80", "sm_89": "sm_86", "sm_103": "sm_100", "sm_120": "sm_86", "sm_121": "sm_86"}
RELATIVES |= {"gfx90a": "gfx942", "gfx940": "gfx942", "gfx941": "gfx942"}


@dataclass(frozen=True)
class Configuration:
    """One way to launch a kernel.

    Attributes:
        queries: rows of queries in a tile.
        keys: rows of keys and values in a tile.
        warps: warps (AMD: wavefronts) of a program.
        stages: depth of the software pipeline, `num_stages`.
        descriptors: load by tensor descriptors (TMA), where the tensors' strides and lengths allow it.
        persistent: one program a multiprocessor that walks over tiles, instead of one program a tile.
    """

    queries: int
    keys: int
    warps: int
    stages: int
    descriptors: bool = False
    persistent: bool = False


@functools.cache
def choose(
    kernel: str, architecture: str, head_size: int, dtype: torch.dtype, describable: bool = True
) -> Configuration:
    """Configuration of one kernel.

    Args:
        kernel: "forward", "backward_keys" (dk and dv) or "backward_queries" (dq).
        architecture: "sm_90", "gfx942", "interpreter" and the like, as `present_architecture` gives it.
        head_size: 1 to 256, any.
        dtype: of q, k and v; float32, bfloat16 or float16.
        describable: a tensor descriptor can hold what is loaded; if not, the configuration loads by pointers.

    Raises:
        ValueError: nothing in the table serves these; the message says what it has.
    """
    family = RELATIVES.get(architecture, architecture)
    padded = next((size for size in HEAD_SIZES if head_size <= size), None)
    place = (family, kernel, padded, dtype.itemsize)
    row = _rows().get((*place, describable)) or _rows().get((*place, False))
    if row is None or not dtype.is_floating_point:
        families = sorted({key[0] for key in _rows()} | set(RELATIVES))
        raise ValueError(
            f"no Triton configuration for {kernel}, {architecture}, head size {head_size}, {dtype}: there are "
            f"head sizes up to {HEAD_SIZES[-1]}, float32, bfloat16 and float16, on {', '.join(families)}"
        )
    return row


def present_architecture() -> str:
    """Architecture for which a kernel launched now is compiled: "sm_90", "gfx942", or "interpreter"."""
    import triton

    if triton.knobs.runtime.interpret:
        return "interpreter"
    target = triton.runtime.driver.active.get_current_target()
    return f"sm_{target.arch}" if target.backend == "cuda" else str(target.arch).partition(":")[0]


def read_table() -> list[dict[str, Any]]:
    """All rows, as they stand in the file."""
    return json.loads(TABLE.read_text())


def write_table(rows: list[dict[str, Any]]) -> None:
    """Replaces the file, one row a line, and forgets what was read from it."""
    order = ("architecture", "kernel", "bytes", "descriptors", "head_size")
    rows = sorted(rows, key=lambda row: tuple(row[name] for name in order))
    TABLE.write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n")
    _rows.cache_clear()
    choose.cache_clear()


@functools.cache
def _rows() -> dict[tuple[Any, ...], Configuration]:
    places = ("architecture", "kernel", "head_size", "bytes", "descriptors")
    return {
        tuple(row[place] for place in places): Configuration(
            **{name: row[name] for name in Configuration.__dataclass_fields__}
        )
        for row in read_table()
    }
