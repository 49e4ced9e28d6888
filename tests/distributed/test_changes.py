"""Runs that change on the way: longer sequences, larger batches, other data."""

import pytest

from tests.launch import SMALL, pretrain, records, run

GROWING = ("data.length_changes={96:16,192:32}", "data.sequence_length=8", "batch.changes={64:32,192:16}")


def curve(records):
    return [(r["step"], r["train/loss"], r["data/batch_hash"], r["data/sequences"], r["data/tokens"]) for r in records]


@pytest.mark.slow
def test_a_run_that_grows_is_the_same_on_any_layout_and_after_a_stop(tmp_path, data):
    whole = pretrain(tmp_path, data, "whole", *GROWING, "zero=stage2", ranks=2)
    assert [r["data/sequences"] for r in whole][:8] == [16, 32, 48, 64, 96, 128, 160, 192]
    assert [r["data/tokens"] for r in whole][3:8] == [512, 768, 1280, 1792, 2304]
    alone = pretrain(tmp_path, data, "alone", *GROWING, "zero=stage1", "batch.micro=2")
    assert [r["data/batch_hash"] for r in alone] == [r["data/batch_hash"] for r in whole]
    assert [r["train/loss"] for r in alone] == pytest.approx([r["train/loss"] for r in whole], rel=1e-5)
    pretrain(tmp_path, data, "stopped", *GROWING, "zero=stage2", "run.stop_after=7", ranks=2)
    assert curve(pretrain(tmp_path, data, "stopped", *GROWING, "zero=stage2", ranks=2)) == curve(whole)


@pytest.mark.slow
def test_other_data_are_refused_or_begin_a_new_order(tmp_path, data):
    places = (f"run.directory={tmp_path}", "run.name=changed", f"data.path={data}")
    pretrain(tmp_path, data, "changed", "run.stop_after=10")
    for change, line in (
        ("data.lanes=16", "data.lanes: is 16, "),
        ("data.weights={web:1,books:1}", "data.weights: is {'web': 1.0, 'books': 1.0}, "),
    ):
        refused = run("framework.pretrain", *SMALL, *places, change)
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"loam: error: {line}")
        assert "data.allow_change=true" in refused.stderr
    goes_on = (*SMALL, *places, "data.weights={web:1,books:1}", "data.allow_change=true")
    done = run("framework.pretrain", *goes_on, "run.stop_after=15")
    assert done.returncode == 0, done.stderr
    assert "order 1 of the data begins at sequence 160" in done.stdout
    done = run("framework.pretrain", *goes_on)  # and once more, in the new order
    assert done.returncode == 0, done.stderr
    assert "begins" not in done.stdout
    shares = [r["data/share/web"] for r in records(tmp_path / "changed")]
    assert shares[9] == pytest.approx(60 / 76, abs=0.05)
    assert shares[19] == pytest.approx(1 / 2, abs=0.05)  # of the order in force
