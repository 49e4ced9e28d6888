"""The filters as one pipeline, run by datatrove on the samples that ship."""

import random
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from framework.corpus.filters import quality_steps
from framework.corpus.filters.rules import RULES
from framework.corpus.filters.sample import CHARACTERS, DroppedSample, merge_samples
from framework.corpus.filters.settings import (
    FILTERS,
    BlocklistSettings,
    FilterSettings,
    GopherQualitySettings,
    LanguageSettings,
    PersonalDataSettings,
)
from framework.errors import UserError
from tests.corpus.filters.pipelines import SAMPLES, dropped, sample_documents, survivors
from tests.launch import ENVIRONMENT

EVERYTHING = [name for name in FILTERS if name != "blocklist"]
STEPS = quality_steps(FilterSettings(use=EVERYTHING))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_same_is_kept_and_dropped_in_any_layout(name: str, tmp_path: Path) -> None:
    documents = sample_documents(name, 150)
    settings = FilterSettings(use=EVERYTHING, dropped_sample=3)
    outcomes = []
    for tasks, workers in ((1, 1), (5, 2)):
        folder = tmp_path / f"{tasks}-{workers}"
        kept, stats = survivors(documents, quality_steps(settings, str(folder / "dropped")), folder, tasks, workers)
        counts = {rule: number for step in stats for rule, number in dropped(step).items()}
        outcomes.append((kept, counts, merge_samples(folder / "dropped", 3)))
    assert outcomes[0] == outcomes[1]
    kept, counts, samples = outcomes[0]
    assert len(kept) + sum(counts.values()) == len(documents)
    assert set(counts) <= set(RULES)
    assert {rule: min(3, number) for rule, number in counts.items()} == {r: len(s) for r, s in samples.items()}


def test_novels_are_kept(tmp_path: Path) -> None:
    kept, _ = survivors(sample_documents("books", 100), quality_steps(FilterSettings(use=EVERYTHING)), tmp_path)
    assert len(kept) >= 24  # the chapters of Persuasion; the title page has no sentence


def test_filters_run_in_the_order_of_their_names() -> None:
    names = ["fineweb", "personal_data", "language", "gopher_quality"]
    steps = quality_steps(FilterSettings(use=names))
    assert [step.name for step in steps] == names


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_has_a_verdict(text: str) -> None:
    for step in STEPS:
        before = step.stats.to_dict()["stats"].get("total", 0)
        assert len(list(step.run([Document(text, "1")]))) <= 1
        assert step.stats.to_dict()["stats"]["total"] != before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (FilterSettings(use=["perplexity"]), r"filters\.use: unknown filter 'perplexity'; choose among blocklist, "),
        (FilterSettings(use=["c4", "c4"]), r"filters\.use: has 'c4' twice"),
        (FilterSettings(use=["blocklist"]), r"filters\.blocklist\.path: is empty"),
        (FilterSettings(use=["blocklist"], blocklist=BlocklistSettings("none")), r"blocklist\.path: none"),
        (FilterSettings(use=["language"], language=LanguageSettings([])), r"filters\.language\.languages: names none"),
        (FilterSettings(use=["language"], language=LanguageSettings(["en"], 65)), r"minimum_probability: is 65"),
        (FilterSettings(use=["gopher_quality"], gopher_quality=GopherQualitySettings(stop_words=[])), "stop_words"),
        (FilterSettings(use=["personal_data"], personal_data=PersonalDataSettings(phone_regions=["usa"])), "'usa'"),
    ],
)
def test_mistakes_are_one_line(settings: FilterSettings, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        quality_steps(settings)
    assert "\n" not in str(raised.value)


def test_a_sample_is_the_same_for_any_tasks(tmp_path: Path) -> None:
    documents = [
        Document("word " * 1000, str(number), metadata={"filter_reason": f"rule{number % 3}", "url": "here"})
        for number in range(300)
    ]
    merged = []
    for tasks in (1, 4, 60):
        random.Random(tasks).shuffle(documents)
        for task in range(tasks):
            with DroppedSample(str(tmp_path / str(tasks)), "some", 7) as sample:
                for document in documents[task::tasks]:
                    sample.write(document, task)
        merged.append(merge_samples(tmp_path / str(tasks), 7))
    assert merged[0] == merged[1] == merged[2]
    assert {rule: len(records) for rule, records in merged[0].items()} == {"rule0": 7, "rule1": 7, "rule2": 7}
    assert max(record["draw"] for record in merged[0]["rule0"]) < 2**62  # the 7 smallest of 100
    record = merged[0]["rule1"][0]
    assert (len(record["text"]), record["characters"], record["metadata"]) == (CHARACTERS, 5000, {"url": "here"})


def test_a_task_that_failed_leaves_no_sample(tmp_path: Path) -> None:
    sample = DroppedSample(str(tmp_path), "some", 7)
    dropped_and_broken = [Document("text", "1", metadata={"filter_reason": "rule"}), Document("text", "2")]
    with pytest.raises(KeyError), sample:
        deque(map(sample.write, dropped_and_broken))
    assert not list(tmp_path.iterdir())


def test_settings_need_nothing_heavy() -> None:
    program = "import sys, framework.corpus.filters.settings; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in done.stdout.split()} & {"datatrove", "numpy", "regex", "xxhash"}
