"""Raw files: which there are, on this machine or behind a URL, and their bytes."""

import glob
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framework.corpus.digests import file_digest
from framework.errors import UserError
from framework.places import ShortReadError, filesystem, is_remote, retrying

_BLOCK_BYTES = 8 << 20  # fetched at a time
_MARKS = ("ETag", "LastModified", "Last-Modified", "Content-MD5", "md5Hash", "mtime")  # of a version of a remote file
_SAME = ("size", "ETag", "Last-Modified", "md5Hash")  # of these, what a listing and a look at the file tell alike


@dataclass(frozen=True)
class RawFile:
    """A file as it was found.

    `identity` is the SHA-256 of a local file. A remote one is not fetched for it: there it is what the
    server says of the version (its ETag, say), which changes when the content does.
    """

    location: str  # a path or a URL
    bytes: int  # 0 where a server does not tell
    identity: str


def base_name(location: str) -> str:
    """The last part of a path or URL."""
    return location.rstrip("/").rsplit("/", 1)[-1].partition("?")[0]


def find_files(field_name: str, patterns: list[str]) -> list[RawFile]:
    """The files that the patterns name, sorted, each once; `**` crosses directories.

    A pattern with `*` behind http(s):// is matched against the links of the page that it stands on.

    Raises:
        UserError: a pattern matches no file, a file is empty, or a server refuses.
    """
    found: set[str] = set()
    for pattern in patterns:
        matches = _remote_matches(pattern) if is_remote(pattern) else _local_matches(pattern)
        if not matches:
            if Path(pattern).is_dir():
                raise UserError(f"{field_name}: {pattern!r} is a directory; give files, e.g. {pattern.rstrip('/')}/*")
            raise UserError(f"{field_name}: {pattern!r} matches no file; give files or glob patterns that exist")
        found.update(matches)
    with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as threads:  # hashing holds no interpreter lock
        files = list(threads.map(_describe, sorted(found)))
    for file in files:
        if file.bytes == 0 and not is_remote(file.location):
            raise UserError(f"{file.location}: is empty; fetch it again or take it out of {field_name}")
    return files


def _local_matches(pattern: str) -> list[str]:
    return [name for name in glob.glob(pattern, recursive=True) if Path(name).is_file()]


def _remote_matches(pattern: str) -> list[str]:
    if not any(sign in pattern.partition("://")[2] for sign in "*["):
        return [pattern]  # whether it is there, and why not, is told when it is described
    system = filesystem(pattern)
    try:
        return [system.unstrip_protocol(name) for name in retrying(lambda: system.glob(pattern), pattern)]
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{pattern}: is no pattern ({error}); use *, [...], and ** between slashes") from error


def _describe(location: str) -> RawFile:
    if not is_remote(location):
        return RawFile(location, Path(location).stat().st_size, file_digest(Path(location)))
    about = retrying(lambda: filesystem(location).info(location), location)
    return RawFile(location, about.get("size") or 0, _version(about))


def _version(about: dict[str, Any]) -> str:
    return " ".join([str(about.get("size")), *(f"{mark} {about[mark]}" for mark in _MARKS if about.get(mark))])


class _RemoteFile(io.RawIOBase):
    """A remote file, fetched in large blocks; where that fails it is opened again, and read on from the same byte."""

    def __init__(self, location: str) -> None:
        self._location, self._position = location, 0
        self._file: Any = None
        self._in_ranges = True  # as long as the server answers them
        self._about: dict[str, Any] = {}
        retrying(self._open, location)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        size = self._about.get("size")
        if whence == os.SEEK_END and size is None:
            raise UserError(f"{self._location}: the server does not tell its size; fetch the file to a disk")
        self._position = offset + (0, self._position, size or 0)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        place = f"{self._location}: at byte {self._position:,}"
        data = retrying(lambda: self._read(len(buffer)), place)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, count: int) -> bytes:
        size = self._about.get("size")
        if size is not None and self._position >= size:
            return b""
        try:
            if self._file is None:
                self._open()
            self._go_to_position()
            data = bytes(self._file.read(count))
            if not data and size is not None:
                raise ShortReadError(f"it ends there, not at byte {size:,}")
            return data
        except Exception as error:
            self._release()
            filesystem(self._location).invalidate_cache()  # a listing would not tell that the file was changed
            if not self._in_ranges or not isinstance(error, ValueError) or isinstance(error, UserError):
                raise
            self._in_ranges = False  # so fsspec tells of a server that sends the whole file, whatever range is wanted
            return self._read(count)

    def _open(self) -> None:
        system = filesystem(self._location)
        about = system.info(self._location)
        if self._about and any(self._about.get(mark) != about.get(mark) for mark in _SAME):
            raise UserError(f"{self._location}: was changed while it was read; start again")
        self._about = about
        self._in_ranges = self._in_ranges and about.get("size") is not None and about.get("partial", True)
        options = {"block_size": _BLOCK_BYTES, "cache_type": "readahead"} if self._in_ranges else {"block_size": 0}
        if self._location.startswith("http"):
            options["size"] = about.get("size")  # or it is asked for once more
        self._file = system.open(self._location, "rb", **options)

    def _go_to_position(self) -> None:
        """A file that comes in one stream cannot be sought in: what lies before is read and let go."""
        if self._in_ranges:
            self._file.seek(self._position)
            return
        if self._file.tell() > self._position:
            self._release()
            self._open()
        while self._file.tell() < self._position:
            if not self._file.read(min(self._position - self._file.tell(), _BLOCK_BYTES)):
                raise ShortReadError(f"it ends at byte {self._file.tell():,}")

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        self._release()
        super().close()


def open_raw(location: str) -> io.BufferedReader:
    """The bytes of a file as they are, seekable.

    Raises:
        UserError: it cannot be opened; for a remote one also on any later read.
    """
    if is_remote(location):
        return io.BufferedReader(_RemoteFile(location), buffer_size=1 << 18)
    try:
        return open(location, "rb")
    except OSError as error:
        raise UserError(f"{location}: cannot be opened ({error.strerror}); check the path and its rights") from error
