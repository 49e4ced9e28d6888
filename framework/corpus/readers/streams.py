"""Opening raw files, compressed or not, so that damage is told with the file and the place."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from framework.corpus.readers.places import base_name, open_raw
from framework.errors import UserError

_DAMAGE: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, lzma.LZMAError)
_CHUNK = 1 << 14  # compressed bytes that are expanded at a time


class _ZstandardStream:
    """The content of Zstandard frames; unlike the library's own reader it notices when the last one is cut off."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._frame: Any = None
        self._left = self._rest = b""  # content that was not asked for yet; compressed bytes after a frame

    def read(self, size: int) -> bytes:
        while not self._left:
            chunk = self._rest or self._file.read(_CHUNK)
            self._rest = b""
            if not chunk:
                if self._frame is not None:
                    raise EOFError("it ends within a Zstandard frame")
                return b""
            self._expand(chunk)
        data, self._left = self._left[:size], self._left[size:]
        return data

    def _expand(self, chunk: bytes) -> None:
        import zstandard

        self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        try:
            self._left = self._frame.decompress(chunk)
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        if self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None

    def close(self) -> None:
        self._file.close()


_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _ZstandardStream}


class _CheckedStream(io.RawIOBase):
    """The decompressed bytes of a file. Any library may read it: damage reaches the user as `UserError`."""

    def __init__(self, location: str) -> None:
        self._location, self._read = location, 0
        self._raw: Any = None
        self._raw = open_raw(location)
        opener = _OPENERS.get(PurePosixPath(base_name(location)).suffix)
        self._packed = opener is not None
        self._stream: Any = opener(self._raw) if opener else self._raw

    def readable(self) -> bool:
        return True

    def tell(self) -> int:  # of the content
        return self._read

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except _DAMAGE as error:
            raise UserError(f"{self._location}: {self._damage(error)}") from error
        buffer[: len(data)] = data
        self._read += len(data)
        return len(data)

    def _damage(self, error: Exception) -> str:
        """What is wrong, and what can be done about it."""
        if self._read or not self._packed:
            return f"damaged beyond byte {self._read:,} of its content ({error}); fetch the file again"
        suffix = PurePosixPath(base_name(self._location)).suffix
        return f"damaged, or no {suffix} file at all ({error}); fetch it again, or take {suffix} off its name"

    def close(self) -> None:
        if self._raw is not None:
            self._raw.close()
        super().close()


def open_stream(location: str) -> io.BufferedReader:
    """The content of a file, decompressed on the way if its name ends in .gz, .bz2, .xz or .zst.

    Raises:
        UserError: here if the file cannot be opened; on any later read if its compression is damaged, or the
            server of a remote one fails.
    """
    return io.BufferedReader(_CheckedStream(location), buffer_size=1 << 18)


def read_lines(location: str) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line, without its line end; a byte order mark is taken off.

    Raises:
        UserError: a line is not valid UTF-8; the message names the line and the byte of the content.
    """
    offset = 0
    with open_stream(location) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{location} line {number}: byte {offset + error.start:,} is not UTF-8 ({error.reason}); "
                    f"convert the file, e.g. with iconv -t UTF-8"
                ) from error
            offset += len(line)
            yield number, text.rstrip("\r\n")
