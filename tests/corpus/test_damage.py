"""Damaged input: one line that names the file and the place, whatever the format."""

import bz2
import gzip
import random
import subprocess
import sys
from pathlib import Path

import pytest

from framework.config import PrepareConfig
from framework.corpus.pipeline import prepare
from framework.corpus.readers import read_documents
from framework.corpus.readers.places import find_files
from framework.errors import UserError
from tests.corpus.conftest import ROOT
from tests.corpus.texts import http, page, random_documents, warc_record, wiki, wiki_page, write_jsonl

CRAWL = b"".join(
    warc_record("response", f"http://a.example/{n}", http(page(f"Number {n}.").encode())) for n in range(4)
)
WIKI = wiki("".join(wiki_page(n, f"Page {n}", "text " * 50) for n in range(1, 40))).encode()
REQUEST = warc_record("request", "http://a.example/r", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
LONG = REQUEST.replace(b"Content-Length: 35", b"Content-Length: 99999999")
LINES = b'{"text": "one"}\n{"text": "two"}\n'


def zipped(crawl: bytes) -> bytes:
    return b"".join(gzip.compress(b"WARC/1.0" + record, mtime=0) for record in crawl.split(b"WARC/1.0")[1:])


@pytest.mark.parametrize(
    ("reader", "name", "content", "message"),
    [
        ("warc", "cut.warc.gz", zipped(CRAWL)[:-40], "damaged, or no .gz file .* end-of-stream"),
        ("warc", "cut.warc", CRAWL[:-400], "damaged after record urn:test:http://a.example/2 .* has .* of its"),
        ("warc", "skipped.warc", CRAWL + REQUEST[:-20], "damaged after record urn:test:http://a.example/3 .* has"),
        ("warc", "header.warc", CRAWL + REQUEST[:12], "damaged after record urn:test:http://a.example/3 .*header"),
        ("warc", "half.warc", CRAWL + REQUEST[:60], "damaged after record urn:test:http://a.example/3 .*header"),
        ("warc", "skips.warc", CRAWL + LONG + CRAWL, "damaged after record urn:test:http://a.example/3 .* 99,999,999"),
        ("warc", "long.warc", LONG.replace(b"request", b"response") + CRAWL, "has .* of its 99,999,999 bytes"),
        ("warc", "short.warc", CRAWL.replace(b"Length: 864", b"Length: 860"), "not followed by an empty line"),
        ("warc", "lengthless.warc", CRAWL + REQUEST.replace(b"Content-Length: ", b"X: "), "has the length ''"),
        ("warc", "foreign.warc", b"GIF89a" + bytes(500), "no record begins at byte 0; is it a WARC file"),
        ("warc", "no_page.warc", warc_record("warcinfo", "x", b"a: b\r\n"), "finds no document"),
        ("mediawiki", "cut.xml", WIKI[:-900], "damaged after page 'Page 3.'"),
        ("mediawiki", "cut.xml.bz2", bz2.compress(WIKI)[:-30], "damaged, or no .bz2 file"),
        ("mediawiki", "flipped.xml.bz2", bz2.compress(WIKI)[:60] + b"\0" + bz2.compress(WIKI)[61:], "damaged"),
        ("mediawiki", "other.xml", b"<html><body/></html>", "damaged at its start .*is it a MediaWiki export"),
        ("mediawiki", "untitled.xml", wiki("<page><ns>0</ns><id>1</id></page>").encode(), "damaged at its start"),
        ("book", "latin.txt", "Chapter 1\n\ncaf\xe9".encode("latin-1"), "line 3: byte 14 is not UTF-8"),
        ("book", "cut.epub", (ROOT / "samples/books/emma.epub").read_bytes()[:-5000], "is no sound EPUB"),
        ("book", "novel.pdf", b"%PDF", "neither .epub nor .txt"),
        ("jsonl", "bad.jsonl", LINES + b'{"text": "thr\n', "line 3: is no JSON"),
        ("jsonl", "bytes.jsonl", LINES + b'{"text": "\xff"}\n', "line 3: byte 42 is not UTF-8"),
        ("jsonl", "none.jsonl", LINES + b'{"txt": "three"}\n', "line 3: has no field `text`"),
        ("jsonl", "list.jsonl", b'["text"]\n', "line 1: has no field `text`"),
        ("jsonl", "number.jsonl", b'{"text": 3}\n', "line 1: field `text` is no string"),
        (
            "jsonl",
            "score.jsonl",
            b'{"text": "a", "score": "high"}\n',
            "line 1: field `score` is 'high', not int or float",
        ),
        ("jsonl", "digits.jsonl", b'{"text": "a", "score": ' + b"9" * 5000 + b"}\n", "line 1: is no JSON"),
        ("jsonl", "cut.jsonl.gz", gzip.compress(LINES * 999)[:-9], "damaged, or no .gz file .* end-of-stream"),
        ("jsonl", "short.jsonl.gz", gzip.compress(LINES, mtime=0)[:-9], "damaged, or no .gz file .* end-of-stream"),
        ("jsonl", "plain.jsonl.gz", LINES, r"no \.gz file at all .*Not a gzipped.*or take \.gz off its name"),
        (
            "jsonl",
            "wiki.jsonl",
            b"\xef\xbb\xbf<?xml version='1.0'?>\n" + WIKI,
            "is for reader mediawiki, not jsonl; set",
        ),
        ("mediawiki", "crawl.xml", CRAWL, "is for reader warc, not mediawiki; set the corpus's reader=warc"),
        ("mediawiki", "lines.xml", LINES, "is for reader jsonl, not mediawiki"),
        ("warc", "wiki.warc.gz", gzip.compress(WIKI, mtime=0), "is for reader mediawiki, not warc"),
        ("parquet", "wiki.parquet", WIKI, "is for reader mediawiki, not parquet"),
        ("jsonl", "blank.jsonl", b"\n\n", "finds no document"),
    ],
)
def test_damage_is_told_with_file_and_place(
    tmp_path: Path, reader: str, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(read_documents(reader, str(path)))
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("reader", "name"),
    [("warc", "web/debian-handbook.warc.gz"), ("book", "books/emma.epub"), ("jsonl", "webtext/jargon.jsonl.gz")],
)
def test_no_cut_and_no_flipped_byte_of_a_compressed_file_goes_unseen(tmp_path: Path, reader: str, name: str) -> None:
    whole = (ROOT / "samples" / name).read_bytes()
    chance = random.Random(name)
    path = tmp_path / Path(name).name
    for trial in range(12):
        place = chance.randrange(200, len(whole))
        path.write_bytes(whole[:place] if trial % 2 else whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = list(read_documents(reader, str(path)))
        except UserError:
            continue
        assert found == list(read_documents(reader, str(ROOT / "samples" / name))), (
            f"byte {place}"
        )  # a byte that says nothing


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("*.nothing", "matches no file"), ("empty*", "is empty"), ("", "is a directory; give files")],
)
def test_files_that_are_not_there_or_empty(tmp_path: Path, pattern: str, message: str) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match=message) as caught:
        find_files("corpora.x.paths", [str(tmp_path / pattern)])
    assert "corpora.x.paths" in str(caught.value)


