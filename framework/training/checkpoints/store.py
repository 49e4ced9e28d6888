"""Where checkpoints lie: a directory, or a prefix of an object store; one shape for both.

    step-00001000/
        rank-00000.safetensors ...   NAME/master, NAME/ema if averaged, and the optimizer's moments, with
                                     AdamW NAME/exp_avg, NAME/exp_avg_sq: whole tensors, fp32, each
                                     parameter in the file of the one rank that owned it
        state.json                   step, sequences consumed, configuration, digests, metrics
        manifest.json                size and SHA-256 of every other file; written last

In a directory a checkpoint is written under a temporary name and renamed. An object store cannot rename:
there the manifest, uploaded when all else is there, is what makes it one. Without a manifest it is none.
"""

import contextlib
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

from framework import heartbeat, places
from framework.config import CheckpointConfig
from framework.errors import UserError

MANIFEST = "manifest.json"
NAME = re.compile(r"step-(\d{8})")
WHERE = "checkpoint.directory or run.directory"  # what decides where they lie


def name_of(step: int) -> str:
    """The name of the checkpoint of a step."""
    return f"step-{step:08d}"


class LocalStore:
    """Checkpoints in a directory that all ranks see.

    Args:
        directory: holds `step-NNNNNNNN`.
        only: the one step that there is to read; all, if None.
    """

    remote = False  # if so, a kill while writing leaves a `step-NNNNNNNN` that is none

    def __init__(self, directory: Path, only: int | None = None) -> None:
        self._directory = directory
        self._only = only

    def place(self, step: int) -> str:
        """Where the checkpoint of a step lies, for messages."""
        return str(self._directory / name_of(step))

    def steps(self) -> list[int]:
        """Of all that bear the name of a checkpoint, sound or not, newest first.

        Raises:
            UserError: one of them is a plain file, which is none, and would be in the way of one.
        """
        found = self._wanted([path.name for path in self._directory.glob("step-*")])
        for step in found:
            if (self._directory / name_of(step)).is_file():
                raise UserError(f"{self.place(step)}: is a plain file, and a checkpoint a directory; move it elsewhere")
        return found

    def _wanted(self, names: list[str]) -> list[int]:
        steps = [int(found[1]) for name in names if (found := NAME.fullmatch(name))]
        return sorted((step for step in steps if self._only in (None, step)), reverse=True)

    # ------------------------------------------------------------------------------------ reading

    def read(self, step: int, name: str) -> bytes:
        """A small file; raises FileNotFoundError."""
        return (self._directory / name_of(step) / name).read_bytes()

    def complete(self, step: int) -> bool:
        """Whether there is a manifest."""
        return (self._directory / name_of(step) / MANIFEST).exists()

    def readable(self, step: int) -> Path:
        """The local directory where a file is to be found once `bring` was called for it."""
        return self._directory / name_of(step)

    def bring(self, step: int, name: str) -> None:
        """Make a file lie in `readable(step)`."""

    def release(self, step: int) -> None:
        """What was brought is no longer needed."""

    # ------------------------------------------------------------------------------------ writing

    def writable(self) -> None:
        """Raise UserError if nothing can be written here."""
        _make(self._directory)

    def set_mark(self, name: str) -> None:
        """Write a file for the other ranks to see."""
        _make(self._directory)
        try:
            self._mark(name).write_bytes(b"")
        except OSError as error:
            raise UserError(f"{self._directory}: cannot be written ({error.strerror}); change {WHERE}") from error

    def require_mark(self, name: str) -> None:
        """Raise UserError if the file that rank 0 wrote is not to be seen here."""
        if not self._mark(name).exists():
            raise UserError(
                f"{self._directory.resolve()}: {socket.gethostname()} does not see what rank 0 writes there; all nodes "
                "have to: put run.directory on a disk that they share, or set checkpoint.directory=s3://... or to "
                "a path on one"
            )

    def remove_mark(self, name: str) -> None:
        """All have looked for it."""
        self._mark(name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there are checkpoints in it
            self._directory.rmdir()

    def _mark(self, name: str) -> Path:
        return self._directory / f".seen-by-all-{name}"

    def partial(self, step: int) -> Path:
        """The local directory in which the files of a checkpoint are written."""
        return self._directory / f".{name_of(step)}.partial"

    def begin(self, step: int) -> None:
        """An empty `partial(step)`."""
        shutil.rmtree(self.partial(step), ignore_errors=True)  # of a run that was killed while writing
        _make(self.partial(step))

    def deliver(self, step: int, name: str) -> None:
        """A file is written in `partial(step)`, whole."""

    def commit(self, step: int) -> None:
        """All is delivered, the manifest too: from here on there is a checkpoint of this step."""
        final = self._directory / name_of(step)
        shutil.rmtree(final, ignore_errors=True)  # a damaged one that was passed over, and trained again to here
        self.partial(step).rename(final)
        handle = os.open(self._directory, os.O_RDONLY)
        os.fsync(handle)  # the rename itself
        os.close(handle)

    def abandon(self, step: int) -> None:
        """Writing has failed."""
        shutil.rmtree(self.partial(step), ignore_errors=True)

    def remove(self, step: int) -> None:
        """Remove a checkpoint; a kill in the midst of it leaves none that looks whole."""
        path = self._directory / name_of(step)
        if path.exists():
            path.rename(self.partial(step))
            shutil.rmtree(self.partial(step), ignore_errors=True)

    def sweep(self) -> None:
        """Remove what writing or removing left behind when it was cut off."""
        for path in self._directory.glob(".step-*.partial"):
            shutil.rmtree(path, ignore_errors=True)


class RemoteStore(LocalStore):
    """Checkpoints behind a URL that fsspec reads, and, unless it is HTTP, writes.

    A file is written to local disk and uploaded from there, and brought to local disk to be read; what a network
    does meanwhile is retried, as `framework.places` says.

    Args:
        url: holds `step-NNNNNNNN`.
        scratch: a local directory, which all ranks see.
        only: the one step that there is to read; all, if None.
    """

    remote = True

    def __init__(self, url: str, scratch: Path, only: int | None = None) -> None:
        super().__init__(scratch, only)
        self._url = url

    def place(self, step: int) -> str:
        """Where the checkpoint of a step lies, for messages."""
        return places.join(self._url, name_of(step))

    def _file(self, step: int, name: str) -> str:
        return places.join(self._url, f"{name_of(step)}/{name}")

    def steps(self) -> list[int]:
        """Of all that bear the name of a checkpoint, sound or not, newest first."""
        if self._only is not None:
            return [self._only]  # a server that lists nothing may still have it
        system = places.filesystem(self._url)
        system.invalidate_cache()
        try:
            found = places.retrying(lambda: system.ls(self._url, detail=False), self._url)
        except places.MissingFileError:
            return []
        return self._wanted([str(name).rstrip("/").rpartition("/")[2] for name in found])

    def read(self, step: int, name: str) -> bytes:
        """A small file; raises FileNotFoundError."""
        try:
            return places.read(self._file(step, name))
        except places.MissingFileError as error:
            raise FileNotFoundError(2, "No such file") from error

    def complete(self, step: int) -> bool:
        """Whether there is a manifest."""
        file = self._file(step, MANIFEST)
        system = places.filesystem(file)
        system.invalidate_cache()
        return bool(places.retrying(lambda: system.exists(file), file))

    def readable(self, step: int) -> Path:
        """The local directory where a file is to be found once `bring` was called for it."""
        return self._directory / f".{name_of(step)}.brought"

    def bring(self, step: int, name: str) -> None:
        """Make a file lie in `readable(step)`."""
        source, target = self._file(step, name), self.readable(step) / name
        _make(target.parent)
        system = places.filesystem(source)
        try:
            places.retrying(lambda: system.get_file(source, str(target), callback=_beats()), source)
        except places.MissingFileError as error:
            raise FileNotFoundError(2, "No such file") from error

    def release(self, step: int) -> None:
        """What was brought is no longer needed."""
        shutil.rmtree(self.readable(step), ignore_errors=True)

    def writable(self) -> None:
        """Raise UserError if nothing can be written here."""
        probe = places.join(self._url, ".writable")
        system = places.filesystem(probe)
        places.retrying(lambda: system.pipe_file(probe, b"a look whether checkpoints can be written"), probe)
        places.retrying(lambda: system.rm_file(probe), probe)

    def begin(self, step: int) -> None:
        """An empty `partial(step)`, and nothing of that step at the URL."""
        super().begin(step)
        self.remove(step)

    def deliver(self, step: int, name: str) -> None:
        """A file is written in `partial(step)`, whole: upload it."""
        source, target = self.partial(step) / name, self._file(step, name)
        system = places.filesystem(target)
        places.retrying(lambda: system.put_file(str(source), target, callback=_beats()), target)
        source.unlink()

    def commit(self, step: int) -> None:
        """All is delivered, and last the manifest, so there is a checkpoint of this step."""
        self.abandon(step)

    def remove(self, step: int) -> None:
        """Remove a checkpoint, its manifest first."""
        system = places.filesystem(self._url)
        system.invalidate_cache()
        for place, recursive in ((self._file(step, MANIFEST), False), (self.place(step), True)):
            try:
                places.retrying(lambda p=place, r=recursive: system.rm(p, recursive=r), place)  # type: ignore[misc]
            except places.MissingFileError:
                continue

    def sweep(self) -> None:
        """Remove what writing or reading left behind when it was cut off, at the URL and on the local disk."""
        super().sweep()
        for path in self._directory.glob(".step-*.brought"):
            shutil.rmtree(path, ignore_errors=True)


def _beats() -> Any:
    """For fsspec: shows life with every piece of a file."""
    from fsspec.callbacks import Callback

    return Callback(hooks={"beat": lambda *_, **__: heartbeat.beat()})


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made ({error.strerror}); free some space or change {WHERE}") from error


def regular(store: LocalStore, every: int, last: int) -> list[int]:
    """The checkpoints up to step `last` that are due whatever stops the run in between, newest first."""
    return [step for step in store.steps() if step <= last and step % every == 0]


def remove_later(store: LocalStore, step: int) -> None:
    """Remove the checkpoints of later steps, the newest first, so that at any time the newest is of one course."""
    for later in store.steps():
        if later > step:
            try:
                store.remove(later)
            except OSError as error:
                place = store.place(later)
                raise UserError(f"{place}: cannot be removed ({error.strerror}); remove it and start again") from error


def open_store(run: Path, config: CheckpointConfig) -> LocalStore:
    """Where the checkpoints of a run lie."""
    if not config.directory:
        return LocalStore(run / "checkpoints")
    return _open(places.join(config.directory, run.name), run / "checkpoints")


def newest_place(run: Path, config: CheckpointConfig) -> str:
    """Path or URL of the newest checkpoint of a run that has one."""
    store = open_store(run, config)
    return store.place(store.steps()[0])


def open_source(run: Path, config: CheckpointConfig) -> LocalStore:
    """Where a run that has no checkpoint begins: `checkpoint.start_from`, all that lie there or the one it names."""
    place = config.start_from.rstrip("/")
    parent, _, last = place.rpartition("/")
    one = NAME.fullmatch(last)
    return _open(parent if one else place, run / "checkpoints", int(one[1]) if one else None)


def _open(place: str, scratch: Path, only: int | None = None) -> LocalStore:
    place = place.removeprefix("file://")
    return RemoteStore(place, scratch, only) if places.is_remote(place) else LocalStore(Path(place), only)
