"""Deduplication as datatrove runs it, beside brute force over all pairs."""

import itertools
import random
import resource
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import networkx
import numpy as np
import pytest
from datatrove.data import Document

from framework.corpus.deduplication import (
    Part,
    Plan,
    drop_documents,
    drop_paragraphs,
    first_tasks,
    plan_documents,
    plan_paragraphs,
)
from framework.corpus.deduplication.digests import DigestWriter
from framework.corpus.deduplication.minhash import MinhashBands, MinhashSignatures
from framework.corpus.deduplication.settings import DeduplicationSettings
from framework.corpus.filters.sample import DroppedSample, merge_samples
from framework.errors import UserError
from tests.corpus.filters.pipelines import SAMPLES, Collect, Deal, collected, dropped, execute, sample_documents

VOCABULARY = [a + b + c for a in "bdfgklmnprst" for b in ("a", "ei", "o", "u") for c in ("lin", "ter", "mond", "k")]
NEAR = DeduplicationSettings(near=True, partitions=2)
Corpora = dict[str, list[Document]]


def execute_plan(plan: Plan, corpora: Corpora, folder: Path, tasks: dict[str, int], workers: int) -> None:
    """Sign the documents of all corpora, and decide."""
    for name, documents in corpora.items():
        execute([Deal(documents), *plan.sign[name]], folder / f"log-sign-{name}", tasks[name], workers)
    for stage in plan.decide:
        execute(stage.steps, folder / f"log-{stage.name}", stage.tasks, workers)


def left(
    what: str,
    settings: DeduplicationSettings,
    corpora: Corpora,
    folder: Path,
    tasks: int | dict[str, int] = 1,
    workers: int = 1,
) -> Corpora:
    """What is left of each corpus, after a plan for `what` from end to end."""
    count = tasks if isinstance(tasks, dict) else dict.fromkeys(corpora, tasks)
    parts, work = [Part(name, count[name]) for name in corpora], folder / "work"
    plan = (
        plan_documents(settings, work, parts)
        if what == "documents"
        else plan_paragraphs(settings, work, parts, list(corpora))
    )
    execute_plan(plan, corpora, folder, count, workers)
    drop = {"documents": drop_documents, "paragraphs": drop_paragraphs}[what]
    for name, documents in corpora.items():
        sample = DroppedSample(str(folder / "dropped" / name), what, 20)
        dropping = drop(settings, work, first_tasks(parts)[name], sample)
        steps = [Deal(documents), *dropping, Collect(folder / "kept" / name)]
        counts = execute(steps, folder / f"log-drop-{name}", count[name], workers)
        kept = collected(folder / "kept" / name)
        assert len(kept) + sum(sum(dropped(step).values()) for step in counts) == len(documents)
    return {name: collected(folder / "kept" / name) for name in corpora}


def ids(corpora: Corpora) -> dict[str, list[str]]:
    return {name: [document.id for document in documents] for name, documents in corpora.items()}


def words(count: int, chance: random.Random) -> list[str]:
    return chance.choices(VOCABULARY, k=count)


def changed(text: list[str], replaced: int, chance: random.Random) -> list[str]:
    """The same words but for some of them."""
    text = list(text)
    for place in chance.sample(range(len(text)), replaced):
        text[place] = chance.choice(VOCABULARY)
    return text


def planted(seed: int = 1) -> Corpora:
    """Two corpora of random words with families of near-duplicates, dealt to both at random, and short texts."""
    chance = random.Random(seed)
    texts = [words(200, chance) for _ in range(60)]
    families = [text for text in texts[:20] for _ in range(chance.randint(1, 4))]
    texts += [changed(text, chance.choice([0, 0, 1]), chance) for text in families]
    texts += [words(3, chance) for _ in range(5)] * 2
    chance.shuffle(texts)
    documents = [Document(" ".join(text), str(number)) for number, text in enumerate(texts)]
    return {"first": documents[:90], "second": documents[90:]}


@cache
def ngrams(text: str, n: int = 5) -> frozenset[tuple[str, ...]]:
    return frozenset(zip(*(text.split()[i:] for i in range(n)), strict=False))


def jaccard(one: str, other: str) -> float:
    """Similarity of two texts' sets of word n-grams, by definition."""
    a, b = ngrams(one), ngrams(other)
    return len(a & b) / len(a | b) if a | b else 0.0


def first_of_clusters(corpora: Corpora, threshold: float) -> dict[str, list[str]]:
    """What stays if of every connected cluster only the first document does, by comparing all pairs."""
    documents = [document for part in corpora.values() for document in part]
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(documents)))
    for i, j in itertools.combinations(range(len(documents)), 2):
        same = documents[i].text == documents[j].text
        if same or jaccard(documents[i].text, documents[j].text) >= threshold:
            graph.add_edge(i, j)
    stay = {documents[min(cluster)].id for cluster in networkx.connected_components(graph)}
    return {name: [d.id for d in part if d.id in stay] for name, part in corpora.items()}


