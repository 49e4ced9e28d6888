"""Where raw files lie: on this machine, or behind any URL that fsspec reads (https://, s3://, gs://)."""

import glob
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from framework.corpus.digests import file_digest
from framework.errors import UserError

T = TypeVar("T")

_BLOCK_BYTES = 8 << 20  # fetched at a time
_MARKS = ("ETag", "LastModified", "Last-Modified", "Content-MD5", "md5Hash", "mtime")  # of a version of a remote file


@dataclass(frozen=True)
class RawFile:
    """A file as it was found.

    `identity` is the SHA-256 of a local file. A remote one is not fetched for it: there it is what the
    server says of the version (its ETag, say), which changes when the content does.
    """

    location: str  # a path or a URL
    bytes: int  # 0 where a server does not tell
    identity: str


def is_remote(location: str) -> bool:
    """Whether a location is a URL."""
    return "://" in location


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
    system = filesystem(pattern)

    def matches() -> list[str]:
        if any(sign in pattern.partition("://")[2] for sign in "*["):
            return [system.unstrip_protocol(name) for name in system.glob(pattern)]
        return [pattern]  # whether it is there, and why not, is told when it is described

    return attempt(pattern, matches)


def _describe(location: str) -> RawFile:
    if not is_remote(location):
        return RawFile(location, Path(location).stat().st_size, file_digest(Path(location)))
    about = attempt(location, lambda: filesystem(location).info(location))
    version = [f"{mark} {about[mark]}" for mark in _MARKS if about.get(mark)]
    return RawFile(location, about.get("size") or 0, " ".join([str(about.get("size")), *version]))


def filesystem(location: str) -> Any:
    """The fsspec file system of a URL.

    Raises:
        UserError: there is none for its scheme, or the library that it needs is not installed.
    """
    import fsspec

    try:
        return fsspec.filesystem(location.partition("://")[0])
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{location}: cannot be read ({error}); check the URL, or pip install 'loam[remote]'"
        ) from error


def attempt(location: str, action: Callable[[], T], place: str = "") -> T:
    """`action()`; whatever the network, the server or the credentials do is told with the location, in one line."""
    try:
        return action()
    except UserError:
        raise
    except Exception as error:  # each library has its own: botocore's and aiohttp's have no common base
        cause = (error.__cause__ or error) if isinstance(error, FileNotFoundError) else error  # fsspec's, for HTTP
        name, words = type(cause).__name__, " ".join(str(cause).split())
        status = getattr(cause, "status", 0)
        if isinstance(cause, FileNotFoundError) or status in (404, 410):
            raise UserError(f"{location}: is not there; check the URL") from error
        if isinstance(cause, PermissionError) or "Credentials" in name or status in (401, 403):
            remedy = "check your credentials and rights"
        else:
            remedy = "check the network and the server, and start again"
        raise UserError(f"{location}: {place}{words or name}; {remedy}") from error


class _RemoteFile(io.RawIOBase):
    """A remote file, fetched in large blocks; what goes wrong on the way reaches the user as `UserError`."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._file: Any = None
        self._file = attempt(
            location, lambda: filesystem(location).open(location, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
        )

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        place = f"at byte {self.tell():,}: "
        data = attempt(self._location, lambda: self._file.read(len(buffer)), place)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
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
