"""The report's numbers, counted again from raw files and shards by other means."""

import dataclasses
import io
import json
import re
import shutil
import tarfile
import types
import typing
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framework.config import ExecutorConfig, PrepareConfig
from framework.corpus.pipeline import prepare
from framework.corpus.report import schema
from framework.corpus.report.mixture import mixture_of
from framework.corpus.report.observe import ObserveDocuments
from framework.errors import UserError
from tests.corpus.conftest import Prepared
from tests.corpus.report.conftest import TASKS, hostile_config


def report_in(output: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    return report


def shard_documents(output: Path, corpus: str, split: str = "*") -> list[tuple[str, dict[str, Any]]]:
    found = []
    for path in sorted((output / "text" / corpus).glob(f"{split}-*.tar")):
        with tarfile.open(path) as shard:
            members = {member.name: shard.extractfile(member).read() for member in shard}  # type: ignore[union-attr]
        for name in members:
            if name.endswith(".txt"):
                found.append((members[name].decode(), json.loads(members[f"{name[:-4]}.json"])))
    return found


def token_count(output: Path, corpus: str, split: str) -> int:
    count = 0
    for path in (output / "tokens" / corpus).glob(f"{split}-*.tar"):
        with tarfile.open(path) as shard:
            for member in shard:
                if member.name.endswith(".tokens.npy"):
                    count += len(np.load(io.BytesIO(shard.extractfile(member).read())))  # type: ignore[union-attr]
    return count


def raw_documents(config: PrepareConfig) -> list[dict[str, Any]]:
    paths = sorted(Path(config.output).parent.glob("raw/*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_what_was_read_is_what_the_files_hold(hostile: Prepared) -> None:
    corpus = report_in(hostile.output)["corpora"]["letters"]
    raw = raw_documents(hostile.config)
    assert corpus["documents"]["found"] == corpus["documents"]["read"] == len(raw) == corpus["funnel"][0]["documents"]
    assert corpus["characters"]["read"] == sum(len(document["text"]) for document in raw)
    assert corpus["bytes"]["read"] == sum(len(document["text"].encode("utf-8", "surrogatepass")) for document in raw)
    assert (corpus["raw_files"], corpus["raw_bytes"]) == (
        TASKS,
        sum(path.stat().st_size for path in (hostile.output.parent / "raw").iterdir()),
    )
    for found in corpus["lengths"]:
        inside = [found["start"] <= len(document["text"]) < found["end"] for document in raw]
        assert found["read"] == sum(inside), found
    assert sum(found["read"] for found in corpus["lengths"]) == len(raw)
    hosts = Counter(str(document.get("url", "")).partition("://")[2].partition("/")[0].rstrip(".") for document in raw)
    assert {host["host"]: host["read"] for host in corpus["domains"]["top"]} == {
        host: count for host, count in hosts.items() if "." in host and "<" not in host
    }


@pytest.mark.parametrize("name", ["letters", "plain"])
def test_what_was_kept_is_what_the_shards_hold(hostile: Prepared, name: str) -> None:
    corpus = report_in(hostile.output)["corpora"][name]
    kept = shard_documents(hostile.output, name)
    texts = [text for text, _ in kept]
    assert corpus["documents"]["kept"] == len(kept)
    assert corpus["characters"]["kept"] == sum(map(len, texts))
    assert corpus["bytes"]["kept"] == sum(len(text.encode()) for text in texts)
    for split in ("train", "validation"):
        assert corpus["documents"][split] == len(shard_documents(hostile.output, name, split))
        assert corpus["tokens"][split] == token_count(hostile.output, name, split)
    assert corpus["tokens"]["kept"] == corpus["tokens"]["train"] + corpus["tokens"]["validation"]
    trained = [text for text, _ in shard_documents(hostile.output, name, "train")]
    learned = corpus["tokens"]["train"] - len(trained)
    words = sum(len([word for word in re.split(r"[ \t\n]+", text) if word]) for text in trained)
    assert corpus["tokens_per_word"] == pytest.approx(learned / words, abs=1e-4)
    size = sum(len(text.encode()) for text in trained)
    assert corpus["bytes_per_token"] == pytest.approx(size / learned, abs=1e-4)
    for found in corpus["lengths"]:
        assert found["kept"] == sum(found["start"] <= len(text) < found["end"] for text in texts), found
    languages = Counter(about["language"] for _, about in kept)
    assert corpus["languages"]["kept"] == dict(languages) == {"en": len(kept)}
    by_id = {about["id"]: (text, about) for text, about in kept}
    assert len(corpus["samples"]["kept"]) == 10
    for sample in corpus["samples"]["kept"]:
        text, about = by_id[sample["id"]]
        assert (sample["text"], sample["characters"], sample["title"]) == (text[:600], len(text), about["title"])


def test_languages_are_those_of_the_filter_or_of_the_configuration(hostile: Prepared) -> None:
    corpora = report_in(hostile.output)["corpora"]
    step = next(step for step in corpora["letters"]["funnel"] if step["step"] == "language")
    languages = corpora["letters"]["languages"]
    assert languages["found_by"] == "filter"
    assert languages["read"] == {"en": step["left"], "de": 5 * TASKS}
    assert step["dropped"] == {"language": 5 * TASKS}
    found = corpora["plain"]["documents"]["found"]
    assert corpora["plain"]["languages"]["found_by"] == "configuration"
    assert corpora["plain"]["languages"]["read"] == {"en": found}


@pytest.mark.parametrize("fixture", ["hostile", "samples"])
def test_the_funnel_adds_up_at_every_step(fixture: str, request: pytest.FixtureRequest) -> None:
    prepared: Prepared = request.getfixturevalue(fixture)
    manifest = json.loads((prepared.output / "tokens/manifest.json").read_text())
    for name, corpus in report_in(prepared.output)["corpora"].items():
        left = corpus["documents"]["found"]
        dropped: Counter[str] = Counter()
        for step in corpus["funnel"]:
            assert step["documents"] == left, (name, step)
            left -= sum(step["dropped"].values())
            assert step["left"] == left
            dropped.update(step["dropped"])
        assert left == corpus["documents"]["kept"] == manifest["corpora"][name]["documents_kept"]
        assert dropped == manifest["corpora"][name]["dropped"]
        assert corpus["documents"]["read"] == corpus["funnel"][0]["left"]
        assert sum(found["kept"] for found in corpus["lengths"]) == left


def test_what_was_dropped_can_be_read(hostile: Prepared) -> None:
    corpus = report_in(hostile.output)["corpora"]["letters"]
    dropped = {rule: count for step in corpus["funnel"] for rule, count in step["dropped"].items()}
    assert dropped["duplicate"] == corpus["duplicates"]["duplicate"] == TASKS - 1
    assert dropped["contaminated"] == corpus["contaminated"] == TASKS
    assert set(dropped) - {"duplicate"} <= set(corpus["samples"]["dropped"])
    for rule, samples in corpus["samples"]["dropped"].items():
        assert len(samples) == min(3, dropped[rule])
    assert {sample["language"] for sample in corpus["samples"]["dropped"]["language"]} == {"de"}
    assert all("seven grey horses" in sample["note"] for sample in corpus["samples"]["dropped"]["contaminated"])


def contents(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in ("report.html", "report.json")}


@pytest.mark.parametrize(("workers", "tasks"), [(2, TASKS), (1, 2)])
def test_workers_and_tasks_change_no_byte(hostile: Prepared, tmp_path: Path, workers: int, tasks: int) -> None:
    config = hostile_config(tmp_path, ExecutorConfig(workers=workers, tasks=tasks), "elsewhere")
    prepare(config)
    assert contents(Path(config.output)) == contents(hostile.output)
    before = contents(Path(config.output))
    prepare(config)  # which keeps everything
    assert contents(Path(config.output)) == before


def test_a_file_of_statistics_that_was_taken_away_is_told(
    small: PrepareConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered = ObserveDocuments.gathered

    def without(self: ObserveDocuments, tasks: int) -> Any:
        shutil.rmtree(self._folder)
        return gathered(self, tasks)

    monkeypatch.setattr(ObserveDocuments, "gathered", without)
    with pytest.raises(UserError, match=r"output: .*00000\.json is missing or damaged; remove .* and start"):
        prepare(small)


def check(value: Any, kind: Any, place: str) -> None:
    """That a value of JSON is what a type says, field by field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        assert value.keys() == hints.keys(), place
        for name in hints:
            check(value[name], hints[name], f"{place}.{name}")
            assert name in typing.cast(str, schema.__doc__), f"{place}.{name} is not described"
    elif origin is dict:
        for name, one in value.items():
            check(one, arguments[1], f"{place}[{name}]")
    elif origin is list:
        for number, one in enumerate(value):
            check(one, arguments[0], f"{place}[{number}]")
    elif origin is types.UnionType:
        assert value is None or isinstance(value, arguments[0]), place
    else:
        assert isinstance(value, (int, float) if kind is float else kind), place


@pytest.mark.parametrize("fixture", ["hostile", "samples"])
def test_the_file_has_the_fields_that_are_described(fixture: str, request: pytest.FixtureRequest) -> None:
    output = request.getfixturevalue(fixture).output
    report = report_in(output)
    assert report.pop("schema_version") == 1
    check(report, schema.Report, "report")
    assert (output / "report.json").read_bytes().isascii()


def test_epochs_follow_from_shares_and_tokens() -> None:
    mixture = mixture_of({"web": 60, "books": 20, "wiki": 20}, {"web": 300, "books": 400, "wiki": 100})
    assert [share.asked for share in mixture.corpora.values()] == pytest.approx([0.6, 0.2, 0.2])
    assert [share.available for share in mixture.corpora.values()] == pytest.approx([3 / 8, 4 / 8, 1 / 8])
    assert [(run.name, run.tokens) for run in mixture.passes] == [
        ("first_corpus_read", 500),
        ("as_many_as_there_are", 800),
        ("every_corpus_read", 2000),
    ]
    assert mixture.passes[0].epochs == {"web": 1.0, "books": 0.25, "wiki": 1.0}
    assert mixture.passes[2].epochs == {"web": 4.0, "books": 1.0, "wiki": 4.0}
    for run in mixture.passes:
        read = {name: run.epochs[name] * share.tokens for name, share in mixture.corpora.items()}
        assert sum(read.values()) == pytest.approx(run.tokens)
        assert [count / run.tokens for count in read.values()] == pytest.approx([0.6, 0.2, 0.2])
