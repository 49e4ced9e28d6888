"""Checkpoints without pickle and without a converter: one format for every ZeRO stage and world size.

`store` says what lies where, `writer` how it comes there. Reading takes the newest one
that is sound, which is one whose every file still has the hash that the manifest lists and whose tensors are
those of the model, and says which it passed over and why.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from framework import distributed, heartbeat
from framework.errors import UserError
from framework.training.checkpoints.store import MANIFEST, LocalStore
from framework.training.state import MASTER

FORMAT = 1
HASH_BYTES = 1 << 24  # read at once

Shapes = Mapping[str, tuple[int, ...]]
Files = dict[str, str]  # SHA-256 of each file of a checkpoint by name


@dataclass(frozen=True)
class Checkpoint:
    """A sound checkpoint, its files on local disk.

    Attributes:
        store: where it lies.
        step: its number there.
        files: that it consists of; they are in `store.readable(step)`.
        state: the content of state.json.
    """

    store: LocalStore
    step: int
    files: list[str]
    state: dict[str, Any]

    @property
    def place(self) -> str:
        """Its path or URL."""
        return self.store.place(self.step)

    def release(self) -> None:
        """It has been read, by all ranks, once all of them have called."""
        distributed.gather(None)
        self.store.release(self.step)

    def reader(self) -> Callable[[str, str], Tensor]:
        """`read(name, field)`: one whole tensor, without loading the others."""
        where = {key: file for file in self._tensor_files() for key in file.keys()}  # noqa: SIM118 (no iterator)

        def read(name: str, field: str) -> Tensor:
            key = f"{name}/{field}"
            if key not in where:
                raise UserError(f"{self.place}: has no {key}; it is a checkpoint of another model")
            return where[key].get_tensor(key)

        return read

    def misfit(self, shapes: Shapes) -> str | None:
        """What its weights lack to be those of a model with parameters of these shapes."""
        found = {
            key.removesuffix(f"/{MASTER}"): tuple(file.get_slice(key).get_shape())
            for file in self._tensor_files()
            for key in file.keys()  # noqa: SIM118
            if key.endswith(f"/{MASTER}")
        }
        for name in sorted({*found, *shapes}):
            if found.get(name) != shapes.get(name):
                return f"{name} is {_told(found.get(name))}, in this model {_told(shapes.get(name))}"
        return None

    def _tensor_files(self) -> list[Any]:
        from safetensors import safe_open

        names = [name for name in self.files if name.endswith(".safetensors")]
        return [safe_open(self.store.readable(self.step) / name, framework="pt") for name in names]


def _told(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))


def newest_sound(
    store: LocalStore, shapes: Shapes | None = None, foreign: Callable[[Checkpoint], str | None] = lambda _: None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose files are all as written, and a line for each newer one passed over.

    Ranks share the work of fetching and hashing and come to the same answer.

    Args:
        store: where they lie.
        shapes: of the model's parameters; one with other weights is not sound. None: that is not looked at.
        foreign: says of a sound one what makes it another model's, by its settings. It is passed over for an older
            one that is not; if there is none, it is the answer, as then it is the settings that have changed.

    Raises:
        UserError: there are checkpoints, but not one of them is sound.
    """
    passed_over: list[str] = []
    foreigner: tuple[Checkpoint, list[str]] | None = None
    only_unfinished = store.remote
    for step in distributed.broadcast(_listed(store)):
        found, problem = look_at(store, step)
        only_unfinished = only_unfinished and problem == NO_MANIFEST
        if found is not None:
            problem = distributed.broadcast(foreign(found))
            if problem is not None:
                foreigner = foreigner or (found, passed_over[:])
            elif shapes is not None:
                problem = distributed.broadcast(found.misfit(shapes))
            if problem is None:
                return found, passed_over
        passed_over.append(f"{store.place(step)}: passed over, {problem}")
    if foreigner is not None:
        return foreigner
    if passed_over and not only_unfinished:
        remedy = "no sound checkpoint is left: restore one, or remove them all to start anew"
        distributed.together(lambda: _refuse(f"{'; '.join(passed_over)}; {remedy}"))
    return None, passed_over


def first_sound(store: LocalStore, steps: list[int]) -> tuple[Checkpoint | None, list[str]]:
    """The first of the checkpoints of these steps that is as written, and a line for each one before it.

    Every rank must give the same `steps`.
    """
    passed_over: list[str] = []
    for step in steps:
        found, problem = look_at(store, step)
        if found is not None:
            return found, passed_over
        passed_over.append(f"{store.place(step)}: passed over, {problem}")
    return None, passed_over


def _listed(store: LocalStore) -> list[int] | None:
    return distributed.together(lambda: store.steps() if distributed.rank() == 0 else None)


def _refuse(message: str) -> None:
    raise UserError(message)


NO_MANIFEST = f"it has no {MANIFEST}: its writing was cut off"


def look_at(store: LocalStore, step: int) -> tuple[Checkpoint | None, str | None]:
    """The checkpoint of a step, or what is wrong with it; every rank must call, and gets the same answer."""
    files, problem = distributed.broadcast(distributed.together(lambda: _read_manifest(store, step)))
    if problem is None:
        problems = distributed.gather(distributed.together(lambda: _check_share(store, step, files)))
        problem = next((line for line in problems if line), None)
    if problem is not None:
        store.release(step)
        return None, problem
    state = json.loads((store.readable(step) / "state.json").read_bytes())
    return Checkpoint(store, step, list(files), state), None


def _read_manifest(store: LocalStore, step: int) -> tuple[Files, str | None]:
    """On rank 0: the files that a checkpoint consists of, `state.json` always among them; or what is wrong."""
    if distributed.rank() != 0:
        return {}, None
    try:
        content = json.loads(store.read(step, MANIFEST))
        if content["format"] != FORMAT:
            return {}, f"its format is {content['format']}, this version reads {FORMAT}"
        listed = content["files"]
        return {name: listed[name]["sha256"] for name in sorted({*listed, "state.json"})}, None
    except FileNotFoundError:
        return {}, NO_MANIFEST
    except UserError:
        raise
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return {}, f"{MANIFEST} is damaged ({type(error).__name__})"


def _check_share(store: LocalStore, step: int, files: Files) -> str | None:
    """What is wrong with a checkpoint, as far as this rank looks: the ranks share the files.

    Those behind a URL are brought to each machine, by its own ranks.
    """
    first, ranks = distributed.rank(), distributed.world_size()
    if store.remote and distributed.ranks_here() < ranks:
        first, ranks = distributed.local_rank(), distributed.ranks_here()
    for name, sha256 in list(files.items())[first::ranks]:
        try:
            store.bring(step, name)
            found = hash_of(store.readable(step) / name)
        except OSError as error:
            return f"{name}: {error.strerror}"
        if found != sha256:
            return f"{name}: its hash is not the manifest's, the file is damaged"
    return None


def hash_of(file: Path) -> str:
    """SHA-256 of a file, which shows life while it reads."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(HASH_BYTES):
            digest.update(piece)
            heartbeat.beat()
    return digest.hexdigest()
