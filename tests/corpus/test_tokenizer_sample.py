"""Which text a tokenizer learns from, held against a sample that is drawn in the plainest way."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.corpus.tokenizer_sample import Source, draw_sentences, wanted_bytes
from tests.corpus.test_tokenizer import text_shard
from tests.corpus.texts import random_documents

TEXTS = [document["text"] for document in random_documents(200, seed=4)]
SIZE = sum(len(text.encode()) for text in TEXTS)


def drawn(directory: Path, texts: list[str], wanted: int, seed: int = 0, parts: int = 1) -> list[str]:
    shards = []
    for part in range(parts):
        (directory / f"{wanted}-{seed}-{parts}-{part}").mkdir(parents=True)
        shards.append(text_shard(directory / f"{wanted}-{seed}-{parts}-{part}", texts[part::parts]))
    return list(draw_sentences([Source(shards, wanted)], seed))


def plainly(texts: list[str], wanted: int, seed: int) -> list[str]:
    """All documents in the order of their lots; the lines of the first `wanted` bytes."""
    ordered = sorted(texts, key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest()[:8])
    lines = []
    for text in ordered:
        encoded = text.encode()[:wanted]
        wanted -= len(encoded)
        lines += encoded.decode(errors="ignore").split("\n")
    return [line for line in lines if line]


@pytest.mark.parametrize("wanted", [1, 5_000, SIZE // 2, SIZE, 2 * SIZE])
def test_the_sample_is_as_large_as_was_asked_for(tmp_path: Path, wanted: int) -> None:
    assert drawn(tmp_path, TEXTS, wanted) == plainly(TEXTS, wanted, 0)


def test_it_depends_on_the_seed_and_not_on_the_shards(tmp_path: Path) -> None:
    first = drawn(tmp_path / "a", TEXTS, SIZE // 3)
    assert first == drawn(tmp_path / "b", TEXTS[::-1], SIZE // 3, parts=3)
    assert first != drawn(tmp_path / "c", TEXTS, SIZE // 3, seed=1)


def test_nothing_is_drawn_where_nothing_is_wanted(tmp_path: Path) -> None:
    assert drawn(tmp_path, TEXTS, 0) == []


def test_a_large_document_is_cut_between_characters(tmp_path: Path) -> None:
    assert drawn(tmp_path, ["\u20ac" * 100], 50) == ["\u20ac" * 16]


def test_shares_follow_the_weights_and_not_the_sizes() -> None:
    assert wanted_bytes({"a": 10_000, "b": 1_000}, {"a": 1, "b": 3}, 400) == {"a": 100, "b": 300}


def test_what_a_small_corpus_cannot_give_is_given_by_the_others() -> None:
    sizes, weights = {"web": 10_000, "books": 5_000, "wiki": 40}, {"web": 60, "books": 20, "wiki": 20}
    assert wanted_bytes(sizes, weights, 1_000) == {"web": 720, "books": 240, "wiki": 40}


@given(
    corpora=st.lists(st.tuples(st.integers(1, 10**12), st.floats(0.01, 100)), min_size=1, max_size=6),
    limit=st.integers(1, 1 << 31),
)
def test_the_sample_is_full_or_has_everything(corpora: list[tuple[int, float]], limit: int) -> None:
    sizes = {str(number): size for number, (size, _) in enumerate(corpora)}
    weights = {str(number): weight for number, (_, weight) in enumerate(corpora)}
    wanted = wanted_bytes(sizes, weights, limit)
    assert all(0 <= wanted[name] <= sizes[name] for name in sizes)
    assert min(limit, sum(sizes.values())) - len(sizes) <= sum(wanted.values()) <= limit
    # Nobody who still has text gets less for its weight than another.
    levels = {name: (wanted[name] + 1) / weights[name] for name in sizes}
    for name in sizes:
        if wanted[name] < sizes[name]:
            assert levels[name] >= max(wanted[other] / weights[other] for other in sizes) * (1 - 1e-9)