def test_planted_texts_are_near_or_far() -> None:
    documents = [document.text for part in planted().values() for document in part]
    similarities = [jaccard(a, b) for a, b in itertools.combinations(documents, 2)]
    assert not [s for s in similarities if 0.05 < s < 0.85]  # so any threshold between tells the same pairs
    assert len([s for s in similarities if 0.85 <= s < 1]) > 20


@pytest.mark.parametrize(("tasks", "workers"), [(1, 1), (3, 2), ({"first": 5, "second": 2}, 1)])
def test_documents_that_stay_are_those_of_brute_force(tasks: int, workers: int, tmp_path: Path) -> None:
    corpora = planted()
    kept = left("documents", NEAR, corpora, tmp_path, tasks, workers)
    assert ids(kept) == first_of_clusters(corpora, 0.5)
    sample = merge_samples(tmp_path / "dropped" / "first", 20)
    assert set(sample) == {"duplicate", "near_duplicate"}


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "workers"), [(1, 1), (7, 2)])
def test_exact_duplicates_alone(tasks: int, workers: int, tmp_path: Path) -> None:
    corpora = planted()
    kept = left("documents", DeduplicationSettings(partitions=3), corpora, tmp_path, tasks, workers)
    seen: set[str] = set()
    expected: dict[str, list[str]] = {}
    for name, documents in corpora.items():
        expected[name] = [d.id for d in documents if not (d.text in seen or seen.add(d.text))]
    assert ids(kept) == expected


def test_the_corpus_that_is_listed_first_keeps_its_documents(tmp_path: Path) -> None:
    corpora = planted()
    turned = {"second": corpora["second"], "first": corpora["first"]}
    kept = left("documents", NEAR, turned, tmp_path)
    assert ids(kept) == first_of_clusters(turned, 0.5)


def test_nothing_asked_for_is_nothing_done(tmp_path: Path) -> None:
    settings, parts = DeduplicationSettings(exact=False), [Part("a", 1), Part("b", 2)]
    assert plan_documents(settings, tmp_path, parts) == Plan({"a": [], "b": []}, [])
    assert plan_paragraphs(settings, tmp_path, parts, []) == Plan({"a": [], "b": []}, [])
    assert drop_documents(settings, tmp_path, 0) == []


def test_signatures_agree_as_often_as_texts_are_alike(tmp_path: Path) -> None:
    """The share of equal hashes estimates the Jaccard similarity (Broder 1997), whatever the length."""
    chance = random.Random(3)
    sign = MinhashSignatures(tmp_path, 0, DeduplicationSettings(bands=40, rows=10)).signature
    text = words(4000, chance)  # more than the n-grams that are hashed at a time
    for replaced in (0, 50, 150, 400, 1500):
        other = changed(text, replaced, chance)
        truth = jaccard(" ".join(text), " ".join(other))
        share = np.mean(sign(" ".join(text)) == sign(" ".join(other)))
        assert abs(share - truth) <= 4 * (truth * (1 - truth) / 400) ** 0.5
    assert sign("only four words here") is None


def test_open_files_are_asked_for_and_a_limit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "signatures/bucket_000"
    folder.mkdir(parents=True)
    for task in range(60):
        (folder / f"{task:05d}.minhash.sig").touch()
    bands = MinhashBands(tmp_path / "signatures", tmp_path / "pairs", DeduplicationSettings(bands=1))
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 200))
    bands.run(None, 0, 1)
    assert asked == [(160, 200)]
    assert (tmp_path / "pairs/00000_00.dups").read_bytes() == b""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 150))
    with pytest.raises(UserError, match=r"deduplication\.near: needs 160 open files, and the system allows 150; raise"):
        bands.run(None, 0, 1)


def peak(action: Callable[[], object]) -> int:
    """Bytes that an action holds at most."""
    tracemalloc.start()
    action()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_memory_of_a_long_text_is_that_of_its_words(tmp_path: Path) -> None:
    sign = MinhashSignatures(tmp_path, 0, DeduplicationSettings()).signature
    text = " ".join(words(100_000, random.Random(1)))
    assert peak(lambda: sign(text)) < 50_000_000  # all of its hashes at a time would be 90 MB, three times over


@pytest.mark.slow
def test_memory_of_digests_does_not_grow_with_their_number(tmp_path: Path) -> None:
    def write(count: int) -> None:
        with DigestWriter(tmp_path / str(count), 0, 4) as digests:
            for number in range(count):
                digests.add(f"text {number}", number)

    assert peak(lambda: write(280_000)) < 1.2 * peak(lambda: write(70_000))
    assert sum(path.stat().st_size for path in (tmp_path / "280000").rglob("00000")) >= 280_000 * 28


def test_near_duplicates_differ_in_case_marks_and_numbers(tmp_path: Path) -> None:
    text = " ".join(words(50, random.Random(1)))
    corpora = {"web": [Document(f"{text} 17 naive", "1"), Document(f"{text.upper()}, 18: naïve!", "2")]}
    assert ids(left("documents", NEAR, corpora, tmp_path)) == {"web": ["1"]}


