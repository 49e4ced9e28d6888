"""What a block of a shard holds."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.errors import UserError
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
