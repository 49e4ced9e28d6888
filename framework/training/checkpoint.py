"""Checkpoints without pickle and without a converter: one format for every ZeRO stage and world size.

    checkpoints/step-00001000/
        rank-00000.safetensors ...   NAME/master, NAME/ema if averaged, and the optimizer's moments, with
                                     AdamW NAME/exp_avg, NAME/exp_avg_sq: whole tensors, fp32, each
                                     parameter in the file of the one rank that owned it
        state.json                   step, sequences consumed, configuration, digests, metrics
        manifest.json                size and SHA-256 of every other file; written last

A checkpoint is written under a temporary name and renamed; without its manifest it is none. Loading
takes the newest one whose every file still has its hash, and says which it passed over and why.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from framework import distributed
from framework.config import CheckpointConfig
from framework.errors import UserError

FORMAT = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A sound checkpoint on disk."""

    path: Path
    state: dict[str, Any]  # the content of state.json

    def reader(self) -> Callable[[str, str], Tensor]:
        """`read(name, field)`: one whole tensor, without loading the others."""
        from safetensors import safe_open

        names = [name for name in _manifest_files(self.path) if name.endswith(".safetensors")]
        files = [safe_open(self.path / name, framework="pt") for name in names]
        where = {key: file for file in files for key in file.keys()}  # noqa: SIM118 (no iterator of its own)

        def read(name: str, field: str) -> Tensor:
            key = f"{name}/{field}"
            if key not in where:
                raise UserError(f"{self.path}: has no {key}; it is a checkpoint of another model")
            return where[key].get_tensor(key)

        return read


def directory_of(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def save(
    run: Path, tensors: dict[str, Tensor], state: dict[str, Any], config: CheckpointConfig, hold: int | None = None
) -> Path:
    """Write a checkpoint from every rank's own `tensors`; then remove those that need not be kept.

    Args:
        run: the run directory, which all ranks see.
        tensors: this rank's, by `NAME/FIELD`.
        state: the content of state.json, rank 0's counts; it needs `step`.
        hold: the newest regular checkpoint of this step or an earlier one is kept in any case.

    Raises:
        UserError: a rank cannot write; nothing is left behind then, and older checkpoints stay.
    """
    from safetensors.torch import save as serialize

    final = directory_of(run, state["step"])
    partial = final.with_name(f".{final.name}.partial")
    try:
        distributed.together(lambda: _fresh_directory(partial))
        name = f"rank-{distributed.rank():05d}.safetensors"
        entry = distributed.together(lambda: _write(partial / name, serialize(tensors)))
        entries = dict(distributed.gather((name, entry)))
        distributed.together(lambda: _commit(partial, final, state, entries))
    except UserError:
        if distributed.rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    if distributed.rank() == 0:
        _remove_old(run, config, hold)
    return final


def _fresh_directory(partial: Path) -> None:
    if distributed.rank() != 0:
        return
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed while writing
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"{partial}: cannot be made ({error.strerror}); free some space or change run.directory"
        ) from error


def _write(path: Path, content: bytes) -> dict[str, Any]:
    """Write a file through to the disk; returns its entry in the manifest."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); free some space or change run.directory"
        ) from error
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _commit(partial: Path, final: Path, state: dict[str, Any], entries: dict[str, Any]) -> None:
    """Rank 0: state, then manifest, then the final name."""
    if distributed.rank() != 0:
        return
    entries["state.json"] = _write(partial / "state.json", _json(state))
    _write(partial / MANIFEST, _json({"format": FORMAT, "files": entries}))
    shutil.rmtree(final, ignore_errors=True)  # a damaged one that was passed over, and trained again to here
    partial.rename(final)
    handle = os.open(final.parent, os.O_RDONLY)
    os.fsync(handle)  # the rename itself
    os.close(handle)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _remove_old(run: Path, config: CheckpointConfig, hold: int | None) -> None:
    """Keep the newest `keep`, every `keep_every`-th step and what `hold` asks for; nothing that was cut off."""
    for path in (run / "checkpoints").glob(".step-*.partial"):
        shutil.rmtree(path, ignore_errors=True)
    held = [] if hold is None else regular(run, config, hold)[:1]
    for path in checkpoints(run)[config.keep :]:
        if not (path in held or (config.keep_every and step_of(path) % config.keep_every == 0)):
            shutil.rmtree(path, ignore_errors=True)


def remove_later(run: Path, step: int) -> None:
    """Remove the checkpoints of later steps, the newest first, so that at any time the newest is of one course."""
    for path in checkpoints(run):
        if step_of(path) > step:
            try:
                shutil.rmtree(path)
            except OSError as error:
                raise UserError(f"{path}: cannot be removed ({error.strerror}); remove it and start again") from error


def step_of(path: Path) -> int:
    """The step of a checkpoint."""
    return int(path.name.removeprefix("step-"))


def regular(run: Path, config: CheckpointConfig, last: int) -> list[Path]:
    """The checkpoints up to step `last` that are due whatever stops the run in between, newest first."""
    return [path for path in checkpoints(run) if step_of(path) <= last and step_of(path) % config.every == 0]


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first, sound or not."""
    return sorted((run / "checkpoints").glob("step-" + "[0-9]" * 8), reverse=True)


def newest_sound(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose files are all as written, and a line for each newer one passed over.

    Ranks share the work of hashing and come to the same answer.

    Raises:
        UserError: there are complete checkpoints, but not one of them is sound.
    """
    paths = distributed.broadcast(checkpoints(run))
    found, passed_over = first_sound(paths)
    if found is None and any((path / MANIFEST).exists() for path in paths):
        remedy = "no sound checkpoint is left: restore one, or remove them all to start anew"
        distributed.together(lambda: _refuse(f"{'; '.join(passed_over)}; {remedy}"))
    return found, passed_over


def first_sound(paths: list[Path]) -> tuple[Checkpoint | None, list[str]]:
    """The first of these checkpoints whose files are all as written, and a line for each one before it.

    Every rank must give the same `paths`: ranks share the work of hashing and come to the same answer.
    """
    passed_over: list[str] = []
    for path in paths:
        problem = next((p for p in distributed.gather(_problem(path)) if p), None)
        if problem is None:
            return Checkpoint(path, json.loads((path / "state.json").read_bytes())), passed_over
        passed_over.append(f"{path}: passed over, {problem}")
    return None, passed_over


def _refuse(message: str) -> None:
    raise UserError(message)


def _problem(path: Path) -> str | None:
    """What is wrong with a checkpoint, as far as this rank looks: every `world_size`-th of its files."""
    if not (path / MANIFEST).exists():
        return f"it has no {MANIFEST}: its writing was cut off"
    try:
        written_as = json.loads((path / MANIFEST).read_bytes())["format"]
        if written_as != FORMAT:
            return f"its format is {written_as}, this version reads {FORMAT}"
        files = list(_manifest_files(path).items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"{MANIFEST} is damaged ({type(error).__name__})"
    for name, sha256 in files[distributed.rank() :: distributed.world_size()]:
        try:
            with (path / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"{name}: {error.strerror}"
        if found != sha256:
            return f"{name}: its hash is not the manifest's, the file is damaged"
    return None


def _manifest_files(path: Path) -> dict[str, str]:
    """SHA-256 of each file that a checkpoint consists of, by name; `state.json` is always one."""
    files = json.loads((path / MANIFEST).read_bytes())["files"]
    return {name: files[name]["sha256"] for name in sorted({*files, "state.json"})}
