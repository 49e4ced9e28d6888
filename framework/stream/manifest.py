"""What the stream trusts: the manifest beside the token shards, checked before the first batch."""

import hashlib
import json
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework import distributed, places
from framework.errors import UserError

SCHEMA_VERSION = 1
_FOREIGN = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")  # those of another model's tokenizer


@dataclass(frozen=True)
class Block:
    """A block of documents: two `.npy` members of a shard, each one range of its bytes."""

    shard: str  # path or URL
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
    shard_bytes: dict[str, int]  # size of each shard
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
    digest: str  # sha256 of what the manifest says of the training split: other shards, another digest
    train: Split
    validation: Split


@dataclass(frozen=True)
class Manifest:
    """The token shards of a prepared directory."""

    path: str  # or URL
    digest: str  # sha256 of the manifest file
    tokenizer: str  # path or URL
    tokenizer_sha256: str
    vocabulary_size: int
    end_of_text: int
    reserved: dict[str, int]  # the id of each piece that no text becomes; empty in a manifest made before there was any
    corpora: dict[str, Corpus]


def read_manifest(data: str | os.PathLike[str]) -> Manifest:
    """The manifest of a data directory, given by path or URL; every rank must call, and gets the same.

    Rank 0 alone reads it, and holds a local one against the files it lists (their sizes); the others get it from
    rank 0. The hash of a block is checked when it is first read (`framework.stream.shards`), that of the tokenizer
    when it is copied (`copy_tokenizer`).

    Raises:
        UserError: the manifest is missing, damaged or of another version, or a file disagrees with it.
    """
    path = places.join(str(data), "tokens/manifest.json")
    lead = distributed.rank() == 0
    content = distributed.together(lambda: _read_if(lead, path, data))
    return _parse(path, distributed.broadcast(content), data)


def _read_if(lead: bool, path: str, data: Any) -> bytes | None:
    """Rank 0: the manifest's bytes, after a look at the files it lists."""
    if not lead:
        return None
    if not places.is_remote(path) and not Path(path).exists():
        raise UserError(f"{path}: No such file or directory; {_remedy(data)}")
    content = places.read(path)
    manifest = _parse(path, content, data)
    if not places.is_remote(path):
        _check_sizes(manifest)
    return content


def copy_tokenizer(manifest: Manifest, directory: Path) -> Path:
    """Put the tokenizer that the shards were made with into a local directory, and return its place.

    That is a file `tokenizer.model`, or a directory `tokenizer` with the files of another model's.

    Raises:
        UserError: it is missing or another one.
    """
    content = places.read(manifest.tokenizer)
    if hashlib.sha256(content).hexdigest() != manifest.tokenizer_sha256:
        raise UserError(
            f"{manifest.tokenizer}: is not the tokenizer the shards of {manifest.path} were made with; restore it or "
            "prepare the data again"
        )
    copies = {directory / "tokenizer.model": content}
    if manifest.tokenizer.endswith(".json"):
        beside = posixpath.dirname(manifest.tokenizer)
        copies = {directory / "tokenizer" / name: places.read(places.join(beside, name)) for name in _FOREIGN}
    try:
        for copy, content in copies.items():
            if copy.parent != directory:  # an earlier start may have been with data of Loam's
                (directory / "tokenizer.model").unlink(missing_ok=True)
            copy.parent.mkdir(exist_ok=True)
            if not copy.exists() or copy.read_bytes() != content:
                copy.write_bytes(content)
    except OSError as error:
        raise UserError(f"{copy}: {error.strerror}; free some space or choose another run.directory") from error
    return kept_tokenizer(directory)


def kept_tokenizer(directory: Path) -> Path:
    """Where `copy_tokenizer` has put the tokenizer in a directory."""
    file = directory / "tokenizer.model"
    return file if file.exists() else directory / "tokenizer"


def _remedy(data: Any) -> str:
    return f"run python -m framework.prepare output={data}"


def _parse(path: str, content: bytes, data: Any) -> Manifest:
    remedy = _remedy(data)
    try:
        raw = json.loads(content)
        if raw["schema_version"] != SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema_version is {raw['schema_version']}, this version reads {SCHEMA_VERSION}; {remedy}"
            )
        return _manifest(path, hashlib.sha256(content).hexdigest(), raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: is damaged ({type(error).__name__}: {error}); {remedy}") from error


def _manifest(path: str, digest: str, raw: dict[str, Any]) -> Manifest:
    tokenizer = raw["tokenizer"]
    return Manifest(
        path=path,
        digest=digest,
        tokenizer=places.join(posixpath.dirname(path), tokenizer["path"]),
        tokenizer_sha256=tokenizer["sha256"],
        vocabulary_size=tokenizer["vocabulary_size"],
        end_of_text=tokenizer["end_of_text"],
        reserved={piece: int(token) for piece, token in tokenizer.get("reserved", {}).items()},
        corpora={name: _corpus(path, name, corpus) for name, corpus in raw["corpora"].items()},
    )


def _corpus(path: str, name: str, raw: dict[str, Any]) -> Corpus:
    facts = {key: value for key, value in raw.items() if key not in ("train", "validation")}
    digest = hashlib.sha256(json.dumps(raw["train"], sort_keys=True).encode()).hexdigest()
    int(raw["validation"]["gzip_bytes"]), int(raw["validation"]["xz_bytes"])  # the summary will need them
    return Corpus(name, raw["weight"], facts, digest, _split(path, raw["train"]), _split(path, raw["validation"]))


def _split(path: str, raw: dict[str, Any]) -> Split:
    folder = posixpath.dirname(path)
    shards = {places.join(folder, shard["path"]): shard for shard in raw["shards"]}
    blocks = tuple(Block(shard=place, **block) for place, shard in shards.items() for block in shard["blocks"])
    for count in ("tokens", "documents"):
        if sum(getattr(block, count) for block in blocks) != raw[count]:
            raise UserError(f"{path}: {count} of the blocks do not add up to {raw[count]}; prepare the data again")
    if raw["tokens"] and raw["bytes"] <= 0:
        raise UserError(f"{path}: {raw['tokens']} tokens of {raw['bytes']} bytes cannot be; prepare the data again")
    facts = {key: value for key, value in raw.items() if key != "shards"}
    sizes = {place: shard["bytes"] for place, shard in shards.items()}
    return Split(raw["documents"], raw["tokens"], raw["bytes"], blocks, sizes, facts)


def _check_sizes(manifest: Manifest) -> None:
    """The shards on a local disk are as long as the manifest says."""
    for corpus in manifest.corpora.values():
        for file, size in (*corpus.train.shard_bytes.items(), *corpus.validation.shard_bytes.items()):
            try:
                found = os.stat(file).st_size
            except OSError as error:
                raise UserError(
                    f"{file}: {error.strerror}, but {manifest.path} lists it; prepare the data again"
                ) from error
            if found != size:
                raise UserError(f"{file}: has {found} bytes, {manifest.path} says {size}; prepare the data again")
