"""Documents that mean harm, prepared once with everything that drops, counts or masks."""

import json
from pathlib import Path

import pytest

from framework.config import CorpusConfig, ExecutorConfig, PrepareConfig, ShardConfig, TokenizerConfig
from framework.corpus.decontamination.settings import DecontaminationSettings, EvaluationSet
from framework.corpus.filters.settings import FilterSettings
from framework.corpus.pipeline import prepare
from tests.corpus.conftest import Prepared
from tests.corpus.texts import write_jsonl

TASKS = 4
SCRIPT = "<script src=//evil.example/x.js></script><img src=http://evil.example/i onerror=alert(1)>"
BREAKS = "</p></details></style><style>@import url(http://evil.example/s.css)</style><base href=//evil.example>"
ODD = "\x00\x01\x1b[31m\u202e \ufeff\ud800 \udfff\ufffe{{ 7 * 7 }}{% raw %}\" ' onload=x & &amp; &#60;"
ENGLISH = (
    "The people of the town said that they would have the bridge mended with stone, and that it was to be done "
    "before the winter came. Number {0} of them wrote a letter to the {0} members of the council. "
)
GERMAN = (
    "Die Leute der Stadt sagten, dass sie die Brücke mit Steinen ausbessern wollten, und zwar noch vor dem Winter. "
    "Nummer {0} von ihnen schrieb einen Brief an die {0} Mitglieder des Rates, der ihn nicht beantwortete. "
)
QUESTION = "which of the seven grey horses ran past the old mill before the bell had rung twice that night"


def documents(file: int) -> list[dict[str, object]]:
    """Of one raw file: 40 that stay, and some for every way to go."""
    made: list[dict[str, object]] = []
    for number in range(file * 40, file * 40 + 40):
        text = "\n".join(ENGLISH.format(number * 7 + line) for line in range(1 + number % 9))
        if number % 5 == 0:
            text += f"Write to person{number}@mail.example. {SCRIPT} {BREAKS} {ODD}"
        made.append(
            {
                "id": f"{number}{SCRIPT}{ODD}" if number % 3 == 0 else str(number),
                "title": BREAKS + ODD if number % 4 == 0 else f"Letter {number}",
                "url": f"https://site{number % 7}.example/<script>{number}" if number % 2 else f"http://[{SCRIPT}",
                "text": text,
            }
        )
    made += [{"id": f"german {file}-{n}", "text": GERMAN.format(n) * 3, "url": "http://x.de."} for n in range(5)]
    made += [{"id": f"short {file}-{n}", "text": f"{n} {SCRIPT[:9]}"} for n in range(3)]
    made += [{"id": f"again {file}", "text": ENGLISH.format("0") * 3}, {"id": f"none {file}", "text": "\x00 \u2028"}]
    made.append({"id": f"leak {file}", "text": ENGLISH.format(file) + QUESTION + ENGLISH.format("9")})
    return made


def hostile_config(directory: Path, executor: ExecutorConfig, name: str = "data") -> PrepareConfig:
    for file in range(TASKS):
        write_jsonl(directory / f"raw/{file}.jsonl", documents(file))
    (directory / f"quiz{name}").mkdir(exist_ok=True)
    quiz = directory / f"quiz{name}/quiz{SCRIPT[:8]}.jsonl"
    quiz.write_text(json.dumps({"question": QUESTION}) + "\n")
    corpora = {
        "letters": CorpusConfig(
            paths=[f"{directory}/raw/*"],
            weight=3,
            source=f"here {SCRIPT}{ODD}".replace("\ud800", "").replace("\udfff", "").replace("\x00", ""),
            licence=BREAKS,
            minimum_characters=60,
            filters=FilterSettings(use=["language", "gopher_quality", "personal_data"], dropped_sample=3),
        ),
        "plain": CorpusConfig(paths=[f"{directory}/raw/1.jsonl"], weight=1, minimum_characters=20),
    }
    return PrepareConfig(
        output=str(directory / name),
        corpora=corpora,
        tokenizer=TokenizerConfig(vocabulary_size=520),
        shards=ShardConfig(bytes_per_shard=30_000, block_tokens=500, minimum_blocks=8),
        executor=executor,
        decontamination=DecontaminationSettings(evaluation=[EvaluationSet(str(quiz), "question")]),
        validation_fraction=0.1,
    )


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    directory = tmp_path_factory.mktemp("hostile")
    config = hostile_config(directory, ExecutorConfig(workers=1, tasks=TASKS))
    prepare(config)
    return Prepared(config, Path(config.output))
