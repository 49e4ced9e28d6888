"""How fast one process gets batches, beside what else could read the same tokens.

    python -m benchmarks.stream                  # 64 Mi tokens in 2 corpora, rows of 2,048, batches of 16

Printed are tokens/s of each reader and its ratio to Loam's, then the time to seek to a position with
100,000 blocks. Every reader yields what a step trains on: int64 tokens, labels and int32 document numbers.

- memmap: one flat file of the tokens in the order wanted, cut into rows; nothing is shuffled or mixed, document
  numbers are counted from the end-of-text tokens. The least that any reader has to do.
- webdataset: the same shards through `WebDataset(...).decode()`, in the order stored, blocks cut into rows.
- litdata, if it is installed (`pip install litdata`): the same tokens as it stores them, by its `StreamingDataset`
  over `TokensLoader`, rows shuffled, batches stacked here.

The readers take turns, so that whatever else the machine does falls on all of them; the best of the turns counts.
"""

import argparse
import functools
import hashlib
import importlib.util
import itertools
import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset

from benchmarks.machine import machine
from framework.stream.curriculum import Curriculum
from framework.stream.loader import TrainingRows
from framework.stream.manifest import read_manifest
from framework.stream.order import BlockOrder
from framework.stream.shards import LocalShards

END_OF_TEXT, BLOCK, MEAN_DOCUMENT = 1, 1 << 20, 800
Batches = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]


def write_data(folder: Path, blocks: int, vocabulary: int = 1 << 15) -> None:
    """Token shards of two corpora with `blocks` blocks of 1 Mi tokens each, and the same tokens as one flat file."""
    random = np.random.default_rng(0)
    corpora, flat = {}, []
    for name in ("web", "books"):
        shard = folder / "tokens" / name / "train-00000.tar"
        shard.parent.mkdir(parents=True)
        written = []
        with webdataset.TarWriter(str(shard)) as writer:
            for number in range(blocks):
                tokens, lengths = _block(random, vocabulary)
                writer.write({"__key__": f"{number:06d}", "tokens.npy": tokens, "lengths.npy": lengths})
                written.append((len(tokens), len(lengths)))
                flat.append(tokens)
        corpora[name] = _manifest_entry(shard, written)
    np.concatenate(flat).tofile(folder / "flat.bin")
    tokenizer = {"path": "none", "sha256": "", "vocabulary_size": 1 << 16, "end_of_text": END_OF_TEXT}
    manifest = {"schema_version": 1, "dtype": "uint16", "tokenizer": tokenizer, "corpora": corpora}
    (folder / "tokens" / "manifest.json").write_text(json.dumps(manifest))


