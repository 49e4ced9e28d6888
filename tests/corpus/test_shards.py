"""Shards and manifest of the real samples, read with webdataset, tarfile, NumPy and json alone."""

import hashlib
import itertools
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import webdataset

from tests.corpus.conftest import Prepared

CORPORA = ("books", "web", "webtext", "wiki")


@pytest.fixture(scope="module")
def manifest(samples: Prepared) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((samples.output / "tokens/manifest.json").read_text())
    return content


def read(paths: list[Path]) -> list[dict[str, Any]]:
    return [sample for path in paths for sample in webdataset.WebDataset(str(path), shardshuffle=False).decode()]


def test_manifest_has_exactly_the_fields_of_the_schema(manifest: dict[str, Any]) -> None:
    assert set(manifest) == {"schema_version", "tokenizer", "dtype", "corpora"}
    assert manifest["schema_version"] == 1
    assert manifest["dtype"] == "uint16"
    assert set(manifest["tokenizer"]) == {"path", "sha256", "vocabulary_size", "end_of_text", "reserved"}
    assert set(manifest["corpora"]) == set(CORPORA)
    about = {"weight", "source", "licence", "documents_in", "documents_kept", "dropped", "train", "validation"}
    split = {"documents", "tokens", "bytes", "shards"}
    block = {"tokens_offset", "tokens_bytes", "lengths_offset", "lengths_bytes", "tokens", "documents", "sha256"}
    for corpus in manifest["corpora"].values():
        assert set(corpus) == about
        assert set(corpus["train"]) == split
        assert set(corpus["validation"]) == split | {"gzip_bytes", "xz_bytes"}
        for shard in corpus["train"]["shards"] + corpus["validation"]["shards"]:
            assert set(shard) == {"path", "bytes", "sha256", "blocks"}
            assert all(set(entry) == block for entry in shard["blocks"])


def test_manifest_agrees_with_the_files(samples: Prepared, manifest: dict[str, Any]) -> None:
    tokens = samples.output / "tokens"
    model = (tokens / manifest["tokenizer"]["path"]).read_bytes()
    assert hashlib.sha256(model).hexdigest() == manifest["tokenizer"]["sha256"]
    for corpus in manifest["corpora"].values():
        assert corpus["documents_in"] == corpus["documents_kept"] + sum(corpus["dropped"].values())
        assert corpus["documents_kept"] == corpus["train"]["documents"] + corpus["validation"]["documents"]
        for split in (corpus["train"], corpus["validation"]):
            blocks = [block for shard in split["shards"] for block in shard["blocks"]]
            assert sum(block["tokens"] for block in blocks) == split["tokens"]
            assert sum(block["documents"] for block in blocks) == split["documents"]
            for shard in split["shards"]:
                content = (tokens / shard["path"]).read_bytes()
                assert len(content) == shard["bytes"]
                assert hashlib.sha256(content).hexdigest() == shard["sha256"]


def test_every_block_is_the_slice_that_the_manifest_says(samples: Prepared, manifest: dict[str, Any]) -> None:
    for corpus in manifest["corpora"].values():
        for shard in corpus["train"]["shards"] + corpus["validation"]["shards"]:
            path = samples.output / "tokens" / shard["path"]
            content = path.read_bytes()
            for block in shard["blocks"]:
                pieces = [content[block[f"{k}_offset"] :][: block[f"{k}_bytes"]] for k in ("tokens", "lengths")]
                assert hashlib.sha256(b"".join(pieces)).hexdigest() == block["sha256"]
                # The values can be mapped where they lie: .npy 1.0 with a header of 128 bytes, aligned.
                start = block["tokens_offset"] + 128
                assert start % 64 == 0
                tokens = np.memmap(path, np.uint16, "r", start, (block["tokens"],))
                lengths = np.frombuffer(pieces[1][128:], np.int32)
                assert len(lengths) == block["documents"]
                starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
                assert np.flatnonzero(tokens == 1).tolist() == starts.tolist()  # one <|endoftext|> opens each document


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_tokens_are_those_of_the_text_shards(samples: Prepared, corpus: str, split: str) -> None:
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(samples.output / "tokenizer/tokenizer.model"))
    texts = read(sorted(samples.output.glob(f"text/{corpus}/{split}-*.tar")))
    blocks = read(sorted(samples.output.glob(f"tokens/{corpus}/{split}-*.tar")))
    expected = [[1, *ids] for ids in tokenizer.encode([sample["txt"] for sample in texts])]
    assert np.concatenate([block["lengths.npy"] for block in blocks]).tolist() == list(map(len, expected))
    assert np.concatenate([block["tokens.npy"] for block in blocks]).tolist() == list(
        itertools.chain.from_iterable(expected)
    )


def test_text_samples_tell_where_they_are_from(samples: Prepared) -> None:
    for corpus, settings in samples.config.corpora.items():
        for sample in read(sorted(samples.output.glob(f"text/{corpus}/*.tar"))):
            about = sample["json"]
            assert about["source"] == settings.source
            assert about["licence"] == settings.licence
            assert about["language"] == "en"
            assert about["id"]
            assert about["title"] or about["url"]
            assert len(sample["txt"]) >= settings.minimum_characters


def test_splits_share_no_text_not_even_between_corpora(samples: Prepared, manifest: dict[str, Any]) -> None:
    texts = {
        split: [hash(sample["txt"]) for sample in read(sorted(samples.output.glob(f"text/*/{split}-*.tar")))]
        for split in ("train", "validation")
    }
    assert not set(texts["train"]) & set(texts["validation"])
    assert len(texts["validation"]) == sum(c["validation"]["documents"] for c in manifest["corpora"].values())


def test_blocks_are_many_and_hold_whole_documents(manifest: dict[str, Any]) -> None:
    for corpus in manifest["corpora"].values():
        train = [block for shard in corpus["train"]["shards"] for block in shard["blocks"]]
        size = corpus["train"]["tokens"] // 256
        assert len(train) >= min(256, corpus["train"]["documents"]) * 0.9
        assert all(block["tokens"] <= size or block["documents"] == 1 for block in train)
        assert sum(len(shard["blocks"]) for shard in corpus["validation"]["shards"]) == 1


def test_shards_tell_nothing_of_the_machine_or_the_time(samples: Prepared) -> None:
    for path in samples.output.rglob("*.tar"):
        with tarfile.open(path) as shard:
            assert {(m.mtime, m.uname, m.gname, m.uid, m.gid) for m in shard} == {(0, "loam", "loam", 0, 0)}


@pytest.mark.parametrize("corpus", CORPORA)
def test_baselines_are_what_the_command_line_tools_make(
    samples: Prepared, manifest: dict[str, Any], corpus: str
) -> None:
    text = "".join(s["txt"] for s in read(sorted(samples.output.glob(f"text/{corpus}/validation-*.tar")))).encode()
    split = manifest["corpora"][corpus]["validation"]
    assert len(text) == split["bytes"]
    for command, known in ((["gzip", "-9c"], "gzip_bytes"), (["xz", "-9cT1"], "xz_bytes")):
        packed = subprocess.run(command, input=text, capture_output=True, check=True).stdout
        assert abs(len(packed) - split[known]) <= 0.002 * len(packed)  # zlib and gzip search a little differently
