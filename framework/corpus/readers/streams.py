"""Opening raw files, compressed or not, so that damage is told with the file and the place."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from framework.errors import UserError

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)


class _CheckedStream(io.RawIOBase):
    """The decompressed bytes of a file. Any library may read it: damage reaches the user as `UserError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._stream: Any = None
        try:
            self._stream = _OPENERS.get(path.suffix, open)(path, "rb")
        except OSError as error:
            raise UserError(f"{path}: cannot be opened ({error.strerror}); check the path and its rights") from error

    def readable(self) -> bool:
        return True

    def tell(self) -> int:  # FastWARC asks for it
        return self._read

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except _DAMAGE as error:
            raise UserError(
                f"{self._path}: damaged beyond byte {self._read:,} of its content ({error}); fetch the file again"
            ) from error
        buffer[: len(data)] = data
        self._read += len(data)
        return len(data)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        super().close()


def open_stream(path: Path) -> io.BufferedReader:
    """The content of `path`, decompressed on the way if it ends in .gz, .bz2 or .xz.

    Raises:
        UserError: here if the file cannot be opened; on any later read if its compression is damaged.
    """
    return io.BufferedReader(_CheckedStream(path), buffer_size=1 << 18)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line, without its line end; a byte order mark is taken off.

    Raises:
        UserError: a line is not valid UTF-8; the message names the line and the byte of the content.
    """
    offset = 0
    with open_stream(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path} line {number}: byte {offset + error.start:,} is not UTF-8 ({error.reason}); "
                    f"convert the file, e.g. with iconv -t UTF-8"
                ) from error
            offset += len(line)
            yield number, text.rstrip("\r\n")
