"""Blocks of tokens from shards: local ones by memory map, so there is no copy until a row is cut."""

import hashlib
import io
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from framework.config import RemoteConfig
from framework.errors import UserError
from framework.stream import places
from framework.stream.manifest import Block


@dataclass(frozen=True)
class BlockData:
    """The content of a block.

    Attributes:
        tokens: ids of all its documents one after another, shape [tokens], uint16 or uint32.
        lengths: token count of each document, shape [documents].
    """

    tokens: NDArray[Any]
    lengths: NDArray[np.int64]


class Shards(Protocol):
    """Where blocks are read from."""

    def read(self, block: Block) -> BlockData:
        """The content of `block`, checked against its hash; raises UserError if it cannot be had."""

    def prefetch(self, blocks: Iterable[Block]) -> None:
        """These blocks will be needed soon."""


class LocalShards:
    """Reads blocks of shards on a local disk; the hash of each block is checked when it is first read."""

    def __init__(self) -> None:
        self._maps: dict[str, mmap.mmap] = {}
        self._sound: set[Block] = set()

    def read(self, block: Block) -> BlockData:
        """The content of `block`; its tokens are a view of the file, not a copy.

        Raises:
            UserError: the shard's bytes are not those the manifest describes.
        """
        view = memoryview(self._map(block.shard))
        if block not in self._sound:
            digest = hashlib.sha256(view[block.tokens_offset : block.tokens_offset + block.tokens_bytes])
            digest.update(view[block.lengths_offset : block.lengths_offset + block.lengths_bytes])
            if digest.hexdigest() != block.sha256:
                raise UserError(
                    f"{block.shard}: the block at byte {block.tokens_offset} is not what the manifest says "
                    "(its hash differs); the file is damaged or stale: restore it or prepare the data again"
                )
            self._sound.add(block)
        return parse_block(block, view, 0)

    def prefetch(self, blocks: Iterable[Block]) -> None:
        """Nothing to do: the system's page cache reads ahead."""

    def _map(self, shard: str) -> mmap.mmap:
        if shard not in self._maps:
            try:
                with Path(shard).open("rb") as file:
                    self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise UserError(f"{shard}: cannot be read ({error}); restore it or prepare the data again") from error
        return self._maps[shard]


def open_shards(data: str, config: RemoteConfig) -> Shards:
    """Whatever reads the shards of a data directory, given by path or URL."""
    if not places.is_remote(data):
        return LocalShards()
    from framework.stream.remote import RemoteShards

    return RemoteShards(config)


def parse_block(block: Block, content: bytes | memoryview, begin: int) -> BlockData:
    """The arrays of a block, as views of `content`, which holds the shard's bytes from `begin` on."""
    view = memoryview(content)
    tokens = view[block.tokens_offset - begin :][: block.tokens_bytes]
    lengths = view[block.lengths_offset - begin :][: block.lengths_bytes]
    data = BlockData(_npy(tokens), _npy(lengths).astype(np.int64))
    if (len(data.tokens), len(data.lengths)) != (block.tokens, block.documents):
        raise UserError(
            f"{block.shard}: the block at byte {block.tokens_offset} has {len(data.tokens)} tokens of "
            f"{len(data.lengths)} documents, the manifest says {block.tokens} of {block.documents}; "
            "prepare the data again"
        )
    return data


def _npy(member: memoryview) -> NDArray[Any]:
    """The array of an `.npy` file in memory, without copying its data."""
    head = io.BytesIO(member[:4096])
    version = np.lib.format.read_magic(head)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(head)
    return np.frombuffer(member, dtype=dtype, count=shape[0], offset=head.tell())
