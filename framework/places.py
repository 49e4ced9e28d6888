"""Where data lie: a local path, or a URL that fsspec reads (https://, s3://, gs://); and what a network does there."""

import functools
import logging
import os
import posixpath
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from framework import heartbeat
from framework.errors import UserError

T = TypeVar("T")
logger = logging.getLogger("loam")

ATTEMPTS = 8  # how often a remote read is tried
BACKOFF = 0.5  # seconds before the second attempt
LONGEST_WAIT = 30.0  # seconds between two attempts
SILENCE = 30.0  # seconds without a byte before a read counts as failed
# whose own errors are of the network
_LIBRARIES = ("aiohttp", "aiobotocore", "botocore", "gcsfs", "google", "requests", "urllib3")


def is_remote(place: str) -> bool:
    """Whether `place` is a URL rather than a local path."""
    return "://" in place


def join(place: str, relative: str) -> str:
    """The place of a file that is named relative to the directory `place`."""
    if not is_remote(place):
        return os.path.normpath(os.path.join(place, relative))
    scheme, _, path = place.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(path, relative))}"


def read(place: str) -> bytes:
    """The bytes of a file.

    Raises:
        UserError: the file is missing, access is refused, or no attempt succeeded.
    """
    if is_remote(place):
        return retrying(lambda: bytes(filesystem(place).cat_file(place)), place)
    try:
        return Path(place).read_bytes()
    except OSError as error:
        raise UserError(f"{place}: {error.strerror}; check the path") from error


def read_range(place: str, start: int, end: int) -> bytes:
    """The bytes `start ... end - 1` of a remote file, tried once; whatever fails is for `retrying`."""
    content = filesystem(place).cat_file(place, start=start, end=end)
    if len(content) > end - start:
        raise UserError(f"{place}: the server ignores range requests; use one that answers them with 206")
    if len(content) < end - start:
        raise ShortReadError(f"{len(content)} bytes instead of {end - start}")
    return bytes(content)


def retrying(
    action: Callable[[], T],
    place: str,
    attempts: int = ATTEMPTS,
    backoff: float = BACKOFF,
    otherwise: str = "and start again",
) -> T:
    """`action()`, tried again while it fails for a passing reason.

    Passing are a connection that is refused, reset or silent, HTTP 408, 429 and 5xx, and fewer bytes than asked for.

    Args:
        action: what reads.
        place: for messages: URL, and byte perhaps.
        attempts: how often it is tried.
        backoff: seconds before the second attempt, twice as many before each further one, `LONGEST_WAIT` at most.
        otherwise: what there is to do beside checking the network and the server.

    Raises:
        UserError: the file is missing, access is refused, or no attempt succeeded.
    """
    for attempt in range(1, attempts + 1):
        try:
            return action()
        except Exception as caught:
            error = _cause(caught)
            if not _passing(error):
                raise _refusal(place, error) from caught
            if attempt == attempts:
                raise UserError(
                    f"{place}: failed {attempts} times, last with {_told(error)}; check the network and the server, "
                    f"{otherwise}"
                ) from caught
            wait = min(backoff * 2 ** (attempt - 1), LONGEST_WAIT)
            logger.warning("%s: %s; attempt %d of %d in %.1f s", place, _told(error), attempt + 1, attempts, wait)
            heartbeat.beat()
            time.sleep(wait)
    raise AssertionError("attempts is positive")


class MissingFileError(UserError):
    """There is no such file."""


class ShortReadError(OSError):
    """A server sent fewer bytes than were asked for."""


class ListingError(Exception):
    """A directory could not be listed; no `OSError`, for which fsspec would take the directory to be empty."""


@functools.cache
def _open_filesystem(scheme: str, process: int) -> Any:  # none outlives a fork
    import fsspec

    options: dict[str, Any] = {}
    if scheme in ("http", "https"):
        import aiohttp

        options["client_kwargs"] = {
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
        }
    system = fsspec.filesystem(scheme, **options)
    if hasattr(system, "_ls"):
        system._ls = _loud(system._ls)
    return system


def _loud(listing: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(listing)
    async def list_directory(*arguments: Any, **options: Any) -> Any:
        try:
            return await listing(*arguments, **options)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ListingError(str(error)) from error

    return list_directory


def filesystem(place: str) -> Any:
    """The fsspec file system of a URL; raises UserError where there is none, or its library is missing."""
    scheme = place.partition("://")[0]
    try:
        return _open_filesystem(scheme, os.getpid())
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{place}: {scheme}:// cannot be read ({error}); check the address, or pip install 'loam[remote]', or "
            "'loam[gcs]' for gs://"
        ) from error


def _cause(error: Exception) -> Exception:
    """What went wrong: to fsspec a listing is `ListingError`, and all that fails in HTTP's `info` a missing file."""
    cause = error.__cause__
    wrapped = isinstance(error, ListingError) or (
        isinstance(error, FileNotFoundError) and (isinstance(cause, OSError) or _library(cause) == "aiohttp")
    )
    return cause if wrapped and isinstance(cause, Exception) else error


def _passing(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | UserError | ValueError):
        return False
    status = _status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    return isinstance(error, OSError) or (_library(error) in _LIBRARIES and "Credentials" not in type(error).__name__)


def _refusal(place: str, error: Exception) -> Exception:
    """A `UserError` for what the user can mend; our own bugs stay what they are."""
    if isinstance(error, FileNotFoundError) or _status(error) in (404, 410):
        return MissingFileError(f"{place}: there is no such file; check the address")
    if isinstance(error, PermissionError) or _status(error) in (401, 403) or "Credentials" in type(error).__name__:
        return UserError(f"{place}: access was refused ({_told(error)}); check the credentials and the address")
    if isinstance(error, IsADirectoryError) or _library(error) in _LIBRARIES:
        return UserError(f"{place}: cannot be read ({_told(error)}); check the address")
    return error


def _status(error: Exception) -> int | None:
    """Of the HTTP answer, if there was one."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return status if isinstance(status, int) and status > 0 else None


def _library(error: BaseException | None) -> str:
    return type(error).__module__.partition(".")[0]


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
