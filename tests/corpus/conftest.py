from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from framework.config import CorpusConfig, PrepareConfig, ShardConfig, TokenizerConfig
from framework.corpus.pipeline import prepare
from tests.corpus.texts import random_documents, write_jsonl

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Prepared:
    config: PrepareConfig
    output: Path


def sample_corpora() -> dict[str, CorpusConfig]:
    """The corpora that `configs/corpus/sample_*.yaml` describe, read without Hydra."""
    corpora = {}
    for path in sorted((ROOT / "configs/corpus").glob("sample_*.yaml")):
        settings: dict[str, Any] = yaml.safe_load(path.read_text())
        settings["paths"] = [str(ROOT / pattern) for pattern in settings["paths"]]
        corpora[path.stem.removeprefix("sample_")] = CorpusConfig(**settings)
    return corpora


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The real samples, prepared once for all tests."""
    output = tmp_path_factory.mktemp("samples")
    config = PrepareConfig(output=str(output), corpora=sample_corpora())
    prepare(config)
    return Prepared(config, output)


@pytest.fixture
def small(tmp_path: Path) -> PrepareConfig:
    """Two small corpora of random words, not yet prepared."""
    write_jsonl(tmp_path / "raw/first.jsonl", random_documents(120, seed=1))
    write_jsonl(tmp_path / "raw/second.jsonl.gz", random_documents(80, seed=2))
    return PrepareConfig(
        output=str(tmp_path / "data"),
        corpora={
            "first": CorpusConfig(paths=[str(tmp_path / "raw/first.jsonl")], weight=3, source="here", licence="none"),
            "second": CorpusConfig(paths=[str(tmp_path / "raw/second*")], weight=1),
        },
        tokenizer=TokenizerConfig(vocabulary_size=600),
        shards=ShardConfig(bytes_per_shard=60_000, block_tokens=500, minimum_blocks=8),
        validation_fraction=0.1,
    )
