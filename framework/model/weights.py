"""Tensors of a model directory: `model.safetensors`, or numbered shards of it with an index."""

import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from framework.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def write_weights(directory: Path, sizes: dict[str, int], tensor: Callable[[str], Tensor], shard_bytes: int) -> None:
    """Write every tensor named in `sizes` (its bytes), in that order, in files of at most `shard_bytes`.

    `tensor` is called once for each name; only one file's tensors are held at a time. A tensor larger than
    `shard_bytes` gets a file of its own.
    """
    shards = _split(sizes, shard_bytes)
    if len(shards) == 1:
        save_file({name: tensor(name) for name in shards[0]}, directory / SINGLE, metadata={"format": "pt"})
        return
    files = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: tensor(name) for name in names}, directory / file, metadata={"format": "pt"})
        files.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": files}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _split(sizes: dict[str, int], shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if filled and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Every tensor of a model directory, mapped into memory rather than read.

    Raises UserError naming the file that is missing or damaged.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(directory):
        try:
            tensors |= load_file(file)
        except FileNotFoundError as error:
            raise UserError(f"{file}: is missing, though {INDEX} lists it; copy the directory anew") from error
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: damaged or cut short ({error}); copy the file anew") from error
    return tensors


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the tensors of a model directory. Raises UserError where there is none."""
    if (directory / SINGLE).exists():
        return [directory / SINGLE]
    index = directory / INDEX
    if not index.exists():
        raise UserError(f"{directory}: has neither {SINGLE} nor {INDEX}; weights are read from safetensors only")
    try:
        return [directory / file for file in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{index}: is no index of weights ({error!r}); copy the file anew") from error