def test_prepare_leaves_nothing_half_written(small: PrepareConfig, tmp_path: Path) -> None:
    second = tmp_path / "raw/second.jsonl.gz"
    second.write_bytes(second.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"second\.jsonl\.gz: damaged"):
        prepare(small)
    left = {str(path.relative_to(small.output)) for path in Path(small.output).rglob("*") if path.is_file()}
    assert "documents/first/stage.json" in left  # the corpus before it stays
    assert {str(Path(name).parent) for name in left} == {"documents/first"}


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        (
            "minimum_characters",
            10**6,
            r"corpora\.first: all of its 120 documents were dropped \(120 by minimum_characters",
        ),
        ("minimum_score", 1.0, r"120 by no_score"),
    ],
)
def test_a_corpus_that_loses_everything(small: PrepareConfig, setting: str, value: float, message: str) -> None:
    setattr(small.corpora["first"], setting, value)
    with pytest.raises(UserError, match=message):
        prepare(small)


def test_a_corpus_without_held_out_documents(small: PrepareConfig) -> None:
    small.validation_fraction = 1e-6
    with pytest.raises(UserError, match="none of its 120 documents fell into the validation split; raise"):
        prepare(small)


def test_a_vocabulary_that_the_text_does_not_support(small: PrepareConfig, tmp_path: Path) -> None:
    small.tokenizer.vocabulary_size = 60_000
    with pytest.raises(
        UserError, match=r"tokenizer\.vocabulary_size: 60000 does not suit this text; it has pieces for \d+ at most"
    ):
        prepare(small)
    assert not list(Path(small.output).rglob("*.partial"))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("{}/file", "output: .*file: File exists; choose another directory"),
        ("{}/file/below", "output: .*below: Not a directory; choose another directory"),
        ("/proc/nowhere/at/all", "output: /proc/nowhere/at/all: No such file or directory; choose another directory"),
        ("", "output: is empty; name a directory"),
        ("s3://bucket/data", "output: s3://bucket/data is a URL; name a directory"),
    ],
)
def test_an_output_that_cannot_be_written(small: PrepareConfig, tmp_path: Path, output: str, message: str) -> None:
    (tmp_path / "file").write_text("a file is in the way")
    small.output = output.format(tmp_path)
    with pytest.raises(UserError, match=message):
        prepare(small)


LOCK = "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], 0), fcntl.LOCK_EX); print(); time.sleep(99)"


def test_two_runs_do_not_share_an_output(small: PrepareConfig) -> None:
    Path(small.output).mkdir()
    command = [sys.executable, "-u", "-c", LOCK, small.output]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UserError, match=r"output: another prepare works in .*; wait for it, or choose"):
            prepare(small)
        other.kill()
    assert prepare(small).corpora["first"].documents_kept > 0


def test_duplicates_and_short_documents_are_counted_by_rule(small: PrepareConfig, tmp_path: Path) -> None:
    documents = random_documents(120, seed=1)
    extra = [documents[3], documents[3], {"text": " \n "}, {"text": "tiny"}]
    write_jsonl(tmp_path / "raw/first.jsonl", documents + extra)
    small.corpora["first"].minimum_characters = 5
    corpus = prepare(small).corpora["first"]
    assert corpus.dropped == {"duplicate": 2, "minimum_characters": 1, "no_text": 1}
    assert (corpus.documents_in, corpus.documents_kept) == (124, 120)
