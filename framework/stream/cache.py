"""Blocks read from afar, kept on a local disk up to a size; the ones used longest ago go first."""

import contextlib
import os
from pathlib import Path

from framework.errors import UserError


class DiskCache:
    """Files named by the SHA-256 of their content, shared by all processes of a machine.

    Args:
        directory: made if it does not exist.
        limit: bytes, at most; several processes that write at the same moment may exceed it by a block each.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"data.remote.cache: {directory}: {error.strerror}; choose another directory") from error

    def get(self, name: str) -> bytes | None:
        """The content under `name`, or None. The caller checks its hash and calls `drop` if it is another."""
        path = self._directory / name
        try:
            content = path.read_bytes()
            os.utime(path)  # used just now
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"data.remote.cache: {path}: {error.strerror}; empty the cache, or do without") from error
        return content

    def put(self, name: str, content: bytes) -> None:
        """Keep `content`, if need be in the place of what was used longest ago."""
        partial = self._directory / f".{name}.{os.getpid()}"
        try:
            self._make_room(len(content))
            partial.write_bytes(content)
            partial.rename(self._directory / name)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UserError(
                f"data.remote.cache: {self._directory}: {error.strerror}; free some space; or lower .cache_bytes"
            ) from error

    def drop(self, name: str) -> None:
        """Forget a file, which is damaged."""
        (self._directory / name).unlink(missing_ok=True)

    def _make_room(self, wanted: int) -> None:
        files = []
        for entry in os.scandir(self._directory):
            with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                status = entry.stat()
                files.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(size for _, size, _ in files) + wanted
        for _, size, path in sorted(files):
            if total <= self._limit:
                return
            Path(path).unlink(missing_ok=True)
            total -= size
