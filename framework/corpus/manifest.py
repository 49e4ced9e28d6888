"""`tokens/manifest.json`: what token shards there are, and what is in them.

This file is the interface to the rooms that read tokens. It is written last and renamed into place: what
it does not list does not exist. Its fields:

    schema_version   1
    tokenizer        path (relative to the manifest; a tokenizer.model, or another model's tokenizer.json with its
                     settings beside it), sha256 of that file, vocabulary_size,
                     end_of_text (the id that opens every document),
                     reserved (the id of each piece that no text becomes, "<|mask|>" and so on, by its name;
                     not in manifests of before there was infilling)
    dtype            of the tokens: "uint16" or "uint32", little-endian
    corpora          by name:
        weight           share of the training tokens, as configured; not normalised
        source, licence  as configured
        documents_in     in the raw files
        documents_kept   = documents_in less everything dropped = those of both splits
        dropped          documents by the name of the rule
        train, validation
            documents, tokens
            bytes            of UTF-8 text that the tokens encode
            gzip_bytes, xz_bytes   validation only: that text under `gzip -9` and `xz -9`
            shards           in order:
                path             relative to the manifest
                bytes, sha256    of the file
                blocks           in order:
                    tokens_offset, tokens_bytes     slice of the shard that is the member KEY.tokens.npy
                    lengths_offset, lengths_bytes   and KEY.lengths.npy, .npy headers included
                    tokens, documents               counts
                    sha256                          of the first slice followed by the second
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Block:
    """Some documents: the unit of shuffling and of one range read."""

    tokens_offset: int
    tokens_bytes: int
    lengths_offset: int
    lengths_bytes: int
    tokens: int
    documents: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    path: str
    bytes: int
    sha256: str
    blocks: list[Block]


@dataclass(frozen=True)
class Split:
    """The documents of a corpus that are trained on."""

    documents: int
    tokens: int
    bytes: int
    shards: list[Shard]


@dataclass(frozen=True)
class HeldOut(Split):
    """The documents of a corpus that are never trained on."""

    gzip_bytes: int
    xz_bytes: int


@dataclass(frozen=True)
class Corpus:
    """Where a corpus comes from, what was dropped from it, and what it became."""

    weight: float
    source: str
    licence: str
    documents_in: int
    documents_kept: int
    dropped: dict[str, int]
    train: Split
    validation: HeldOut


@dataclass(frozen=True)
class Tokenizer:
    """Which tokenizer the tokens are of."""

    path: str
    sha256: str
    vocabulary_size: int
    end_of_text: int
    reserved: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """The whole file."""

    tokenizer: Tokenizer
    dtype: str
    corpora: dict[str, Corpus]

    def as_text(self) -> str:
        """The manifest as it is in the file: the same content gives the same text."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=1) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the file: two manifests with the same digest describe the same tokens."""
        return hashlib.sha256(self.as_text().encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Put the manifest in its place, whole or not at all."""
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(self.as_text(), encoding="utf-8")
        partial.replace(path)
