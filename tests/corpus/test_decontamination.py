"""Decontamination as datatrove runs it, beside brute force over all n-grams."""

import gzip
import json
import random
from pathlib import Path

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from framework.corpus.decontamination import decontamination_steps
from framework.corpus.decontamination.index import hash_ngrams, hash_words, normalised_words, read_texts
from framework.corpus.decontamination.settings import DecontaminationSettings, EvaluationSet
from framework.errors import UserError
from tests.corpus.filters.pipelines import SAMPLES, dropped, sample_documents, survivors

WORDS = [a + b for a in ("la", "men", "tor", "vi", "qua", "ser") for b in ("si", "ra", "no", "lux", "ped")]


def sentence(count: int, chance: random.Random) -> list[str]:
    return chance.choices(WORDS, k=count)


def write_evaluation(folder: Path, texts: list[str]) -> DecontaminationSettings:
    """Half of the texts in a .txt, the others in a compressed .jsonl, in two fields."""
    folder.mkdir(exist_ok=True)
    (folder / "exam.txt").write_text("\n\n".join(text.replace(" ", "\n", 3) for text in texts[::2]))
    lines = [json.dumps({"question": text, "choices": [text[:20], "no"]}) for text in texts[1::2]]
    (folder / "quiz.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    sets = [("exam.txt", "text"), ("quiz.jsonl*", "question"), ("quiz.jsonl.gz", "question")]
    return DecontaminationSettings([EvaluationSet(str(folder / path), field) for path, field in sets])


def shared(document: list[str], evaluation: list[list[str]], n: int, minimum: int) -> bool:
    """Whether a document has an n-gram of an evaluation text, or all of a shorter one, by comparing lists."""
    for text in evaluation:
        length = min(n, len(text))
        grams = [text[i : i + length] for i in range(len(text) - length + 1)] if length >= minimum else []
        if any(document[i : i + length] in grams for i in range(len(document) - length + 1)):
            return True
    return False


@pytest.mark.parametrize(("tasks", "workers"), [(1, 1), (4, 2)])
def test_documents_that_stay_are_those_of_brute_force(tasks: int, workers: int, tmp_path: Path) -> None:
    chance = random.Random(5)
    evaluation = [sentence(chance.choice([5, 7, 8, 9, 12, 13, 14, 40]), chance) for _ in range(40)]
    texts = []
    for number in range(200):
        text = sentence(chance.randint(0, 60), chance)
        taken = chance.choice(evaluation)
        start, count = chance.randint(0, len(taken) // 2), chance.randint(5, 25)
        place = chance.randint(0, len(text))
        texts.append(text[:place] + taken[start : start + count] + text[place:] if number % 2 else text)
    settings = write_evaluation(tmp_path / "sets", [" ".join(text) for text in evaluation])
    documents = [Document(" ".join(text).title().replace(" ", ", ", 9), str(i)) for i, text in enumerate(texts)]
    kept, [counts] = survivors(
        documents, decontamination_steps(settings, str(tmp_path / "report")), tmp_path, tasks, workers
    )
    expected = [str(i) for i, text in enumerate(texts) if not shared(text, evaluation, 13, 8)]
    assert [document.id for document in kept] == expected
    assert dropped(counts) == {"contaminated": 200 - len(expected)}
    assert 100 < len(expected) < 185

    lines = [line for path in sorted((tmp_path / "report").iterdir()) for line in path.read_text().splitlines()]
    report = {record["id"]: record for record in map(json.loads, lines)}
    assert sorted(report.keys() | set(expected), key=int) == [document.id for document in documents]
    for key, record in report.items():
        ngram, path = record["ngram"], Path(record["file"])
        assert ngram in " ".join(texts[int(key)])
        assert any(ngram in " ".join(text) for text in evaluation[path.name == "quiz.jsonl.gz" :: 2])
    files = {record["file"] for record in report.values()}
    assert {Path(file).name for file in files} == {"exam.txt", "quiz.jsonl.gz"}


def test_a_passage_of_a_sample_is_found_in_it_and_in_no_other(tmp_path: Path) -> None:
    samples = {name: sample_documents(name, 40) for name in SAMPLES}
    for name, documents in samples.items():
        chosen = max(documents, key=lambda document: len(document.text))
        words = chosen.text.split()
        path = tmp_path / f"{name}.txt"
        path.write_text(" ".join(words[len(words) // 2 :][:60]))
        [step] = decontamination_steps(DecontaminationSettings([EvaluationSet(str(path))]))
        kept = {document.id for other in samples.values() for document in step.run(other)}
        assert {document.id for other in samples.values() for document in other} - kept == {chosen.id}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't PANIC -- it's 3.14!", ["don", "t", "panic", "it", "s", "3", "14"]),
        ("Straße, ﬁne: Ⅳ", ["strasse", "fine", "iv"]),
        ("e\u0301te\u0301 = \u00e9t\u00e9", ["\u00e9t\u00e9", "\u00e9t\u00e9"]),
        ("漢字かな mixed ภาษา", ["漢", "字", "か", "な", "mixed", "ภ", "า", "ษ", "า"]),
        ("snake_case\ta-b", ["snake", "case", "a", "b"]),
        (" ... ", []),
    ],
)
def test_normalisation(text: str, words: list[str]) -> None:
    assert normalised_words(text) == words


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 6))
def test_hashes_agree_exactly_where_ngrams_do(words: list[str], length: int) -> None:
    hashes = hash_ngrams(hash_words(words), length)
    ngrams = [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
    assert hashes.shape == (len(ngrams),)
    for i, one in enumerate(ngrams):
        assert (hashes == hashes[i]).tolist() == [one == other for other in ngrams]


def test_no_evaluation_set_is_no_step() -> None:
    assert decontamination_steps(DecontaminationSettings()) == []


def test_texts_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\n \nthree\n")
    assert list(read_texts(str(tmp_path / "a.txt"), "")) == ["one\ntwo", "three"]
    (tmp_path / "a.jsonl").write_text('{"q": "one"}\n\n{"q": ["two", "three"]}\n')
    assert list(read_texts(str(tmp_path / "a.jsonl"), "q")) == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": 3}\n', r"a\.jsonl line 2: field `text` is neither a string nor a list"),
        ("a.jsonl", '{"question": "x"}', r"a\.jsonl line 1: has no field `text`; name the right one"),
        ("a.jsonl", "{", r"a\.jsonl line 1: is no JSON"),
        ("a.csv", "x", r"a\.csv: is neither \.txt nor \.jsonl"),
        ("a.txt", "only a few words", r"a\.txt: has no text of 8 words"),
        ("b.txt", "x", r"evaluation\[0\]\.path: '.*a\.txt' matches no file"),
    ],
)
def test_mistakes_are_one_line(file: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content)
    path = tmp_path / file.replace("b.", "a.")
    with pytest.raises(UserError, match=message) as raised:
        decontamination_steps(DecontaminationSettings([EvaluationSet(str(path))]))
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"decontamination\.minimum_words: is 14"):
        decontamination_steps(DecontaminationSettings(minimum_words=14))
