import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import webdataset

from framework.config import ExecutorConfig, ShardConfig, TokenizerConfig
from framework.corpus.console import Reporter
from framework.corpus.engine import Engine
from framework.corpus.shards import ShardWriter, encode_text, read_texts
from framework.corpus.tokenizer import load_tokenizer, train_tokenizer
from framework.corpus.tokenizer_sample import Source
from framework.corpus.tokens import write_token_shards
from tests.corpus.conftest import Prepared
from tests.corpus.texts import ODD_TEXTS, random_documents


@pytest.fixture(scope="module")
def tokenizer(samples: Prepared) -> Any:
    return sentencepiece.SentencePieceProcessor(model_file=str(samples.output / "tokenizer/tokenizer.model"))


def text_shard(directory: Path, texts: list[str]) -> Path:
    with ShardWriter(directory, "train", 10**9) as writer:
        for number, text in enumerate(texts):
            writer.write(f"{number:04d}", encode_text(text, {}))
    return writer.paths[0]


def test_every_sample_document_survives_the_round_trip(samples: Prepared, tokenizer: Any) -> None:
    count = 0
    for path in sorted(samples.output.glob("text/*/*.tar")):
        for text in itertools.islice(read_texts(path), 400):
            assert tokenizer.decode(tokenizer.encode(text)) == text
            count += 1
    assert count > 1000


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: repr(text[:20]))
def test_odd_texts_survive_the_round_trip_without_reserved_ids(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not any(tokenizer.is_control(i) or tokenizer.is_unknown(i) for i in ids)


def test_the_reserved_ids(samples: Prepared, tokenizer: Any) -> None:
    pieces = ["<unk>", "<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    pieces += ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|mask|>"]
    assert [tokenizer.id_to_piece(i) for i in range(12)] == [*pieces, "\n"]
    manifest = json.loads((samples.output / "tokens" / "manifest.json").read_text())
    assert manifest["tokenizer"]["reserved"] == {piece: i for i, piece in enumerate(pieces)}
    assert all(tokenizer.is_control(i) for i in range(1, 11))
    assert [tokenizer.is_byte(i) for i in range(12, 269)] == [True] * 256 + [False]
    assert (tokenizer.eos_id(), tokenizer.pad_id(), tokenizer.bos_id()) == (1, 2, -1)
    assert tokenizer.vocab_size() == 4096


def test_newlines_and_digits_stand_alone(tokenizer: Any) -> None:
    assert tokenizer.encode("\n\n\n") == [11, 11, 11]
    assert len(tokenizer.encode("31415")) == 5
    learned = [tokenizer.id_to_piece(i) for i in range(268, 4096)]
    assert not [piece for piece in learned if len(piece.strip("▁")) > 1 and any(c.isdigit() for c in piece)]
    assert "▁▁▁▁" in learned  # runs of spaces are learned: program text indents


def test_lines_longer_than_sentencepiece_takes_are_learned_from(tmp_path: Path) -> None:
    text = " ".join(document["text"].replace("\n", " ") for document in random_documents(100, seed=6))
    assert len(text) > 50_000
    train_tokenizer(tmp_path, TokenizerConfig(vocabulary_size=600), [Source([text_shard(tmp_path, [text])], len(text))])
    processor = load_tokenizer(tmp_path)
    assert len(processor.encode(text)) < len(text) / 1.8  # nothing learned would be a token a byte
    assert processor.decode(processor.encode(text)) == text


def test_a_document_longer_than_what_is_encoded_at_once(tmp_path: Path, samples: Prepared, tokenizer: Any) -> None:
    texts = [
        "A line of words.\n" * 9000,
        "no newline at all " * 8000,
        "\n" * 70_000,
        "x\n" + "word " * 20_000 + "\nend",
    ]
    shards, model = [[text_shard(tmp_path, texts)]], samples.output / "tokenizer"
    with Engine(ExecutorConfig(), Reporter()) as engine:
        write_token_shards(tmp_path, tmp_path / "work", "x", "validation", shards, model, ShardConfig(), engine)
    [sample] = webdataset.WebDataset(str(tmp_path / "validation-00000.tar"), shardshuffle=False).decode()
    expected = [[1, *tokenizer.encode(text)] for text in texts]
    assert sample["lengths.npy"].tolist() == [len(ids) for ids in expected]
    assert sample["tokens.npy"].tolist() == list(itertools.chain.from_iterable(expected))
