"""What holds of BPE and unigram alike: no text is lost, and every reader gives the same ids."""

import itertools
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.config import TokenizerConfig
from framework.corpus import encoding
from framework.corpus import tokenizer as module
from framework.corpus.cleaning import clean_text
from framework.corpus.encoding import encode_batches
from framework.corpus.tokenizer import load_tokenizer, train_tokenizer
from framework.corpus.tokenizer_sample import Source
from framework.errors import UserError
from framework.model.tokenizer_files import RESERVED, write_tokenizer_files
from tests.corpus.conftest import ROOT
from tests.corpus.test_tokenizer import text_shard
from tests.corpus.texts import ODD_TEXTS, random_documents

ALGORITHMS = ("bpe", "unigram")
PARTS = [" ", "  ", "     ", "\n", "\n\n", "\t", "2024", "7", "the ", "of", "aaaa", "abab", "e\u0301", "n\u0303\u0323"]
PARTS += [
    "日本語",
    "한국",
    "مرحبا",
    "ไทย",
    "👩\u200d👧",
    "🏳️\u200d🌈",
    "\u00ad",
    "\u200b",
    "\ufffd",
    "\u00a0",
    "<0x41>",
    "<unk>",
    "<",
]
anything = st.lists(st.sampled_from(PARTS) | st.text(max_size=8), max_size=30).map(
    lambda parts: clean_text("|" + "".join(parts) + "|")[1:-1]  # cleaned, with the white space at the ends
)


def rules(chance: random.Random) -> str:
    """Rules of all lengths, as plain text draws them: their pieces can be put in any order, so their sums tie."""
    return "".join(chance.choice("-=*") * chance.randint(1, 40) + chance.choice(" \n") for _ in range(1_500))


def train(directory: Path, algorithm: str) -> Path:
    directory.mkdir()
    texts = [document["text"] for document in random_documents(150, seed=8)]
    texts += [*ODD_TEXTS, rules(random.Random(1)), "<0x41>"]
    shard = text_shard(directory, texts)
    config = TokenizerConfig(algorithm=algorithm, vocabulary_size=700)
    train_tokenizer(directory, config, [Source([shard], 10_000_000)])
    return directory


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("algorithms")
    return {algorithm: train(place / algorithm, algorithm) for algorithm in ALGORITHMS}


@pytest.fixture(scope="module")
def tokenizers(directories: dict[str, Path]) -> dict[str, Any]:
    return {algorithm: load_tokenizer(directory) for algorithm, directory in directories.items()}


@pytest.fixture(scope="module")
def huggingface(directories: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    transformers = pytest.importorskip("transformers")
    read = {}
    for algorithm, directory in directories.items():
        target = tmp_path_factory.mktemp(algorithm)
        write_tokenizer_files(directory / "tokenizer.model", target)
        (target / "config.json").write_text('{"model_type": "llama"}')
        read[algorithm] = transformers.AutoTokenizer.from_pretrained(target)
    return read


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=300, deadline=None)
@given(text=anything)
def test_every_cleaned_text_survives_the_round_trip(tokenizers: dict[str, Any], algorithm: str, text: str) -> None:
    tokenizer = tokenizers[algorithm]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not any(tokenizer.is_control(i) or tokenizer.is_unknown(i) for i in ids)
    pieces = [tokenizer.id_to_piece(i) for i in ids]
    assert pieces.count("\n") == text.count("\n")
    assert all(len(piece.strip("▁")) == 1 for piece in pieces if set(piece) & set("0123456789") and "<0x" not in piece)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=200, deadline=None)
@given(first=anything, second=anything)
def test_a_cut_after_a_newline_changes_no_id(
    tokenizers: dict[str, Any], algorithm: str, first: str, second: str
) -> None:
    encode = tokenizers[algorithm].encode
    assert encode(f"{first}\n{second}") == encode(f"{first}\n") + encode(second)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=300, deadline=None)
@given(text=anything.filter(lambda text: not any(symbol in text for symbol in ("<unk>", *RESERVED))))
def test_transformers_gives_the_same_ids_and_the_text(
    tokenizers: dict[str, Any], huggingface: dict[str, Any], algorithm: str, text: str
) -> None:
    ids = tokenizers[algorithm].encode(text)
    assert huggingface[algorithm].encode(text) == ids
    assert huggingface[algorithm].decode(ids) == text


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_long_texts_get_the_ids_of_their_lines(
    tokenizers: dict[str, Any], huggingface: dict[str, Any], algorithm: str
) -> None:
    text = rules(random.Random(0))
    assert len(text) > 20_000
    ids = tokenizers[algorithm].encode(text)
    lines = tokenizers[algorithm].encode(text.splitlines(keepends=True))
    assert ids == list(itertools.chain.from_iterable(lines)) == huggingface[algorithm].encode(text)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("remembered", [0, 40, 1 << 19])
def test_batches_get_the_ids_of_sentencepiece(
    tokenizers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, algorithm: str, remembered: int
) -> None:
    """Whatever is remembered of the batches before."""
    monkeypatch.setattr(encoding, "_REMEMBERED", remembered)
    texts = [*filter(None, map(clean_text, ODD_TEXTS)), *(d["text"] for d in random_documents(40, seed=3))]
    texts += ["a\tb c", " ", "\n", "x   \n\n  y ", rules(random.Random(2))]
    batches = [texts[start : start + 7] for start in range(0, len(texts), 7)]
    tokenizer = tokenizers[algorithm]
    for batch, encoded in zip(batches, encode_batches(tokenizer, iter(batches), threads=3), strict=True):
        expected = [[tokenizer.eos_id(), *tokenizer.encode(text)] for text in batch]
        assert encoded.ids.tolist() == list(itertools.chain.from_iterable(expected))
        assert encoded.lengths.tolist() == list(map(len, expected))
        assert encoded.words == sum(len(re.findall(r"[^ \t\n]+", text)) for text in batch)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_reserved_ids_are_the_same(tokenizers: dict[str, Any], algorithm: str) -> None:
    tokenizer = tokenizers[algorithm]
    reserved = tokenizers["bpe"].piece_to_id("\n")
    assert tokenizer.piece_to_id("\n") == reserved
    assert [tokenizer.is_control(i) for i in range(1, reserved)] == [True] * (reserved - 1)
    assert [tokenizer.is_byte(i) for i in range(reserved + 1, reserved + 258)] == [True] * 256 + [False]
    assert tokenizer.vocab_size() == 700


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_model_does_not_follow_the_cores(directories: dict[str, Path], tmp_path: Path, algorithm: str) -> None:
    """Trained again by a process that has one core."""
    program = (
        "import os, sys; from pathlib import Path; from tests.corpus.test_tokenizer_algorithms import train\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); train(Path(sys.argv[1]), sys.argv[2])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, str(tmp_path / "again"), algorithm]
    subprocess.run(command, check=True, env=environment, cwd=ROOT)
    assert (tmp_path / "again/tokenizer.model").read_bytes() == (
        directories[algorithm] / "tokenizer.model"
    ).read_bytes()


def test_a_sample_that_memory_has_no_room_for_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "physical_memory", lambda: 1_000_000_000)
    missing = [Source([tmp_path / "there is none"], 50_000_001)]
    message = r"tokenizer.sample_bytes: bpe takes about 20 bytes .* 50,000,001, and there are 1.0 GB; give 50,000,000$"
    with pytest.raises(UserError, match=message):
        train_tokenizer(tmp_path, TokenizerConfig(), missing)
