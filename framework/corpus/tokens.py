"""Fifth stage: the text shards of one corpus to token shards.

Encoding is a pipeline over the tasks that wrote the text shards; dealing the tokens into blocks follows,
in the order of the documents, so that no block depends on what the tasks or the workers were.
"""

import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from framework.config import ShardConfig
from framework.corpus.digests import file_digest, json_digest
from framework.corpus.encoding import encode_batches
from framework.corpus.engine import Engine, Output
from framework.corpus.manifest import Block, Shard
from framework.corpus.shards import ShardWriter, locate_members, read_texts
from framework.corpus.stages import Facts
from framework.corpus.tokenizer import load_tokenizer

_BATCH = 1 << 20  # characters that are encoded together
_TOKENS, _LENGTHS = "tokens.bin", "lengths.npy"


def token_dtype(vocabulary_size: int) -> str:
    """The smallest of NumPy's unsigned types that holds every id."""
    return "uint16" if vocabulary_size <= 1 << 16 else "uint32"


class ReadTexts(PipelineStep):
    """Yields the texts of a task's text shards.

    Args:
        tasks: for each task, its shards in order.
    """

    type = "reader"
    name = "read texts"

    def __init__(self, tasks: list[list[Path]]) -> None:
        super().__init__()
        self._tasks = tasks

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The documents of task `rank`; of each the text alone."""
        count = 0
        for text in itertools.chain.from_iterable(map(read_texts, self._tasks[rank])):
            count += 1
            yield Document(text=text, id="")
        self.stat_update("total", value=count)


class EncodeTexts(Output):
    """Encodes the texts of a task: `tokens.bin`, their ids one after another, and `lengths.npy`, a count for each.

    Every document begins with the id of `<|endoftext|>`, or of what the tokenizer of another model has in its place.

    Args:
        directory, digests: see `Output`.
        tokenizer: directory of the tokenizer; on a cluster every node must see it.
        threads: how many may encode; they do not change the ids.
    """

    name = "encode"

    def __init__(self, directory: Path, digests: list[str], tokenizer: Path, threads: int) -> None:
        super().__init__(directory, digests)
        self._tokenizer, self._threads = tokenizer, threads

    def write(self, documents: Iterable[Document], task: int, directory: Path) -> Facts:
        """The files of a task; its `dtype`, and how many `tokens` and `words` are in them."""
        tokenizer = load_tokenizer(self._tokenizer)
        dtype, words, lengths = token_dtype(tokenizer.vocab_size()), 0, [np.empty(0, np.int64)]
        with (directory / _TOKENS).open("wb") as file:
            for batch in encode_batches(tokenizer, _batches(documents), self._threads):
                batch.ids.astype(dtype).tofile(file)
                lengths.append(batch.lengths)
                words += batch.words
        whole = np.concatenate(lengths)
        np.save(directory / _LENGTHS, whole.astype(np.int32))
        return {"dtype": dtype, "tokens": int(whole.sum()), "words": words}


def write_token_shards(
    directory: Path,
    work: Path,
    label: str,
    split: str,
    tasks: list[list[Path]],
    tokenizer: Path,
    config: ShardConfig,
    engine: Engine,
) -> Facts:
    """Encode the documents of one split of a corpus and write `SPLIT-*.tar`.

    Documents keep their order and are dealt into blocks: as many as fit, a document longer than a block in
    a block of its own. How large a block is follows from how many tokens there are: only training blocks
    are shuffled and dealt to ranks, so only they must be `config.minimum_blocks` at least (were they all
    full; a long document takes the place of several).

    Args:
        directory: where the shards go.
        work: where the tasks keep what they encoded; the next call goes on from there.
        label: what is being encoded, for the user.
        split: "train" or "validation".
        tasks: the text shards of that split, in order, by task.
        tokenizer: directory of the tokenizer.
        config: sizes of shards and blocks.
        engine: runs the pipeline.

    Returns:
        `tokens` and `shards`, as in the manifest, paths relative to `directory`; and `words`.
    """
    model = [path.name for path in sorted(tokenizer.iterdir())], [file_digest(p) for p in sorted(tokenizer.iterdir())]
    digests = [json_digest([model, [[path.name, file_digest(path)] for path in shards]]) for shards in tasks]
    encode = EncodeTexts(work / split, digests, tokenizer, engine.threads(len(tasks)))
    encoded = engine.run(label, [ReadTexts(tasks), encode]).tasks
    lengths = np.concatenate([np.load(task.directory / _LENGTHS) for task in encoded])
    minimum_blocks = config.minimum_blocks if split == "train" else 1
    block_tokens = max(1, min(config.block_tokens, int(lengths.sum(dtype=np.int64)) // minimum_blocks))
    tokens = _Tokens([(task.directory / _TOKENS, task.facts["tokens"]) for task in encoded], encoded[0].facts["dtype"])
    with ShardWriter(directory, split, config.bytes_per_shard) as writer:
        for number, documents in enumerate(_deal(lengths, block_tokens)):
            members = {"tokens.npy": _npy(tokens.take(int(documents.sum()))), "lengths.npy": _npy(documents)}
            writer.write(f"{number:07d}", members)
    return {
        "tokens": int(lengths.sum(dtype=np.int64)),
        "words": sum(task.facts["words"] for task in encoded),
        "shards": [asdict(_describe(path)) for path in writer.paths],
    }


class _Tokens:
    """The tokens of all tasks, read once from the first to the last.

    Args:
        files: the raw files and how many tokens are in each.
        dtype: of the tokens.
    """

    def __init__(self, files: list[tuple[Path, int]], dtype: str) -> None:
        self._files = iter([(path, count) for path, count in files if count])
        self._dtype = dtype
        self._open: NDArray[Any] = np.empty(0, dtype)

    def take(self, count: int) -> NDArray[Any]:
        """The next `count` tokens."""
        parts = []
        while count:
            if not len(self._open):
                path, length = next(self._files)
                self._open = np.memmap(path, self._dtype, "r", shape=(length,))
            part, self._open = self._open[:count], self._open[count:]
            parts.append(part)
            count -= len(part)
        return np.concatenate(parts)


def _batches(documents: Iterable[Document]) -> Iterator[list[str]]:
    """The texts in lists of `_BATCH` characters, or more by a part of the last."""
    texts: list[str] = []
    size = 0
    for document in documents:
        texts.append(document.text)
        size += len(document.text)
        if size >= _BATCH:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


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
