"""A prepared data directory of random documents, written with webdataset and json alone."""

import hashlib
import json
import lzma
import tarfile
import zlib
from pathlib import Path

import numpy as np
import webdataset

from framework.stream.manifest import read_manifest
from framework.stream.order import BlockOrder
from tests.model import small_tokenizer

END_OF_TEXT, VOCABULARY = 1, 360  # of the small tokenizer


def make_data(
    path: Path,
    documents: dict[str, int],
    weights: dict[str, float] | None = None,
    blocks: int = 20,
    longest: int = 90,
    seed: int = 0,
    held_out: int = 4,
    held_out_blocks: int = 1,
) -> Path:
    """`documents[corpus]` random documents a corpus; lengths 2 to `longest`; token ids tell documents apart."""
    random = np.random.default_rng(seed)
    tokenizer = small_tokenizer.write(path / "tokenizer").read_bytes()
    corpora = {}
    for name, count in documents.items():
        train = [_document(random, longest) for _ in range(count)]
        kept_back = [_document(random, longest) for _ in range(held_out)]
        text = b"x" * sum(len(d) for d in kept_back)
        corpora[name] = {
            "weight": (weights or {}).get(name, 1.0),
            "source": "random",
            "licence": "CC0-1.0",
            "documents_in": count + held_out,
            "documents_kept": count + held_out,
            "dropped": {},
            "train": _split(path / "tokens", name, "train", train, blocks),
            "validation": {
                **_split(path / "tokens", name, "validation", kept_back, held_out_blocks),
                "gzip_bytes": len(zlib.compress(text, 9)),
                "xz_bytes": len(lzma.compress(text)),
            },
        }
    manifest = {
        "schema_version": 1,
        "tokenizer": {
            "path": "../tokenizer/tokenizer.model",
            "sha256": hashlib.sha256(tokenizer).hexdigest(),
            "vocabulary_size": VOCABULARY,
            "end_of_text": END_OF_TEXT,
            "reserved": small_tokenizer.RESERVED,
        },
        "dtype": "uint16",
        "corpora": corpora,
    }
    (path / "tokens" / "manifest.json").write_text(json.dumps(manifest))
    return path


def _document(random: np.random.Generator, longest: int) -> np.ndarray:
    """Ids that are likelier the lower they are, so that there is something to learn."""
    first = len(small_tokenizer.RESERVED)  # text never becomes a lower one
    body = (random.beta(1, 4, random.integers(1, longest)) * (VOCABULARY - first)).astype(np.uint16) + first
    return np.concatenate([[END_OF_TEXT], body]).astype(np.uint16)


def _split(folder: Path, name: str, split: str, documents: list[np.ndarray], blocks: int) -> dict:
    file = folder / name / f"{split}-00000.tar"
    file.parent.mkdir(parents=True, exist_ok=True)
    per_block = -(-len(documents) // blocks)
    groups = [documents[i : i + per_block] for i in range(0, len(documents), per_block)]
    with webdataset.TarWriter(str(file)) as writer:
        for number, group in enumerate(groups):
            lengths = np.array([len(d) for d in group], dtype=np.int32)
            writer.write({"__key__": f"{number:06d}", "tokens.npy": np.concatenate(group), "lengths.npy": lengths})
    members = {}
    with tarfile.open(file) as tar:
        members = {m.name: (m.offset_data, m.size) for m in tar.getmembers()}
    content = file.read_bytes()
    entries = []
    for number, group in enumerate(groups):
        tokens, lengths = members[f"{number:06d}.tokens.npy"], members[f"{number:06d}.lengths.npy"]
        digest = hashlib.sha256(content[tokens[0] : sum(tokens)] + content[lengths[0] : sum(lengths)])
        entries.append(
            {
                "tokens_offset": tokens[0],
                "tokens_bytes": tokens[1],
                "lengths_offset": lengths[0],
                "lengths_bytes": lengths[1],
                "tokens": sum(len(d) for d in group),
                "documents": len(group),
                "sha256": digest.hexdigest(),
            }
        )
    total = sum(len(d) for d in documents)
    return {
        "documents": len(documents),
        "tokens": total,
        "bytes": total,
        "shards": [
            {
                "path": f"{name}/{split}-00000.tar",
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "blocks": entries,
            }
        ],
    }


def wipe_other_lanes(data: Path, rank: int, ranks: int, lanes: int) -> None:
    """Overwrite with zeros the training blocks that in the first epoch belong to the lanes of other ranks."""
    for name, corpus in read_manifest(data).corpora.items():
        order = BlockOrder(corpus.train.block_tokens(), lanes, 0, name)
        mine = {int(block) for lane in range(rank, lanes, ranks) for block in order.lane_blocks(lane, 0)}
        shard = data / "tokens" / name / "train-00000.tar"
        content = bytearray(shard.read_bytes())
        for number, block in enumerate(corpus.train.blocks):
            if number not in mine:
                content[block.tokens_offset : block.tokens_offset + block.tokens_bytes] = bytes(block.tokens_bytes)
        shard.write_bytes(content)
