"""Blocks of tokens from shards: local ones by memory map, so there is no copy until a row is cut."""

import hashlib
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from framework import places
from framework.config import RemoteConfig
from framework.errors import UserError
from framework.stream.blocks import BlockData, parse_block
from framework.stream.manifest import Block


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