@pytest.mark.parametrize(
    "name", ["webtext", *(pytest.param(n, marks=pytest.mark.slow) for n in SAMPLES if n != "webtext")]
)
def test_a_sample_met_twice_is_dropped_the_second_time(name: str, tmp_path: Path) -> None:
    documents = sample_documents(name, 60)
    once = left("documents", NEAR, {"a": documents}, tmp_path / "once")
    corpora = {"a": documents, "b": documents}
    twice = left("documents", NEAR, corpora, tmp_path / "twice", 3)
    assert ids(twice) == {"a": ids(once)["a"], "b": []}


# ----------------------------------------------------------------------------------- paragraphs


def pages(seed: int = 2) -> Corpora:
    """Pages of three hosts: sentences of their own, some that come again, and the banner of their host."""
    chance = random.Random(seed)
    common = [" ".join(words(12, chance)) for _ in range(8)]
    corpora: Corpora = {"crawl": [], "archive": []}
    for number in range(60):
        host = chance.choice(["a.example", "b.example", "c.example"])
        lines = [" ".join(words(12, chance)) for _ in range(3)] + chance.sample(common, 2) + ["Summary", ""]
        chance.shuffle(lines)
        lines = [f"Cookies  at {host}", *lines, common[0] if number % 7 == 0 else "Contact us"]
        page = Document("\n".join(lines), str(number), metadata={"url": f"http://{host}/{number}"})
        corpora[chance.choice(list(corpora))].append(page)
    corpora["archive"].append(Document("\n".join(common), "all before", metadata={"url": "http://d.example"}))
    corpora["archive"].append(Document(common[1], "no url"))
    return corpora


def without_repeated(corpora: Corpora, minimum: int, host_pages: int) -> Corpora:
    """The same by walking over all of the text with sets."""
    on_pages: Counter[tuple[str, str]] = Counter()
    for document in itertools.chain(*corpora.values()):
        if url := document.metadata.get("url"):
            on_pages.update({(url.split("/")[2], " ".join(line.split())) for line in document.text.split("\n")})
    seen: set[str] = set()
    result: Corpora = {}
    for name, documents in corpora.items():
        result[name] = []
        for document in documents:
            host = document.metadata.get("url", "//").split("/")[2]
            lines = []
            for line in document.text.split("\n"):
                same = " ".join(line.split())
                repeated = len(same) >= minimum and same in seen
                seen.add(same)
                if not repeated and not (same and host_pages and on_pages[host, same] >= host_pages):
                    lines.append(line)
            if text := "\n".join(lines).strip():
                result[name].append(Document(text, document.id, metadata=document.metadata))
    return result


@pytest.mark.parametrize("host_pages", [0, 4])
@pytest.mark.parametrize(("tasks", "workers"), [(1, 1), (4, 2)])
def test_paragraphs_that_stay_are_those_of_brute_force(
    host_pages: int, tasks: int, workers: int, tmp_path: Path
) -> None:
    settings = DeduplicationSettings(boilerplate_pages=host_pages, partitions=3)
    kept = left("paragraphs", settings, pages(), tmp_path, tasks, workers)
    assert kept == without_repeated(pages(), settings.paragraph_minimum_characters, host_pages)
    text = "\n".join(document.text for part in kept.values() for document in part)
    assert ("Cookies" in text, "Contact us" in text) == (not host_pages, not host_pages)
    assert text.count("Summary") == (0 if host_pages else 60)
    assert list(merge_samples(tmp_path / "dropped" / "archive", 5)) == ["duplicate_paragraphs"]


def test_other_documents_than_were_signed_are_noticed(tmp_path: Path) -> None:
    documents = [Document("the same", str(number)) for number in range(4)]
    settings = DeduplicationSettings(partitions=1)
    plan = plan_documents(settings, tmp_path, [Part("a", 1)])
    for step in plan.sign["a"]:
        assert list(step.run(documents)) == documents
    for stage in plan.decide:
        list(stage.steps[0].run())
    with pytest.raises(RuntimeError, match="document 3 was to be dropped, and there is none"):
        list(drop_documents(settings, tmp_path, 0)[0].run(documents[:3]))


def test_a_killed_attempt_leaves_nothing_behind(tmp_path: Path) -> None:
    documents = [Document("the same", str(number)) for number in range(4)]
    [sign] = plan_documents(DeduplicationSettings(partitions=1), tmp_path, [Part("a", 1)]).sign["a"]
    attempt = sign.run(documents)
    next(attempt)
    attempt.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    list(sign.run(documents))
    [digests] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert digests.stat().st_size == 4 * 28


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DeduplicationSettings(bands=0), r"deduplication\.bands: is 0; give 1 or more"),
        (DeduplicationSettings(boilerplate_pages=1), r"deduplication\.boilerplate_pages: is 1: all text would go"),
        (DeduplicationSettings(partitions=5000), r"deduplication\.partitions: is 5000; give 1024 at most"),
    ],
)
def test_mistakes_are_one_line(settings: DeduplicationSettings, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        plan_documents(settings, tmp_path, [Part("a", 1)])
