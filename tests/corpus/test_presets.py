"""The corpora of `configs/corpus/`, composed as the command line composes them."""

import gzip
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from framework.composition import _typed_defaults, from_yaml
from framework.config import PrepareConfig
from framework.corpus.pipeline import prepare
from tests.corpus.conftest import ROOT
from tests.corpus.texts import http, warc_record, wiki, wiki_page, write_jsonl

PRESETS = sorted(path.stem for path in (ROOT / "configs/corpus").glob("*.yaml"))


def composed(*overrides: str) -> PrepareConfig:
    ConfigStore.instance().store(name="prepare_schema", node=_typed_defaults(PrepareConfig))
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config: Any = from_yaml(OmegaConf.to_yaml(compose("prepare", list(overrides))), PrepareConfig)
    config.check()
    return config


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_composes_and_says_where_its_text_is_from(preset: str) -> None:
    config = composed(f"corpus={preset}")
    own = {"jsonl", "parquet", "huggingface", "webtext"}  # the user's data: nobody else can say
    for name, corpus in config.corpora.items():
        assert corpus.paths
        assert name in own or (corpus.source and corpus.licence), name


def test_gpt3_has_the_shares_of_the_paper() -> None:
    corpora = composed("corpus=gpt3").corpora
    total = sum(corpus.weight for corpus in corpora.values())
    shares = {name: round(100 * corpus.weight / total, 1) for name, corpus in corpora.items()}
    assert shares == {"web": 59.4, "webtext": 21.8, "books": 15.8, "wiki": 3.0}
    assert corpora["webtext"].minimum_score == 3
    assert corpora["web"].filters.c4.require_terminal_punctuation is False


SENTENCES = [
    "The rain of the north falls on the hills, and the people that live there have learned to love it.",
    "With the first light, the herds go down to the river that runs between the old stone walls.",
    "It is said that nobody has ever been able to count the bridges of the valley without a mistake.",
    "Some of the houses have two doors, and to this day the second one is opened for guests alone.",
]


def prose(number: int) -> str:
    """Text that passes every filter: sentences in an order of their own, and words that no other text has."""
    names = [f"{word}{'abcdefghij'[number % 10]}{'klmnopqrst'[number // 10]}" for word in ("Ar", "Bel", "Cor", "Dun")]
    lines = [f"In {name} {SENTENCES[(number + place) % 4]}" for place, name in enumerate(names)]
    return "\n\n".join(
        [*lines, f"That is all that there is to be told of {names[0]}, and with that the story is at an end."]
    )


def raw_files(raw: Path) -> None:
    """A small file for each corpus of the preset, where the preset looks for it."""
    bodies = [prose(number).replace("\n\n", "</p><p>") for number in range(40)]
    pages = [f"<html><body><article><h1>A page</h1><p>{body}</p></article></body></html>" for body in bodies]
    records = [warc_record("response", f"http://{n}.example/", http(text.encode())) for n, text in enumerate(pages)]
    (raw / "common_crawl").mkdir(parents=True)
    (raw / "common_crawl/part.warc.gz").write_bytes(gzip.compress(b"".join(records)))
    votes = [{"text": prose(number), "score": number % 5} for number in range(100)]
    write_jsonl(raw / "webtext/part.jsonl.gz", votes)
    book = "\n\n".join(f"CHAPTER {number + 1}\n\n{prose(number)}" for number in range(60))
    (raw / "gutenberg/1").mkdir(parents=True)
    (raw / "gutenberg/1/1.txt").write_text(f"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n{book}")
    (raw / "wikipedia").mkdir()
    articles = "".join(wiki_page(number, f"Page {number}", prose(number)) for number in range(1, 80))
    (raw / "wikipedia/dump.xml").write_text(wiki(articles))


def test_the_preset_prepares_four_kinds_of_raw_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw_files(tmp_path / "raw")
    config = composed("corpus=gpt3", "tokenizer.vocabulary_size=512", "validation_fraction=0.2")
    monkeypatch.chdir(tmp_path)
    corpora = prepare(config).corpora
    assert corpora["webtext"].dropped["minimum_score"] == 60
    kept = {name: corpus.documents_kept + corpus.dropped.get("duplicate", 0) for name, corpus in corpora.items()}
    assert (kept["wiki"], kept["books"]) == (79, 60)  # texts of other corpora among them, which stay there
    assert {name: corpus.weight for name, corpus in corpora.items()} == {
        "web": 60,
        "webtext": 22,
        "books": 16,
        "wiki": 3,
    }


def test_what_filters_drop_is_counted_by_rule_and_some_of_it_kept(tmp_path: Path) -> None:
    documents = [{"text": prose(number)} for number in range(60)] + [{"text": "buy now " * 200} for _ in range(30)]
    documents += [{"text": prose(number) + f" Write to a{number}@b.example."} for number in range(60, 90)]
    write_jsonl(tmp_path / "raw.jsonl", documents)
    settings = ["tokenizer.vocabulary_size=512", "validation_fraction=0.2", f"output={tmp_path}/data"]
    filters = "corpora.jsonl.filters.use=[gopher_repetition,personal_data]"
    config = composed("corpus=jsonl", f"corpora.jsonl.paths=[{tmp_path}/raw.jsonl]", filters, *settings)
    config.corpora["jsonl"].filters.dropped_sample = 4
    [(rule, count)] = prepare(config).corpora["jsonl"].dropped.items()
    assert rule.startswith("gopher_")
    assert count == 30
    samples = [
        yaml.safe_load(line) for line in (tmp_path / "data/documents/jsonl/dropped.jsonl").read_text().splitlines()
    ]
    assert [sample["rule"] for sample in samples] == [rule] * 4
    shards = b"".join(path.read_bytes() for path in (tmp_path / "data/text/jsonl").glob("*.tar"))
    assert shards.count(b"<EMAIL>") == 30
    assert b"b.example" not in shards