def _block(random: np.random.Generator, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.maximum(random.exponential(MEAN_DOCUMENT, BLOCK // MEAN_DOCUMENT).astype(np.int64), 2)
    tokens = random.integers(2, vocabulary, lengths.sum(), dtype=np.uint16)
    tokens[np.cumsum(lengths) - lengths] = END_OF_TEXT
    return tokens, lengths.astype(np.int32)


def _manifest_entry(shard: Path, written: list[tuple[int, int]]) -> dict:
    content = shard.read_bytes()
    with tarfile.open(shard) as tar:
        members = {member.name: (member.offset_data, member.size) for member in tar.getmembers()}
    blocks = []
    for number, (tokens, documents) in enumerate(written):
        (at, size), (lengths_at, lengths_size) = (members[f"{number:06d}.{kind}.npy"] for kind in ("tokens", "lengths"))
        digest = hashlib.sha256(content[at : at + size] + content[lengths_at : lengths_at + lengths_size]).hexdigest()
        offsets = {"tokens_offset": at, "tokens_bytes": size, "lengths_offset": lengths_at}
        blocks.append(
            {**offsets, "lengths_bytes": lengths_size, "tokens": tokens, "documents": documents, "sha256": digest}
        )
    sums = {"tokens": sum(t for t, _ in written), "documents": sum(d for _, d in written), "bytes": 1}
    path = f"{shard.parent.name}/{shard.name}"
    empty = {"tokens": 0, "documents": 0, "bytes": 0, "shards": [], "gzip_bytes": 0, "xz_bytes": 0}
    train = {**sums, "shards": [{"path": path, "bytes": len(content), "blocks": blocks}]}
    return {"weight": 1.0, "train": train, "validation": empty}


def loam(folder: Path, length: int, batch: int) -> Batches:
    """Shuffled, mixed, hashes checked."""
    rows = TrainingRows(read_manifest(folder), {"web": 3, "books": 1}, Curriculum(length), 64, 0, LocalShards())
    position = 0
    while True:
        found = rows.read(range(position, position + batch))
        yield found.tokens, found.labels, found.document
        position += batch


def memmap(folder: Path, length: int, batch: int) -> Batches:
    """A flat file in its own order."""
    flat = np.memmap(folder / "flat.bin", dtype=np.uint16, mode="r")
    position = 0
    while True:
        if position + batch * length + 1 > len(flat):
            position = 0
        starts = range(position, position + batch * length, length)
        yield _batch(np.stack([flat[start : start + length + 1] for start in starts]))
        position += batch * length


def of_webdataset(folder: Path, length: int, batch: int) -> Batches:
    """The shards in the order stored."""
    shards = sorted(str(shard) for shard in folder.glob("tokens/*/*.tar"))
    rest = np.zeros(0, dtype=np.uint16)
    for sample in webdataset.WebDataset(shards * 1000, shardshuffle=False).decode():
        rest = np.concatenate([rest, sample["tokens.npy"]])
        while len(rest) > batch * length:
            starts = range(0, batch * length, length)
            yield _batch(np.stack([rest[start : start + length + 1] for start in starts]))
            rest = rest[batch * length :]


def of_litdata(folder: Path, length: int, batch: int) -> Batches:
    """Rows in a shuffled order."""
    import litdata

    stored, loader = folder / "litdata", litdata.TokensLoader
    blocks = len(np.memmap(folder / "flat.bin", dtype=np.uint16, mode="r")) // BLOCK
    litdata.optimize(
        functools.partial(_litdata_block, str(folder / "flat.bin")),
        list(range(blocks)),
        str(stored),
        chunk_bytes="64MB",
        num_workers=1,
        item_loader=loader(block_size=length + 1),
        verbose=False,
    )
    while True:
        dataset = litdata.StreamingDataset(str(stored), item_loader=loader(block_size=length + 1), shuffle=True)
        rows = (row.numpy() for row in dataset)
        while len(found := list(itertools.islice(rows, batch))) == batch:
            yield _batch(np.stack(found))


def _litdata_block(flat: str, number: int) -> Iterator[torch.Tensor]:
    tokens = np.memmap(flat, dtype=np.uint16, mode="r")[number * BLOCK : (number + 1) * BLOCK]
    yield torch.from_numpy(tokens.astype(np.int32))


def _batch(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens = rows.astype(np.int64)
    begins = tokens[:, :-1] == END_OF_TEXT
    begins[:, 0] = False
    return tokens[:, :-1].copy(), tokens[:, 1:].copy(), np.cumsum(begins, axis=1, dtype=np.int32)


def tokens_per_second(batches: Batches, seconds: float) -> float:
    """Of the batches that come within `seconds`."""
    started, tokens = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        tokens += next(batches)[0].size
    return tokens / (time.perf_counter() - started)


def seek_times(blocks: int) -> tuple[float, float]:
    """Milliseconds until the first position in an epoch of `blocks` blocks is found, and any further one."""
    order = BlockOrder(np.full(blocks, BLOCK), 64, 0, "web")
    started = time.perf_counter()
    order.locate(3, 10 * BLOCK)
    first = time.perf_counter() - started
    started = time.perf_counter()
    for token in range(1000):
        order.locate(token % 64, token * BLOCK // 2)
    return first * 1e3, (time.perf_counter() - started)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=32, help="blocks of 1 Mi tokens in each of the two corpora")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    readers: dict[str, Callable[[Path, int, int], Batches]] = {
        "loam": loam,
        "memmap": memmap,
        "webdataset": of_webdataset,
        **({"litdata": of_litdata} if importlib.util.find_spec("litdata") else {}),
    }
    folder = Path(tempfile.mkdtemp(prefix="loam-benchmark-"))
    try:
        write_data(folder, arguments.blocks)
        running = {name: reader(folder, arguments.length, arguments.batch) for name, reader in readers.items()}
        for batches in running.values():
            tokens_per_second(batches, arguments.seconds)  # first touch: pages, hashes
        best = dict.fromkeys(readers, 0.0)
        for _ in range(arguments.turns):
            for name, batches in running.items():
                best[name] = max(best[name], tokens_per_second(batches, arguments.seconds))
    finally:
        shutil.rmtree(folder)
    print(machine("numpy", "webdataset", *(["litdata"] if "litdata" in readers else [])))
    print(f"rows of {arguments.length}, batches of {arguments.batch}, {2 * arguments.blocks} Mi tokens")
    for name, speed in best.items():
        print(f"{name:<12} {speed / 1e6:8.1f} M tokens/s   loam is {best['loam'] / speed:5.2f}x of it")
    first, further = seek_times(100_000)
    print(f"seek among 100,000 blocks: first {first:.1f} ms, further ones {further:.4f} ms")


if __name__ == "__main__":
    main()
