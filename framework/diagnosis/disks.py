"""Disks: room, speed, and who sees what."""

import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from framework import places
from framework.diagnosis.finding import Finding, breaks, doubt
from framework.errors import UserError
from framework.page.wording import size

ROOM = 10_000_000_000  # bytes free below which a few checkpoints may fill a disk
SLOW = 50_000_000  # bytes a second: a checkpoint of 1e9 parameters, 12 GB, then takes four minutes
PIECE = 1 << 20  # bytes written at once
SYNCS = 5  # small writes, each pushed to the disk


def check_disk(subject: str, directory: Path, amount: int) -> list[Finding]:
    """Room in a directory, and how fast `amount` bytes are written through to the disk and read back."""
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    subject = f"{subject} {directory}"
    try:
        total, _, free = shutil.disk_usage(existing)
        if total == 0:  # as /proc and /sys have it
            return [breaks(subject, f"{existing} is on no disk", "choose another directory")]
        if free < 2 * amount:
            return [breaks(subject, f"{size(free)} free", "free some space, or choose another directory")]
        written, read, pushed = measure(existing, amount)
    except OSError as error:
        return [breaks(subject, f"cannot be written ({error.strerror})", "choose another directory")]
    fact = f"{size(free)} free, writes {size(written)}/s, reads {size(read)}/s, fsync {1000 * pushed:.1f} ms"
    if free < ROOM:
        return [doubt(subject, fact, "a few checkpoints may fill it: free some space")]
    if min(written, read) < SLOW:
        return [doubt(subject, fact, "checkpoints and data will be waited for: choose a faster disk")]
    return [Finding(subject, fact)]


def measure(directory: Path, amount: int, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float, float]:
    """Bytes written and read a second, through to the disk, and the seconds that one fsync takes."""
    file = directory / f".loam-doctor-{uuid.uuid4().hex}"
    piece = os.urandom(PIECE)
    try:
        with file.open("xb", buffering=0) as out:
            began = clock()
            for _ in range(max(1, amount // PIECE)):
                out.write(piece)
            os.fsync(out.fileno())
            written = clock() - began
            pushes = []
            for _ in range(SYNCS):
                began = clock()
                out.write(b"x")
                os.fsync(out.fileno())
                pushes.append(clock() - began)
        with file.open("rb", buffering=0) as content:
            os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # or memory would be measured
            began, count = clock(), 0
            while got := len(content.read(PIECE)):
                count += got
            read = clock() - began
    finally:
        file.unlink(missing_ok=True)
    return count / max(written, 1e-9), count / max(read, 1e-9), sorted(pushes)[SYNCS // 2]


def check_data(place: str) -> list[Finding]:
    """Whether the manifest of the data can be read from here."""
    manifest = places.join(place, "tokens/manifest.json")
    try:
        content = places.read(manifest)
    except UserError as error:
        remedy = "prepare the data, or correct data=..."
        return [breaks("data", str(error), remedy)]
    return [Finding("data", f"{manifest}, {size(len(content))}")]


def mark(directory: Path, name: str) -> None:
    """Write a file for other machines to see."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(b"")


def check_shared(directory: Path, name: str) -> list[Finding]:
    """Whether the file that rank 0 wrote is to be seen here."""
    if (directory / name).exists():
        return [Finding("shared disk", f"{directory} is the same for all")]
    return [
        breaks(
            "shared disk",
            f"{directory.absolute()} is not that of rank 0, and checkpoints need all ranks' parts in one place",
            "put run.directory on a disk that all machines see, or set checkpoint.directory=s3://...",
        )
    ]
