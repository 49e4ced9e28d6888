"""Preparation as a whole: the same bytes again, kept where it is sound, done again where it is not."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from framework.config import PrepareConfig
from framework.corpus import pipeline
from framework.corpus.decontamination.settings import EvaluationSet
from framework.corpus.pipeline import prepare
from framework.corpus.shards import read_texts
from framework.errors import UserError
from tests.corpus.conftest import ROOT
from tests.corpus.texts import random_documents, write_jsonl
from tests.model import small_tokenizer


def contents(output: str) -> dict[str, bytes]:
    return {str(p.relative_to(output)): p.read_bytes() for p in Path(output).rglob("*") if p.is_file()}


STAGES = [
    *("first documents", "second documents", "duplicates", "first text", "second text"),
    *("tokenizer", "first tokens", "second tokens"),
]


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("manifest: ", "report: "))]


def test_the_same_inputs_give_the_same_bytes_anywhere(small: PrepareConfig, tmp_path: Path) -> None:
    first = prepare(small)
    small.output = str(tmp_path / "elsewhere")
    second = prepare(small)
    assert first.digest == second.digest
    assert contents(str(tmp_path / "data")) == contents(small.output)
    assert len(first.corpora["first"].train.shards) > 1
    assert str(tmp_path).encode() not in b"".join(contents(small.output).values())


def test_a_second_run_keeps_everything(small: PrepareConfig, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(small)
    shards = {path: path.stat() for path in Path(small.output).rglob("*.tar")}
    capsys.readouterr()
    prepare(small)
    assert said(capsys) == [f"{label}: sound, kept" for label in STAGES]
    assert all(path.stat() == before for path, before in shards.items())


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_output_is_made_again_and_nothing_else(
    small: PrepareConfig, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    prepare(small)
    before = contents(small.output)
    shard = Path(small.output) / "tokens/second/train-00000.tar"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    if damage == "remove":
        shard.unlink()
    else:
        shard.write_bytes(content if damage == "flip" else content[:-512])
    capsys.readouterr()
    prepare(small)
    reason = "missing" if damage == "remove" else "damaged"
    lines = said(capsys)
    assert f"second tokens: train-00000.tar is {reason}; made again" in lines
    assert sum("kept" in line for line in lines) == len(STAGES) - 1
    assert contents(small.output) == before


def test_a_damaged_stamp_is_no_proof(small: PrepareConfig, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(small)
    (Path(small.output) / "tokenizer/stage.json").write_text('{"inputs"')
    capsys.readouterr()
    prepare(small)
    lines = said(capsys)
    assert "tokenizer: has no readable stamp; made again" in lines
    assert "first tokens: sound, kept" in lines  # the tokenizer came out the same


def test_changed_input_is_read_again_with_all_that_follows(
    small: PrepareConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(small)
    write_jsonl(tmp_path / "raw/second.jsonl.gz", random_documents(90, seed=3))
    capsys.readouterr()
    prepare(small)
    lines = said(capsys)
    for label in ("first documents", "first text"):
        assert f"{label}: sound, kept" in lines
    for label in ("second documents", "duplicates", "second text", "tokenizer", "first tokens", "second tokens"):
        assert f"{label}: its inputs or settings have changed; made again" in lines


def test_weights_reach_the_manifest_without_reading_anything_again(
    small: PrepareConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(small)
    small.corpora["second"].weight = 9
    capsys.readouterr()
    prepare(small)
    assert sum("sound, kept" in line for line in said(capsys)) == len(STAGES)
    manifest = json.loads((Path(small.output) / "tokens/manifest.json").read_text())
    assert [corpus["weight"] for corpus in manifest["corpora"].values()] == [3, 9]


def test_weights_share_out_a_sample_that_has_not_room_for_all_text(small: PrepareConfig) -> None:
    small.tokenizer.sample_bytes = 60_000
    prepare(small)
    before = (Path(small.output) / "tokenizer/tokenizer.model").read_bytes()
    small.corpora["second"].weight = 9
    prepare(small)
    assert (Path(small.output) / "tokenizer/tokenizer.model").read_bytes() != before


def test_an_interrupted_run_leaves_no_manifest_and_no_report_of_what_is_gone(
    small: PrepareConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(small)
    old_shard = (Path(small.output) / "tokens/first/train-00000.tar").read_bytes()
    small.shards.block_tokens = 300

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_token_shards", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(small)
    for name in ("tokens/manifest.json", "report.html", "report.json"):
        assert not (Path(small.output) / name).exists()
    assert not list(Path(small.output).rglob(".*"))
    assert (Path(small.output) / "tokens/first/train-00000.tar").read_bytes() == old_shard
    assert prepare(small).corpora["first"].train.tokens > 0


def test_data_for_a_model_that_there_is_take_its_tokenizer(small: PrepareConfig, tmp_path: Path) -> None:
    """Other texts in the same tokens: nothing is trained, and the next run keeps what this one took."""
    file = small_tokenizer.write(tmp_path / "model")
    small.tokenizer.path = str(file)
    first = prepare(small)
    manifest = json.loads((Path(small.output) / "tokens" / "manifest.json").read_text())
    assert manifest["tokenizer"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert manifest["tokenizer"]["vocabulary_size"] == 360
    assert manifest["tokenizer"]["reserved"] == small_tokenizer.RESERVED
    assert prepare(small) == first
    file.write_bytes(b"no model")
    with pytest.raises(UserError, match=r"^tokenizer\.path: .* is no SentencePiece model"):
        prepare(small)
    file.unlink()
    with pytest.raises(UserError, match=r"^tokenizer\.path: .*: No such file or directory"):
        prepare(small)


def test_leftovers_of_a_killed_run_are_cleared(small: PrepareConfig) -> None:
    leftover = Path(small.output) / "text/.first.partial/train-00000.tar"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    prepare(small)
    assert not leftover.parent.exists()


def test_the_table_accounts_for_every_document(small: PrepareConfig, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = prepare(small)
    captured = capsys.readouterr()
    corpus = manifest.corpora["first"]
    [row] = [line for line in captured.out.splitlines() if "first" in line]
    cells = row.split()
    size = corpus.train.bytes + corpus.validation.bytes
    texts = [text for path in Path(small.output).glob("text/first/train-*.tar") for text in read_texts(path)]
    tokens = corpus.train.tokens - len(texts)  # without the one that opens each document
    assert cells[:4] == ["first", "none", "120", "120"]
    assert cells[4:7] == [f"{n:,}" for n in (size, corpus.train.tokens, corpus.validation.tokens)]
    assert float(cells[7]) == pytest.approx(tokens / sum(len(text.split()) for text in texts), abs=5e-3)
    assert float(cells[8]) == pytest.approx(sum(len(text.encode()) for text in texts) / tokens, abs=5e-3)
    assert manifest.digest[:16] in captured.err
    assert "\x1b" not in captured.err + captured.out


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from framework.config import CorpusConfig, ExecutorConfig, PrepareConfig, TokenizerConfig\n"
        "from framework.corpus.pipeline import prepare\n"
        "tokenizer = TokenizerConfig(vocabulary_size=512, sample_bytes=1_000_000)\n"
        "corpora, executor = {'x': CorpusConfig(paths=[sys.argv[1]])}, ExecutorConfig(workers=1)\n"
        "prepare(PrepareConfig(output=sys.argv[2], corpora=corpora, tokenizer=tokenizer, executor=executor))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )

    def peak(documents: int) -> int:  # MiB
        raw, output = tmp_path / f"{documents}.jsonl", tmp_path / str(documents)
        body = " ".join(document["text"] for document in random_documents(40, seed=1))[:10_000]
        with raw.open("w") as file:
            file.writelines(json.dumps({"text": f"{number} {body}"}) + "\n" for number in range(documents))
        command = [sys.executable, "-c", program, str(raw), str(output)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return int(subprocess.run(command, capture_output=True, check=True, env=environment).stdout.split()[-1]) // 1024

    assert peak(4000) - peak(400) < 16  # 40 MB of text against 4 MB


def test_what_overlaps_an_evaluation_set_goes_and_is_reported(small: PrepareConfig, tmp_path: Path) -> None:
    texts = [json.loads(line)["text"] for line in (tmp_path / "raw/first.jsonl").read_text().splitlines()]
    leaked = max(texts, key=lambda text: len(text.split()))
    question = " ".join(leaked.split()[2:20])
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": f"Go on: {question}"}) + "\n")
    before = prepare(small)
    small.decontamination.evaluation = [EvaluationSet(str(tmp_path / "quiz.jsonl"), "question")]
    after = prepare(small)
    assert after.corpora["first"].dropped == before.corpora["first"].dropped | {"contaminated": texts.count(leaked)}
    assert after.corpora["second"].dropped == before.corpora["second"].dropped
    (report,) = (Path(small.output) / "documents/first/contaminated.jsonl").read_text().splitlines()
    assert json.loads(report)["file"].endswith("quiz.jsonl")
    assert json.loads(report)["ngram"].lower() in " ".join(leaked.lower().split())
    assert not (Path(small.output) / "documents/second/contaminated.jsonl").exists()

    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": "nothing of the kind, in eight words or more"}) + "\n")
    again = prepare(small)  # another evaluation file, another verdict
    assert again.corpora["first"].dropped == before.corpora["first"].dropped
