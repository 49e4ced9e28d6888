"""Infilling in real jobs: the same batches on any layout, held-out text left to right, no silent change on the way."""

import json

import pytest

from tests.launch import SMALL, pretrain, records, run
from tests.synthetic import make_data

pytestmark = pytest.mark.slow

INFILLING = ("objective=fill_in_middle", "objective.rate=0.5")


@pytest.fixture(scope="module")
def infilled(runs, data):
    """One rank, undisturbed."""
    return pretrain(runs, data, "infilled", *INFILLING, "zero=stage1")


def hashes(records):
    return [record["data/batch_hash"] for record in records]


def test_ranks_do_not_change_what_is_infilled(runs, data, infilled):
    shared = pretrain(runs, data, "shared", *INFILLING, "batch.micro=2", ranks=2)
    assert hashes(shared) == hashes(infilled)
    losses = [record["train/loss"] for record in infilled]
    assert [record["train/loss"] for record in shared] == pytest.approx(losses, rel=1e-5)


@pytest.mark.slow
def test_held_out_text_is_read_left_to_right(runs, data):
    settings = ("run.stop_after=1", "validation.every=1", "optimizer.learning_rate=1e-12")  # the weights hardly move
    (plain,) = pretrain(runs, data, "plain", *settings)
    (infilled,) = pretrain(runs, data, "infilled-once", *settings, *INFILLING)
    assert infilled["data/batch_hash"] != plain["data/batch_hash"]
    for name in ("eval/web/loss", "eval/books/bits_per_byte"):
        assert infilled[name] == pytest.approx(plain[name], rel=1e-6)


@pytest.mark.slow
def test_another_objective_is_refused_or_begins_a_new_order(runs, data, infilled):
    places = (*SMALL, f"run.directory={runs}", "run.name=infilled", f"data.path={data}")
    refused = run("framework.pretrain", *places)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("loam: error: objective.name: is causal_lm, ")
    assert "has fill_in_middle; set it back, or " in line
    assert "data.allow_change=true" in line
    done = run("framework.pretrain", *places, "run.stop_after=0", "data.allow_change=true")
    assert done.returncode == 0, done.stderr
    assert "objective.name: was fill_in_middle, is causal_lm" in done.stdout
    assert "order 1 of the data begins at sequence 320" in done.stdout
    assert hashes(records(runs / "infilled"))[:20] == hashes(infilled)


@pytest.mark.slow
def test_data_without_the_symbols_are_trained_on_left_to_right_alone(runs, data):
    old = make_data(runs / "old", {"web": 300})
    file = old / "tokens" / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["tokenizer"]["reserved"]
    file.write_text(json.dumps(manifest))
    places = (*SMALL, f"run.directory={runs}", "run.name=old", f"data.path={old}")
    refused = run("framework.pretrain", *places, *INFILLING)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("loam: error: objective.name: fill_in_middle needs the symbol <|fim_prefix|>")
    assert not (runs / "old" / "checkpoints").exists()
    pretrain(runs, old, "old", "run.stop_after=2")
    manifest["tokenizer"]["reserved"] = {"<|fim_prefix|>": 3}
    file.write_text(json.dumps(manifest))
    refused = run("framework.pretrain", *places)
    assert refused.returncode == 2
    assert "the reserved ids it lists are not those of" in refused.stderr
