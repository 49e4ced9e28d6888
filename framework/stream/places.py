"""Where data lie: a local path, or a URL that fsspec reads (https://, s3://, gs://)."""

import functools
import logging
import os
import posixpath
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from framework.errors import UserError

T = TypeVar("T")
logger = logging.getLogger("loam")

LONGEST_WAIT = 30.0  # seconds between two attempts
SILENCE = 30.0  # seconds without a byte before a read counts as failed
_LIBRARIES = ("aiohttp", "aiobotocore", "botocore", "gcsfs", "urllib3")  # whose own errors are of the network


def is_remote(place: str) -> bool:
    """Whether `place` is a URL rather than a local path."""
    return "://" in place


def join(place: str, relative: str) -> str:
    """The place of a file that is named relative to the directory `place`."""
    if not is_remote(place):
        return os.path.normpath(os.path.join(place, relative))
    scheme, _, path = place.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(path, relative))}"


def read(place: str, start: int = 0, end: int | None = None, attempts: int = 8, backoff: float = 0.5) -> bytes:
    """The bytes `start ... end - 1` of a file, the whole of it by default.

    A remote read that fails for a passing reason (connection reset, time-out, HTTP 408, 429 or 5xx, fewer bytes
    than asked for) is tried again.

    Args:
        place: path or URL.
        start, end: range in bytes.
        attempts: how often a remote read is tried.
        backoff: seconds before the second attempt, twice as many before each further one, 30 at most.

    Raises:
        UserError: the file is missing, access is refused, or no attempt succeeded.
    """
    if not is_remote(place):
        try:
            with Path(place).open("rb") as file:
                file.seek(start)
                return file.read() if end is None else file.read(end - start)
        except OSError as error:
            raise UserError(f"{place}: {error.strerror}; check the path") from error
    return retrying(lambda: _read_remote(place, start, end), place, attempts, backoff)


def retrying(action: Callable[[], T], place: str, attempts: int, backoff: float) -> T:
    """`action()`, tried again while it fails for a passing reason."""
    for attempt in range(1, attempts + 1):
        try:
            return action()
        except Exception as error:
            if not _passing(error):
                raise _refusal(place, error) from error
            if attempt == attempts:
                raise UserError(
                    f"{place}: failed {attempts} times, last with {_told(error)}; check the network and the server, "
                    "or raise data.remote.attempts"
                ) from error
            wait = min(backoff * 2 ** (attempt - 1), LONGEST_WAIT)
            logger.warning("%s: %s; attempt %d of %d in %.1f s", place, _told(error), attempt + 1, attempts, wait)
            time.sleep(wait)
    raise AssertionError("attempts is positive")


class ShortReadError(OSError):
    """A server sent fewer bytes than were asked for."""


def _read_remote(place: str, start: int, end: int | None) -> bytes:
    content = filesystem(place).cat_file(place, start=start or None, end=end)
    if end is not None and len(content) > end - start:
        raise UserError(f"{place}: the server ignores range requests; use one that answers them with 206")
    if end is not None and len(content) < end - start:
        raise ShortReadError(f"{len(content)} bytes instead of {end - start}")
    return bytes(content)


@functools.cache
def _open_filesystem(scheme: str) -> Any:
    import fsspec

    options: dict[str, Any] = {}
    if scheme in ("http", "https"):
        import aiohttp

        options["client_kwargs"] = {
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
        }
    return fsspec.filesystem(scheme, **options)


def filesystem(place: str) -> Any:
    """The fsspec file system of a URL; raises UserError where there is none, or its library is missing."""
    scheme = place.partition("://")[0]
    try:
        return _open_filesystem(scheme)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{place}: {scheme}:// cannot be read ({error}); pip install 'loam[remote]', or 'loam[gcs]' for gs://"
        ) from error


def _passing(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | UserError):
        return False
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(status, int):
        return status in (408, 429) or status >= 500
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or (library in _LIBRARIES and "Credentials" not in type(error).__name__)


def _refusal(place: str, error: Exception) -> Exception:
    """A `UserError` for what the user can mend; our own bugs stay what they are."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{place}: there is no such file; check the address")
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, PermissionError) or library in _LIBRARIES:
        return UserError(f"{place}: access was refused ({_told(error)}); check the credentials and the address")
    return error


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
