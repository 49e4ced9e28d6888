"""Blocks of tokens from shards behind a URL: one range read a block, ahead of their use, checked, kept."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from framework import places
from framework.config import RemoteConfig
from framework.errors import UserError
from framework.stream.blocks import BlockData, parse_block
from framework.stream.cache import DiskCache
from framework.stream.manifest import Block

HASH_ATTEMPTS = 3  # reads of a block whose content is not what the manifest says, before it counts as damaged


class RemoteShards:
    """Reads blocks through fsspec.

    At most `memory_bytes` of blocks are held, fetched and being fetched together; the block used longest ago
    goes first. With a cache directory, what goes from memory is found again there.
    """

    def __init__(self, config: RemoteConfig) -> None:
        self._config = config
        self._cache = DiskCache(Path(config.cache), config.cache_bytes) if config.cache else None
        self._threads = ThreadPoolExecutor(config.threads, thread_name_prefix="loam-stream")
        self._held: OrderedDict[Block, Future[BlockData]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, block: Block) -> BlockData:
        """The content of `block`, waited for if it is not here yet.

        Raises:
            UserError: it cannot be read, or its bytes are not those the manifest describes.
        """
        with self._lock:
            future = self._held.get(block) or self._start(block)
            self._held.move_to_end(block)
        try:
            return future.result()
        except Exception:
            with self._lock:  # so that a later call tries again
                if self._held.pop(block, None) is not None:
                    self._bytes -= _size(block)
            raise

    def prefetch(self, blocks: Iterable[Block]) -> None:
        """Start reading blocks that will be needed, as far as they fit beside those that are in use."""
        with self._lock:
            for block in blocks:
                if block in self._held:
                    self._held.move_to_end(block)
                elif self._room_for(block):
                    self._start(block)

    def _start(self, block: Block) -> "Future[BlockData]":
        self._room_for(block)
        self._held[block] = self._threads.submit(self._fetch, block)
        self._bytes += _size(block)
        return self._held[block]

    def _room_for(self, block: Block) -> bool:
        """Let go of finished blocks, those used longest ago first, until `block` fits; whether it does."""
        finished = [held for held, future in self._held.items() if future.done()]
        for held in finished:
            if self._bytes + _size(block) <= self._config.memory_bytes:
                break
            del self._held[held]
            self._bytes -= _size(held)
        return self._bytes + _size(block) <= self._config.memory_bytes

    def _fetch(self, block: Block) -> BlockData:
        if self._cache:
            content = self._cache.get(block.sha256)
            if content is not None:
                if _digest(block, content) == block.sha256:
                    return parse_block(block, content, _begin(block))
                self._cache.drop(block.sha256)
        for _ in range(HASH_ATTEMPTS):
            content = places.retrying(
                lambda: places.read_range(block.shard, _begin(block), _end(block)),
                block.shard,
                self._config.attempts,
                self._config.backoff_seconds,
                "or raise data.remote.attempts",
            )
            if _digest(block, content) == block.sha256:
                if self._cache:
                    self._cache.put(block.sha256, content)
                return parse_block(block, content, _begin(block))
        raise UserError(
            f"{block.shard}: the block at byte {block.tokens_offset} is not what the manifest says (its hash differs); "
            "the file is damaged or stale: upload it again"
        )


def _begin(block: Block) -> int:
    return min(block.tokens_offset, block.lengths_offset)


def _end(block: Block) -> int:
    return max(block.tokens_offset + block.tokens_bytes, block.lengths_offset + block.lengths_bytes)


def _size(block: Block) -> int:
    return _end(block) - _begin(block)


def _digest(block: Block, content: bytes) -> str:
    view, begin = memoryview(content), _begin(block)
    digest = hashlib.sha256(view[block.tokens_offset - begin :][: block.tokens_bytes])
    digest.update(view[block.lengths_offset - begin :][: block.lengths_bytes])
    return digest.hexdigest()
