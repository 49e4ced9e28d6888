"""`report.json`: what came in, what was dropped and by which rule, and what is left, of every corpus.

It lies beside `report.html`, which shows the same. Nothing in it hangs on when or where it was made, so the same
preparation gives the same bytes. Counts of `read` documents are of those that the reader did not turn down, as it
gave them; counts of `kept` ones are of those in the shards, as they are there. Its fields:

    schema_version   1
    made_from
        version          of Loam
        recipe           of its preparation
        configuration    SHA-256 of all settings but `output`, `executor` and the directories of files
        manifest         SHA-256 of tokens/manifest.json
        tokenizer        SHA-256 of its model
        vocabulary_size
        libraries        versions of what the texts follow from, by name
    mixture
        tokens           for training, of all corpora
        corpora          by name:
            weight           as configured
            asked            share of the training tokens that its weight asks for; they sum to 1
            available        share of the training tokens that there are
            tokens           for training
        passes           for some numbers of tokens a run may take, in ascending order:
            name             first_corpus_read: until some corpus has been read once
                             as_many_as_there_are: `tokens`
                             every_corpus_read: until all of them have been
            tokens           that the run takes
            epochs           how often each corpus is read then, by name: asked * tokens / its tokens
    corpora          by name:
        source, licence, reader, language    as configured
        raw_files, raw_bytes     as they lie, packed or not; what is remote may not say its size (0)
        documents
            found                in the raw files
            read                 less those that the reader itself turned down
            kept                 = train + validation
            train, validation
        characters, bytes        of text, `read` and `kept`; bytes in UTF-8
        tokens
            read                 about: `bytes.read` at the bytes a token of what was kept
            kept                 = train + validation
            train, validation
        tokens_per_word, bytes_per_token    see `fertility.Fertility`
        held_out_gzip_bytes, held_out_xz_bytes    the validation text under `gzip -9` and `xz -9`
        funnel           the steps in order:
            step             its name
            documents        that it was given; of the first, `documents.found`
            dropped          of these, by rule
            left             = documents less dropped = documents of the next step
            counted          what else it counted, by name
        duplicates       documents dropped by `duplicate`, `near_duplicate` and `duplicate_paragraphs`
        contaminated     documents dropped by `contaminated`
        lengths          bins in ascending order, none left out between the first and the last:
            start, end       in characters; end is not in the bin, and null for one that has no end
            read, kept       documents
        languages
            found_by         "filter": by the language filter, of the documents that reached it;
                             "configuration": none was asked to look, and all are taken to be in the configured one
            read, kept       documents by language (ISO 639-1), most first
        domains
            with_url         documents that have a host in their URL, `read` and `kept`
            error            how much the counts below may be too low, `read` and `kept`; 0: they are exact
            top              the hosts with most documents kept, then read:
                host, read, kept
        samples          documents with the smallest hashes, so the same ones every time:
            kept             each with id, title, url, language, characters (of the whole text), text (the first
                             600 of them), note ("", or what it shares with an evaluation file)
            dropped          the same by rule, where the rule's step keeps a sample
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class MadeFrom:
    """What the report follows from."""

    version: str
    recipe: int
    configuration: str
    manifest: str
    tokenizer: str
    vocabulary_size: int
    libraries: dict[str, str]


@dataclass(frozen=True)
class Share:
    """What a corpus has in the mixture."""

    weight: float
    asked: float
    available: float
    tokens: int


@dataclass(frozen=True)
class Pass:
    """How often each corpus is read in a run of so many tokens."""

    name: str
    tokens: int
    epochs: dict[str, float]


@dataclass(frozen=True)
class Mixture:
    """The shares asked for, beside those that there are."""

    tokens: int
    corpora: dict[str, Share]
    passes: list[Pass]


@dataclass(frozen=True)
class Documents:
    """How many there are."""

    found: int
    read: int
    kept: int
    train: int
    validation: int


@dataclass(frozen=True)
class Tokens:
    """How many there are, and would be about in what was read."""

    read: int
    kept: int
    train: int
    validation: int


@dataclass(frozen=True)
class ReadAndKept:
    """A count before and after."""

    read: int
    kept: int


@dataclass(frozen=True)
class Step:
    """What one step did."""

    step: str
    documents: int
    dropped: dict[str, int]
    left: int
    counted: dict[str, int]


@dataclass(frozen=True)
class LengthBin:
    """Documents of similar length."""

    start: int
    end: int | None
    read: int
    kept: int


@dataclass(frozen=True)
class Languages:
    """Documents by language."""

    found_by: str
    read: dict[str, int]
    kept: dict[str, int]


@dataclass(frozen=True)
class Host:
    """Documents of one host."""

    host: str
    read: int
    kept: int


@dataclass(frozen=True)
class Domains:
    """The most frequent hosts."""

    with_url: ReadAndKept
    error: ReadAndKept
    top: list[Host]


@dataclass(frozen=True)
class Sample:
    """One document, to be read."""

    id: str
    title: str
    url: str
    language: str
    characters: int
    text: str
    note: str


@dataclass(frozen=True)
class Samples:
    """Documents that were kept, and by rule some that were not."""

    kept: list[Sample]
    dropped: dict[str, list[Sample]]


@dataclass(frozen=True)
class CorpusReport:
    """One corpus."""

    source: str
    licence: str
    reader: str
    language: str
    raw_files: int
    raw_bytes: int
    documents: Documents
    characters: ReadAndKept
    bytes: ReadAndKept
    tokens: Tokens
    tokens_per_word: float
    bytes_per_token: float
    held_out_gzip_bytes: int
    held_out_xz_bytes: int
    funnel: list[Step]
    duplicates: dict[str, int]
    contaminated: int
    lengths: list[LengthBin]
    languages: Languages
    domains: Domains
    samples: Samples


@dataclass(frozen=True)
class Report:
    """The whole file."""

    made_from: MadeFrom
    mixture: Mixture
    corpora: dict[str, CorpusReport]

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    def as_text(self) -> str:
        """The report as it is in the file: ASCII, so that no character of a document can do harm."""
        return json.dumps(self.as_json(), indent=1) + "\n"
