"""A stage of preparation: a directory that is whole and sound, or is not there.

A stage is built in a directory beside its place and renamed into it when it is done, with a stamp
`stage.json` that holds the digest of everything the content follows from and the hash of every file.
The next run keeps what is sound for the same inputs and builds the rest again. A task of a stage
(`engine`) is such a directory too.
"""

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framework.corpus.digests import file_digest, json_digest
from framework.errors import UserError

STAMP = "stage.json"
Facts = dict[str, Any]  # what a stage reports about its content; JSON

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True)
class Stage:
    """A sound directory.

    `digest` follows from the names and bytes of its files, so a stage that was built again with the
    same outcome leaves the stages after it standing.
    """

    directory: Path
    digest: str
    facts: Facts


def ensure(
    directory: Path, label: str, inputs: Any, build: Callable[[Path], Facts], say: Callable[[str], None]
) -> Stage:
    """The stage in `directory`: kept if it is sound for `inputs`, else built.

    Args:
        directory: its place.
        label: its name in what is said to the user.
        inputs: everything the content follows from, as JSON.
        build: fills an empty directory and returns the facts to be kept in the stamp.
        say: takes one line for the user.

    Raises:
        Whatever `build` raises; the half-built directory is then removed and the old one stays.
    """
    digest = json_digest(inputs)
    reason = unsound(directory, digest)
    if reason is None:
        say(f"{label}: sound, kept")
    else:
        if reason:
            say(f"{label}: {reason}; made again")
        fill(directory, digest, build)
    return read_stage(directory)


def unsound(directory: Path, digest: str) -> str | None:
    """Why a stage must be built: "" if it is not there, None if it need not.

    Args:
        directory: its place.
        digest: of its inputs.
    """
    if not directory.exists():
        return ""
    stamp = _read_stamp(directory)
    if stamp is None:
        return "has no readable stamp"
    if stamp["inputs"] != digest:
        return "its inputs or settings have changed"
    for name, known in stamp["files"].items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != known["bytes"] or file_digest(path) != known["sha256"]:
            return f"{name} is damaged"
    return None


def read_stage(directory: Path) -> Stage:
    """A stage that is known to be sound."""
    stamp = _read_stamp(directory)
    assert stamp is not None, directory
    return Stage(directory, json_digest(stamp["files"]), stamp["facts"])


def _read_stamp(directory: Path) -> dict[str, Any] | None:
    try:
        stamp = json.loads((directory / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) and stamp.keys() == {"inputs", "files", "facts"} else None


def fill(directory: Path, digest: str, build: Callable[[Path], Facts]) -> None:
    """Build a stage beside its place, stamp it, and rename it into place."""
    partial, old = partial_directory(directory), directory.with_name(f".{directory.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        facts = build(partial)
        files = {
            str(path.relative_to(partial)): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        stamp = {"inputs": digest, "files": files, "facts": facts}
        (partial / STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if directory.exists():
        directory.rename(old)
    partial.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def partial_directory(directory: Path) -> Path:
    """Where a stage is built."""
    return directory.with_name(f".{directory.name}.partial")


def output_error(error: OSError, directory: Path) -> UserError | None:
    """What to tell the user of an error on writing under `directory`; None if it is not theirs to mend."""
    if error.errno not in _OUTPUT_ERRORS:
        return None
    return UserError(f"output: {error.filename or directory}: {error.strerror}; make room or choose another directory")
