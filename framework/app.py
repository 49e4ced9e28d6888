"""The one way in: command line to validated configuration, the same on every rank.

Rank 0 runs Hydra: it composes `configs/` with the overrides of the command line, validates the
result against the dataclasses of `framework.config`, and broadcasts it. The other ranks run no
Hydra, so no resolver, environment or file can make them differ, and `--multirun` works under a
launcher: rank 0 sweeps, the others take one job after another.

Exit codes: 0 done; 2 the user's mistake, told in one line; 75 (EX_TEMPFAIL) stopped by a signal with all
saved, start again to go on; 70 a rank hung; 130 stopped from the keyboard; 1 a bug of ours, with its
traceback.
"""

import contextlib
import errno
import functools
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from framework import composition, distributed, failure, trial
from framework.distributed import StoppedByAnotherRankError
from framework.errors import StopAskedError, UserError

Task = Callable[[Any], None]
Settle = Callable[[Any, set[str]], None]

STOPPED = 75  # exit code EX_TEMPFAIL: start again to go on


def entry(
    name: str, schema: type, settle: Settle | None = None, apart: bool = False
) -> Callable[[Task], Callable[[], None]]:
    """Make `task(config)` a program whose configuration is `configs/NAME.yaml`, typed by `schema`.

    settle: changes the configuration on rank 0, before it is checked, by what files say that it names; it is also
        given the names that `composition.given` finds.
    apart: every rank composes for itself, and none waits for another: for what looks whether ranks can meet.
    """

    def decorate(task: Task) -> Callable[[], None]:
        @functools.wraps(task)
        def main() -> None:
            arguments = [a for a in sys.argv[1:] if not a.startswith(("--local_rank", "--local-rank"))]
            # the deepspeed launcher adds --local_rank=N, which Hydra does not know
            sys.argv[1:] = composition.with_quoted_texts(arguments, schema)
            if apart:
                distributed.leave(_guarded(lambda: _alone(name, schema, task)))
            elif distributed.rank() == 0:
                distributed.leave(_guarded(lambda: _lead(name, schema, task, settle)))
            else:
                distributed.leave(_guarded(lambda: _follow(schema, task)))

        return main

    return decorate


def _guarded(program: Callable[[], None]) -> int:
    """Run `program`; turn the user's mistakes into one line on stderr and code 2."""
    try:
        program()
    except UserError as error:
        _report(error)
        return 2
    except StoppedByAnotherRankError:
        return 2
    except StopAskedError as stop:
        if distributed.rank() == 0:
            print(f"loam: {stop}", file=sys.stderr, flush=True)
        return STOPPED
    except KeyboardInterrupt:
        print("loam: stopped; what was done is kept, start again to go on", file=sys.stderr, flush=True)
        return 130
    except SystemExit as end:  # after --help, which Hydra answers
        return int(end.code or 0)
    except Exception as error:
        return failure.end(error)
    return 0


def _report(error: UserError) -> None:
    where = f" [rank {distributed.rank()}]" if distributed.world_size() > 1 else ""
    line = f"loam: error:{where} {' '.join(str(error).split())}"
    print(line, file=sys.stderr, flush=True)
    failure.write_error_file(failure.report_of(line))  # torchrun then shows it in its own closing message too


def _lead(name: str, schema: type, task: Task, settle: Settle | None) -> None:
    """Rank 0: compose, validate, tell the others, work. Whatever happens, the others hear of the end."""
    told = False

    def job(composed: Any) -> None:
        nonlocal told
        config, resolved = composition.validated(composed, schema)
        if settle is not None:
            settle(config, composition.given())
            resolved = composition.to_yaml(config)
        config.check(distributed.world_size())
        distributed.broadcast((resolved, trial.is_on()))
        told = True  # from here on every rank works, and an error is met by `distributed.together`
        problem = None
        if trial.is_on():
            problem = _tried(config, task)
        else:
            _work(config, task)
        told = False
        if problem is not None:
            raise problem

    try:
        composition.run_hydra(name, schema, job)
    finally:
        if not told:
            distributed.broadcast(None if sys.exc_info()[0] in (None, SystemExit) else "")


def _alone(name: str, schema: type, task: Task) -> None:
    """One rank that asks no other."""

    def job(composed: Any) -> None:
        config, _ = composition.validated(composed, schema)
        config.check(distributed.world_size())
        task(config)

    composition.run_hydra(name, schema, job)


def _follow(schema: type, task: Task) -> None:
    """Every other rank: take the configurations that rank 0 sends until it sends no more."""
    while message := distributed.broadcast(None):
        resolved, is_trial = message
        config = composition.from_yaml(resolved, schema)
        if is_trial:
            with trial.judged_by(trial.elsewhere):
                _tried(config, task)
        else:
            _work(config, task)
    if message == "":
        raise StoppedByAnotherRankError


def _tried(config: Any, task: Task) -> UserError | None:
    """Work on a trial of a sweep; the line that it was refused with, on whichever rank, after which others may follow.

    The error is a new one, as the old one's traceback would keep the whole run in memory.
    """
    line = None
    try:
        _work(config, task)
    except (UserError, StoppedByAnotherRankError) as error:
        line = str(error)  # empty: another rank has it
    gc.collect()  # an engine is full of cycles, and the next trial needs its memory
    if line is None:
        return None
    return UserError(next(filter(None, distributed.gather(line))))


def _work(config: Any, task: Task) -> None:
    if not getattr(config, "keeps_records", False):
        return task(config)
    directory = Path(config.run.directory) / config.run.name
    distributed.together(lambda: _open_run_directory(directory))
    try:
        task(config)
    except (UserError, StoppedByAnotherRankError):
        _remove_empty(directory)  # on every rank, as they may have disks of their own
        raise


def _remove_empty(directory: Path) -> None:
    """A run that was refused before it began leaves no directory."""
    with contextlib.suppress(OSError):  # it is not empty
        (directory / "log").rmdir()
        directory.rmdir()


def _open_run_directory(directory: Path) -> None:
    """Make `runs/NAME/` and send this rank's log records there."""
    import logging

    try:
        (directory / "log").mkdir(parents=True, exist_ok=True)
        if not os.access(directory / "log", os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        handler = logging.FileHandler(directory / "log" / f"rank-{distributed.rank():05d}.log", delay=True)
    except OSError as error:
        raise UserError(f"run.directory: cannot write {directory}: {error.strerror}; choose another") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("loam")
    for old in logger.handlers[:]:  # a sweep opens one run directory after another
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    _log_warnings()


@functools.cache  # once in a process, however many run directories it opens
def _log_warnings() -> None:
    """Warnings of Python go to the log of this rank too, beside where they went before."""
    import logging
    import warnings

    show = warnings.showwarning

    def show_and_log(message: Any, category: Any, filename: str, lineno: int, *where: Any, **more: Any) -> None:
        logging.getLogger("loam").warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)
        show(message, category, filename, lineno, *where, **more)

    warnings.showwarning = show_and_log
