"""Checkpoints are written in the background: a step waits for the copy to host memory and no longer.

One thread a rank serialises, hashes and writes what its rank owns; when all have, rank 0 commits. The threads
agree over a gloo group of their own. A file system cannot carry that: it may show a file late to another
machine, and cannot say that a rank has failed, least of all when it is full. The job's store would do, but
could only wait for what is missing; a group breaks at once when a rank dies. And no collective of training
can get between theirs.
"""

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor

from framework import distributed, heartbeat
from framework.config import CheckpointConfig
from framework.distributed import StoppedByAnotherRankError
from framework.errors import UserError
from framework.training.checkpoints.reader import FORMAT, hash_of
from framework.training.checkpoints.store import MANIFEST, WHERE, LocalStore, regular

T = TypeVar("T")
logger = logging.getLogger("loam")

SLOWEST_WRITE = timedelta(days=1)  # that ranks wait for one another; the watchdog ends what hangs, much earlier


class CheckpointWriter:
    """Writes the checkpoints of a run. Every rank has one, and must call the same methods in the same order.

    Args:
        store: where they go.
        config: how many are kept.
    """

    def __init__(self, store: LocalStore, config: CheckpointConfig) -> None:
        self._store = store
        self._config = config
        self._group = distributed.new_control_group(SLOWEST_WRITE)
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._news: dict[str, float] = {}
        distributed.together(lambda: store.writable() if distributed.rank() == 0 else None)

    def save(self, collect: Callable[[], dict[str, Tensor]], state: dict[str, Any], hold: int | None = None) -> None:
        """Copy what this rank owns, and have it written; an earlier checkpoint is finished first.

        Args:
            collect: gives this rank's tensors, by `NAME/FIELD`, in host memory and nobody else's; collective.
            state: the content of state.json, rank 0's counts; it needs `step`.
            hold: the newest regular checkpoint of this step or an earlier one is kept in any case.

        Raises:
            UserError: the earlier checkpoint could not be written; nothing of it is left, and older ones stay.
        """
        started = time.perf_counter()
        self.finish()  # before the copy: two of them need not fit into memory
        tensors = collect()
        self._thread = threading.Thread(target=self._write, args=(tensors, state, hold), name="checkpoint", daemon=True)
        self._thread.start()
        self._news["checkpoint/stall_seconds"] = time.perf_counter() - started

    def finish(self) -> None:
        """Wait until the checkpoint that is being written is there; raises UserError if it could not be."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """A run that is ended by a mistake of the user's, told on all ranks, keeps what is being written."""
        if isinstance(error, UserError | StoppedByAnotherRankError):
            with contextlib.suppress(UserError, StoppedByAnotherRankError):  # which is in the log
                self.finish()

    def news(self) -> dict[str, float]:
        """Metrics since they were asked for last: seconds that a step stood still, and that a write took."""
        news, self._news = self._news, {}
        return news

    def _write(self, tensors: dict[str, Tensor], state: dict[str, Any], hold: int | None) -> None:
        step, started = state["step"], time.perf_counter()
        try:
            self._agreed(step, lambda: self._store.begin(step) if distributed.rank() == 0 else None)
            name = f"rank-{distributed.rank():05d}.safetensors"
            entry = self._agreed(step, lambda: self._write_tensors(step, name, tensors))
            entries = dict(distributed.gather((name, entry), self._group))
            self._agreed(step, lambda: self._commit(step, state, entries, hold))
            self._store.abandon(step)  # the directory that this rank uploaded from, on a machine without rank 0
        except Exception as failure:  # raised by `finish`, where all ranks meet it
            logger.warning("the checkpoint of step %d was not written: %s", step, failure or "another rank failed")
            self._failure = failure
            self._store.abandon(step)
            return
        self._news["checkpoint/write_seconds"] = time.perf_counter() - started

    def _agreed(self, step: int, action: Callable[[], T]) -> T:
        """`distributed.together` for whatever goes wrong: a rank that stayed away would leave the others waiting."""

        def told() -> T:
            try:
                return action()
            except UserError:
                raise
            except OSError as error:
                raise _full(error.filename or self._store.place(step), error) from error
            except Exception as error:
                logger.exception("writing a checkpoint failed")
                raise UserError(
                    f"checkpoint: writing failed with {type(error).__name__}: {error}; this is a bug, its traceback "
                    f"is in the log of rank {distributed.rank()}"
                ) from error

        return distributed.together(told, self._group)

    def _write_tensors(self, step: int, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        def write(path: Path) -> None:
            try:  # not with `save`, which makes a second copy in memory and lets no other thread run meanwhile
                save_file(tensors, path)
            except SafetensorError as error:  # so it tells of a full disk
                raise _full(path, error) from error

        return self._written(step, name, write)

    def _commit(self, step: int, state: dict[str, Any], entries: dict[str, Any], hold: int | None) -> None:
        """Rank 0: state, then manifest, then the final name; and what need not be kept goes."""
        if distributed.rank() != 0:
            return
        entries["state.json"] = self._written(step, "state.json", lambda path: path.write_bytes(_json(state)))
        manifest = _json({"format": FORMAT, "files": entries})
        self._written(step, MANIFEST, lambda path: path.write_bytes(manifest))
        self._store.commit(step)
        retain(self._store, step, self._config, hold)

    def _written(self, step: int, name: str, write: Callable[[Path], Any]) -> dict[str, Any]:
        """Write a file through to the disk, and deliver it; returns its entry in the manifest."""
        path = self._store.partial(step) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # rank 0 cannot have, where ranks upload from disks apart
            write(path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            heartbeat.beat()
            entry = {"bytes": path.stat().st_size, "sha256": hash_of(path)}
        except OSError as error:
            raise _full(path, error) from error
        self._store.deliver(step, name)
        return entry


def _full(path: Path | str, error: Exception) -> UserError:
    problem = getattr(error, "strerror", None) or error
    return UserError(f"{path}: cannot be written ({problem}); free some space or change {WHERE}")


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def retain(store: LocalStore, newest: int, config: CheckpointConfig, hold: int | None) -> None:
    """Keep the newest `keep`, every `keep_every`-th and what `hold` asks for, up to `newest`, the one just written.

    What is newer was passed over when the run was taken up before it, and what was cut off is none.
    """
    store.sweep()
    kept, held = 0, [] if hold is None else regular(store, config.every, hold)[:1]
    for step in store.steps():
        if step > newest or (kept < config.keep and not store.complete(step)):
            store.remove(step)
        elif kept < config.keep:
            kept += 1
        elif not (step in held or (config.keep_every and step % config.keep_every == 0)):
            store.remove(step)
