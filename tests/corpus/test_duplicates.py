"""Copies within and across corpora, as `prepare` takes them out."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import webdataset

from framework.config import CorpusConfig, ExecutorConfig, PrepareConfig, ShardConfig, TokenizerConfig
from framework.corpus.deduplication.minhash import KeepFirstOfClusters
from framework.corpus.deduplication.settings import DeduplicationSettings
from framework.corpus.pipeline import prepare
from tests.corpus.texts import random_documents, write_jsonl

FILES = 3


def corpora(tmp_path: Path, name: str = "data", **settings: object) -> PrepareConfig:
    """Two corpora that share documents, nearly the same ones, and paragraphs; three files each."""
    chance = random.Random(5)
    texts = [document["text"] for document in random_documents(300, seed=5)]
    common = "This line stands below every page of the second corpus, word for word."
    for corpus, begin in (("first", 0), ("second", 90)):
        for number in range(FILES):
            part = texts[begin + 50 * number : begin + 50 * number + 60]  # ten of the next file, and 60 of the first
            if corpus == "second":
                part = [_changed(text, chance) if n % 7 == 0 else text for n, text in enumerate(part)]
                part = [f"{text}\n{common}" if n % 2 else text for n, text in enumerate(part)]
                part += [common] if number == 2 else []  # nothing is left of it
            documents = [{"id": f"{corpus}-{number}-{n}", "text": text} for n, text in enumerate(part)]
            write_jsonl(tmp_path / f"raw/{corpus}-{number}.jsonl", documents)
    return PrepareConfig(
        output=str(tmp_path / name),
        corpora={
            corpus: CorpusConfig(paths=[f"{tmp_path}/raw/{corpus}-*"], deduplicate_paragraphs=corpus == "second")
            for corpus in ("first", "second")
        },
        tokenizer=TokenizerConfig(vocabulary_size=600),
        shards=ShardConfig(bytes_per_shard=40_000, block_tokens=500, minimum_blocks=8),
        executor=ExecutorConfig(workers=2, tasks=FILES),
        deduplication=DeduplicationSettings(partitions=3, **settings),
        validation_fraction=0.1,
    )


def _changed(text: str, chance: random.Random) -> str:
    words = text.split()
    words[chance.randrange(len(words))] = "changed"
    return " ".join(words)


def raw_texts(tmp_path: Path, corpus: str) -> list[str]:
    lines = [line for path in sorted(tmp_path.glob(f"raw/{corpus}-*")) for line in path.read_text().splitlines()]
    return [json.loads(line)["text"] for line in lines]


def kept_texts(config: PrepareConfig, corpus: str) -> list[str]:
    shards = sorted(map(str, Path(config.output).glob(f"text/{corpus}/*.tar")))
    return [sample["txt"] for sample in webdataset.WebDataset(shards, shardshuffle=False).decode()]


def expected(tmp_path: Path) -> dict[str, list[str]]:
    """Exact copies and repeated paragraphs taken out, by walking over all text with sets."""
    documents: set[str] = set()
    paragraphs: set[str] = set()
    result: dict[str, list[str]] = {"first": [], "second": []}
    for corpus, left in result.items():
        for text in raw_texts(tmp_path, corpus):
            if text in documents:
                continue
            documents.add(text)
            if corpus == "second":
                lines = [line for line in text.split("\n") if len(line) < 40 or line not in paragraphs]
                paragraphs.update(text.split("\n"))
                text = "\n".join(lines).strip()
            if text:
                left.append(text)
    return result


def contents(output: str) -> dict[str, bytes]:
    return {str(p.relative_to(output)): p.read_bytes() for p in Path(output).rglob("*") if p.is_file()}


def test_copies_go_within_and_across_corpora(tmp_path: Path) -> None:
    config = corpora(tmp_path)
    manifest = prepare(config)
    should = expected(tmp_path)
    for name, texts in should.items():
        assert sorted(kept_texts(config, name)) == sorted(texts)
        read = len(raw_texts(tmp_path, name))
        corpus = manifest.corpora[name]
        assert (corpus.documents_in, corpus.documents_kept) == (read, len(texts))
        assert sum(corpus.dropped.values()) == read - len(texts)
    assert len(raw_texts(tmp_path, "first")) - len(should["first"]) == 20  # ten of the file before, twice
    assert set(manifest.corpora["second"].dropped) == {"duplicate", "duplicate_paragraphs"}
    dropped = (Path(config.output) / "text/second/dropped.jsonl").read_text().splitlines()
    assert {json.loads(line)["rule"] for line in dropped} == {"duplicate", "duplicate_paragraphs"}


@pytest.mark.slow
def test_near_copies_go_and_the_rest_is_a_subset(tmp_path: Path) -> None:
    config = corpora(tmp_path, near=True)
    manifest = prepare(config)
    assert manifest.corpora["second"].dropped["near_duplicate"] > 0
    assert "near_duplicate" not in manifest.corpora["first"].dropped
    assert not [text for text in kept_texts(config, "second") if "changed" in text and _original_first(config, text)]


def _original_first(config: PrepareConfig, text: str) -> bool:
    """Whether the first corpus holds the text but for one word, and the text is long enough to tell."""
    words = text.split()
    place = words.index("changed")
    return len(words) > 60 and any(
        other.split()[:place] == words[:place] and other.split()[place + 1 :] == words[place + 1 :]
        for other in kept_texts(config, "first")
    )


@pytest.mark.slow
def test_workers_change_no_byte_and_tasks_no_token(tmp_path: Path) -> None:
    config = corpora(tmp_path, near=True)
    manifest = prepare(config)
    made = contents(config.output)
    alone = corpora(tmp_path, "alone", near=True)
    alone.executor.workers = 1
    prepare(alone)
    assert contents(alone.output) == made
    other = corpora(tmp_path, "other", near=True)
    other.executor.tasks = 2
    assert prepare(other).digest == manifest.digest


@pytest.mark.slow
def test_only_corpora_that_lose_something_else_are_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(corpora(tmp_path))
    extra = random_documents(20, seed=6)
    write_jsonl(tmp_path / "raw/second-9.jsonl", extra)
    capsys.readouterr()
    config = corpora(tmp_path)
    manifest = prepare(config)
    said = capsys.readouterr().err.splitlines()
    assert {"first documents: sound, kept", "first text: sound, kept"} <= set(said)
    assert "duplicates: its inputs or settings have changed; made again" in said
    assert manifest.corpora["second"].documents_in == len(raw_texts(tmp_path, "second"))


@pytest.mark.slow
def test_order_of_corpora_says_which_copy_stays(tmp_path: Path) -> None:
    config = corpora(tmp_path)
    config.corpora = dict(reversed(config.corpora.items()))
    for corpus in config.corpora.values():
        corpus.deduplicate_paragraphs = False
    prepare(config)
    seen: set[str] = set()
    for name in ("second", "first"):
        fresh = [text for text in raw_texts(tmp_path, name) if not (text in seen or seen.add(text))]
        assert sorted(kept_texts(config, name)) == sorted(fresh)


@pytest.mark.slow
def test_what_is_too_short_without_its_paragraphs_goes(tmp_path: Path) -> None:
    config = corpora(tmp_path)
    for corpus in config.corpora.values():
        corpus.minimum_characters = 300
    manifest = prepare(config)
    assert all(len(text) >= 300 for name in config.corpora for text in kept_texts(config, name))
    assert manifest.corpora["second"].dropped["minimum_characters"] > 0


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = corpora(tmp_path, near=True)
    config.executor.workers = 1

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(KeepFirstOfClusters, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    assert not (Path(config.output) / "duplicates").exists()
    signatures = Path(config.output).glob(".duplicates.work/*/near/signatures/bucket_000/*")
    before = {path: path.stat().st_mtime_ns for path in signatures}
    times = dict(before)

    def remember(self: KeepFirstOfClusters, *arguments: object) -> Iterator[object]:
        times.update({path: path.stat().st_mtime_ns for path in before})
        return run(self, *arguments)

    run = KeepFirstOfClusters.run
    with monkeypatch.context() as patch:
        patch.setattr(KeepFirstOfClusters, "run", remember)
        resumed = prepare(config)
    assert before
    assert times == before  # what was signed was not signed again
    undisturbed = corpora(tmp_path, "undisturbed", near=True)
    assert prepare(undisturbed).digest == resumed.digest


@pytest.mark.slow
def test_nothing_asked_for_keeps_every_copy(tmp_path: Path) -> None:
    config = corpora(tmp_path, exact=False)
    config.corpora["second"].deduplicate_paragraphs = False
    manifest = prepare(config)
    assert not (Path(config.output) / "duplicates").exists()
    assert all(corpus.documents_in == corpus.documents_kept for corpus in manifest.corpora.values())
