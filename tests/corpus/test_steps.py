"""The steps of a pipeline, each by itself."""

import json
import subprocess
from pathlib import Path

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from framework.config import CorpusConfig
from framework.corpus.reading import KeepDocuments, ReadDocuments, deal_files
from framework.corpus.steps import cleaning_steps


def document(text: str, score: float | None = None, title: str = "") -> Document:
    return Document(text=text, id="1", metadata={"title": title, "url": "", "score": score})


def through(corpus: CorpusConfig, documents: list[Document]) -> tuple[list[Document], dict[str, int]]:
    """What the cleaning steps leave, and what they counted as dropped."""
    steps, data = cleaning_steps(corpus), iter(documents)
    for step in steps:
        data = step(data)
    kept = list(data)
    counts = {name: int(stat.total) for step in steps for name, stat in step.stats.stats.items()}
    return kept, {name.removeprefix("dropped_"): n for name, n in counts.items() if name.startswith("dropped_")}


@pytest.mark.parametrize(
    ("one", "rule"),
    [
        (document("long enough", score=3), None),
        (document(" \x00\n "), "no_text"),
        (document("short", score=3), "minimum_characters"),
        (document("long enough"), "no_score"),
        (document("long enough", score=2.9), "minimum_score"),
    ],
)
def test_rules(one: Document, rule: str | None) -> None:
    kept, dropped = through(CorpusConfig(minimum_characters=8, minimum_score=3), [one])
    assert dropped == ({rule: 1} if rule else {})
    assert len(kept) == (rule is None)


def test_what_is_said_about_a_document_is_cleaned_too() -> None:
    [kept], _ = through(CorpusConfig(), [document("text", title="half \ud83d a pair")])
    assert kept.metadata["title"] == "half  a pair"


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    texts = ["one", "two\nlines", "\u2028 odd \u0085 lines", "one"]
    KeepDocuments(tmp_path / "kept", [""])(iter(document(text, score=2.5) for text in texts))
    [file] = tmp_path.glob("kept/00000/*.zst")
    file.rename(tmp_path / "00000.jsonl.zst")
    assert list(ReadDocuments(tmp_path)()) == [document(text, score=2.5) for text in texts]
    packed = subprocess.run(["zstd", "-dc", tmp_path / "00000.jsonl.zst"], capture_output=True, check=True).stdout
    assert [json.loads(line)["text"] for line in packed.decode().split("\n")[:-1]] == texts


@given(st.lists(st.integers(1, 1 << 30), min_size=1, max_size=50), st.integers(0, 60))
def test_files_are_dealt_in_order_and_none_is_lost(sizes: list[int], tasks: int) -> None:
    parts = deal_files(sizes, tasks)
    assert [size for part in parts for size in sizes[part]] == sizes
    assert all(sizes[part] for part in parts)
    if tasks:
        assert len(parts) == min(tasks, len(sizes))


def test_many_small_files_share_a_task_and_a_large_one_has_its_own() -> None:
    mib = 1 << 20
    assert deal_files([mib] * 60, 0) == [slice(0, 60)]
    assert len(deal_files([mib] * 640, 0)) == 10
    assert deal_files([900 * mib, 900 * mib], 0) == [slice(0, 1), slice(1, 2)]
