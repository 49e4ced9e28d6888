"""Shards: WebDataset tar files, written and read back.

A shard here is deterministic: members have no time and no owner of their own. It is uncompressed, so a
member is a slice of the file, and a reader needs nothing but its offset.
"""

import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tarfile import BLOCKSIZE
from types import TracebackType
from typing import Any, NamedTuple

OWNER = "loam"


class ShardWriter:
    """Writes samples to `STEM-00000.tar`, `STEM-00001.tar`, ... in a directory.

    Args:
        directory: where; it exists.
        stem: what the names begin with, e.g. "train".
        bytes_per_shard: a shard is closed once it is at least this large.
    """

    def __init__(self, directory: Path, stem: str, bytes_per_shard: int) -> None:
        self.paths: list[Path] = []
        self._directory, self._stem, self._bytes_per_shard = directory, stem, bytes_per_shard
        self._file: Any = None
        self._writer: Any = None

    def write(self, key: str, members: dict[str, bytes]) -> None:
        """Add one sample: a member `KEY.EXTENSION` for each extension. The key has no dot."""
        if self._writer is None:
            self._open()
        self._writer.write({"__key__": key, **members})
        self._writer.tarstream.members.clear()  # tarfile remembers every member; nobody asks it to
        if self._file.tell() >= self._bytes_per_shard:
            self._close()

    def _open(self) -> None:
        from webdataset import TarWriter

        path = self._directory / f"{self._stem}-{len(self.paths):05d}.tar"
        self.paths.append(path)
        self._file = path.open("wb")
        self._writer = TarWriter(self._file, user=OWNER, group=OWNER, mtime=0, encoder=False)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._writer = self._file = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()


def encode_text(text: str, description: dict[str, Any]) -> dict[str, bytes]:
    """The members of a document's sample."""
    return {"txt": text.encode(), "json": json.dumps(description, ensure_ascii=False, sort_keys=True).encode()}


class Member(NamedTuple):
    """Where the content of a tar member lies in its file, in bytes."""

    name: str
    offset: int
    size: int


def read_texts(path: Path) -> Iterator[str]:
    """The text of each document of a text shard, in order."""
    with _mapped(path) as content:
        for name, offset, size in _members(content):
            if name.endswith(b".txt"):
                yield content[offset : offset + size].decode()


def locate_members(path: Path) -> list[Member]:
    """Every member of a shard, as its headers on disk tell."""
    with _mapped(path) as content:
        return [Member(name.decode(), offset, size) for name, offset, size in _members(content)]


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _members(content: mmap.mmap) -> Iterator[tuple[bytes, int, int]]:
    """Name, offset and size of the members of a shard that `ShardWriter` wrote: regular files with short names.

    `tarfile` takes ten times as long to read the header of a short document, and longer than to encode its text.
    """
    position, end = 0, bytes(BLOCKSIZE)
    while (header := content[position : position + BLOCKSIZE]) != end:
        assert header[156] == ord("0"), position  # a regular file
        size = int(header[124:135], 8)
        yield header[:100].rstrip(b"\0"), position + BLOCKSIZE, size
        position += BLOCKSIZE + -(-size // BLOCKSIZE) * BLOCKSIZE
