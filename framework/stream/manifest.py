"""What the stream trusts: the manifest beside the token shards, checked before the first batch."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.errors import UserError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Block:
    """A block of documents: two `.npy` members of a shard, each one range of its bytes."""

    shard: Path
    tokens_offset: int
    tokens_bytes: int
    lengths_offset: int
    lengths_bytes: int
    tokens: int
    documents: int
    sha256: str  # of the two members' bytes, tokens first


@dataclass(frozen=True)
class Split:
    """The training or the held-out part of a corpus."""

    documents: int
    tokens: int
    bytes: int  # UTF-8 bytes of the text
    blocks: tuple[Block, ...]
    facts: dict[str, Any]  # the split as the manifest has it, without its shards

    def block_tokens(self) -> NDArray[np.int64]:
        """Token count of each block, shape [blocks]."""
        return np.array([block.tokens for block in self.blocks], dtype=np.int64)


@dataclass(frozen=True)
class Corpus:
    """One corpus of the manifest."""

    name: str
    weight: float
    facts: dict[str, Any]  # source, licence, documents in, kept and dropped
    train: Split
    validation: Split


@dataclass(frozen=True)
class Manifest:
    """The token shards of a prepared directory."""

    path: Path
    digest: str  # sha256 of the manifest file
    dtype: np.dtype
    tokenizer: Path
    tokenizer_sha256: str
    vocabulary_size: int
    end_of_text: int
    corpora: dict[str, Corpus]


def read_manifest(data: Path) -> Manifest:
    """Read `data/tokens/manifest.json` and hold it against the files it lists.

    Sizes of shards and the tokenizer's hash are compared here; the hash of a block when it is first
    read (`framework.stream.shards`).

    Raises:
        UserError: the manifest is missing, damaged or of another version, or a file disagrees with it.
    """
    path = data / "tokens" / "manifest.json"
    remedy = f"run python -m framework.prepare output={data}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {remedy}") from error
    try:
        raw = json.loads(content)
        if raw["schema_version"] != SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema_version is {raw['schema_version']}, this version reads {SCHEMA_VERSION}; {remedy}"
            )
        manifest = _manifest(path, hashlib.sha256(content).hexdigest(), raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: is damaged ({type(error).__name__}: {error}); {remedy}") from error
    _check_tokenizer(manifest, remedy)
    return manifest


def _manifest(path: Path, digest: str, raw: dict[str, Any]) -> Manifest:
    tokenizer = raw["tokenizer"]
    return Manifest(
        path=path,
        digest=digest,
        dtype=np.dtype(raw["dtype"]),
        tokenizer=(path.parent / tokenizer["path"]).resolve(),
        tokenizer_sha256=tokenizer["sha256"],
        vocabulary_size=tokenizer["vocabulary_size"],
        end_of_text=tokenizer["end_of_text"],
        corpora={name: _corpus(path, name, corpus) for name, corpus in raw["corpora"].items()},
    )


def _corpus(path: Path, name: str, raw: dict[str, Any]) -> Corpus:
    facts = {key: value for key, value in raw.items() if key not in ("train", "validation")}
    return Corpus(name, raw["weight"], facts, _split(path, raw["train"]), _split(path, raw["validation"]))


def _split(path: Path, raw: dict[str, Any]) -> Split:
    blocks = []
    for shard in raw["shards"]:
        file = path.parent / shard["path"]
        try:
            size = file.stat().st_size
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}, but {path} lists it; prepare the data again") from error
        if size != shard["bytes"]:
            raise UserError(f"{file}: has {size} bytes, {path} says {shard['bytes']}; prepare the data again")
        blocks += [Block(shard=file, **block) for block in shard["blocks"]]
    if sum(block.tokens for block in blocks) != raw["tokens"]:
        raise UserError(f"{path}: tokens of the blocks do not add up to {raw['tokens']}; prepare the data again")
    facts = {key: value for key, value in raw.items() if key != "shards"}
    return Split(raw["documents"], raw["tokens"], raw["bytes"], tuple(blocks), facts)


def _check_tokenizer(manifest: Manifest, remedy: str) -> None:
    try:
        found = hashlib.sha256(manifest.tokenizer.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{manifest.tokenizer}: {error.strerror}; {remedy}") from error
    if found != manifest.tokenizer_sha256:
        raise UserError(
            f"{manifest.tokenizer}: is not the tokenizer the shards of {manifest.path} were made with; {remedy}"
        )
