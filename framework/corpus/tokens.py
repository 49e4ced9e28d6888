"""Third stage: the text shards of one corpus to token shards."""

import hashlib
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.config import ShardConfig
from framework.corpus.digests import file_digest
from framework.corpus.manifest import Block, Shard
from framework.corpus.shards import ShardWriter, locate_members, read_texts
from framework.corpus.stages import Facts

_DOCUMENTS_AT_ONCE = 64  # given to SentencePiece in one call, which spreads them over the cores
_PART = 1 << 16  # characters of a long document that are encoded together


def token_dtype(vocabulary_size: int) -> str:
    """The smallest of NumPy's unsigned types that holds every id."""
    return "uint16" if vocabulary_size <= 1 << 16 else "uint32"


def write_token_shards(
    directory: Path,
    split: str,
    text_shards: list[Path],
    tokenizer: Any,
    config: ShardConfig,
    minimum_blocks: int,
    advance: Callable[[], None],
) -> Facts:
    """Encode the documents of one split of a corpus and write `SPLIT-*.tar`.

    Every document begins with the id of `<|endoftext|>`. Documents keep their order and are dealt into
    blocks: as many as fit, a document longer than a block in a block of its own. How large a block is
    follows from how many tokens there are, so the tokens first go to a spool file beside the shards.

    Args:
        directory: where the shards go.
        split: "train" or "validation".
        text_shards: of that split, in order.
        tokenizer: a `SentencePieceProcessor`.
        config: sizes of shards and blocks.
        minimum_blocks: how many blocks the tokens would fill at least if every block were full; a long
            document takes the place of several.
        advance: called after each document.

    Returns:
        `tokens` and `shards`, as in the manifest, paths relative to `directory`.
    """
    spool = directory / f"{split}.spool"
    lengths = _write_spool(spool, text_shards, tokenizer, advance)
    tokens = np.memmap(spool, dtype=token_dtype(tokenizer.vocab_size()), mode="r")
    block_tokens = max(1, min(config.block_tokens, len(tokens) // minimum_blocks))
    with ShardWriter(directory, split, config.bytes_per_shard) as writer:
        start = 0
        for number, documents in enumerate(_deal(lengths, block_tokens)):
            end = start + int(documents.sum())
            members = {"tokens.npy": _npy(tokens[start:end]), "lengths.npy": _npy(documents)}
            writer.write(f"{number:07d}", members)
            start = end
    total = len(tokens)
    del tokens  # unmaps the spool
    spool.unlink()
    return {"tokens": total, "shards": [asdict(_describe(path)) for path in writer.paths]}


def _write_spool(
    spool: Path, text_shards: list[Path], tokenizer: Any, advance: Callable[[], None]
) -> NDArray[np.int32]:
    """Append the tokens of every document to one raw file; their counts."""
    dtype, lengths = token_dtype(tokenizer.vocab_size()), []
    texts = itertools.chain.from_iterable(map(read_texts, text_shards))
    with spool.open("wb") as file:
        while batch := [_parts(text) for text in itertools.islice(texts, _DOCUMENTS_AT_ONCE)]:
            encoded = iter(tokenizer.encode([part for parts in batch for part in parts]))
            for parts in batch:
                ids = [tokenizer.eos_id(), *itertools.chain.from_iterable(itertools.islice(encoded, len(parts)))]
                np.array(ids, dtype=dtype).tofile(file)
                lengths.append(len(ids))
                advance()
    return np.array(lengths, dtype=np.int32)


def _parts(text: str) -> list[str]:
    """The text in parts of about `_PART` characters, cut after newlines.

    A newline is always a piece of its own, so the ids of the parts are the ids of the text. Whole, a long
    text would take SentencePiece forty times its size in memory.
    """
    parts, start = [], 0
    while len(text) - start > _PART:
        end = text.rfind("\n", start, start + _PART) + 1 or text.find("\n", start + _PART) + 1 or len(text)
        parts.append(text[start:end])
        start = end
    return [*parts, text[start:]] if start < len(text) else parts


def _deal(lengths: NDArray[np.int32], block_tokens: int) -> Iterator[NDArray[np.int32]]:
    """Token counts of the documents of each block, in order."""
    start = filled = 0
    for index, length in enumerate(lengths.tolist()):
        if filled and filled + length > block_tokens:
            yield lengths[start:index]
            start, filled = index, 0
        filled += length
    yield lengths[start:]


def _npy(array: NDArray[Any]) -> bytes:
    """The array as a .npy file, format 1.0: a header of 128 bytes, then the values, little-endian."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0))
    return buffer.getvalue()


def _describe(path: Path) -> Shard:
    """What the manifest says of a shard: taken from the file on disk, not from what was meant to be there."""
    members = {member.name: member for member in locate_members(path)}
    blocks = []
    with path.open("rb") as file:

        def content(name: str) -> bytes:
            file.seek(members[name].offset)
            return file.read(members[name].size)

        for key in sorted(name.split(".")[0] for name in members if name.endswith(".tokens.npy")):
            tokens, lengths = members[f"{key}.tokens.npy"], members[f"{key}.lengths.npy"]
            token_bytes, length_bytes = content(tokens.name), content(lengths.name)
            counts = np.load(io.BytesIO(length_bytes))
            blocks.append(
                Block(
                    tokens_offset=tokens.offset,
                    tokens_bytes=tokens.size,
                    lengths_offset=lengths.offset,
                    lengths_bytes=lengths.size,
                    tokens=int(counts.sum()),
                    documents=len(counts),
                    sha256=hashlib.sha256(token_bytes + length_bytes).hexdigest(),
                )
            )
    return Shard(path=path.name, bytes=path.stat().st_size, sha256=file_digest(path), blocks=blocks)
