"""Rows shared by ranks give the curve of whole rows: real jobs over gloo, 20 updates in fp32.

The documents are longer than a rank's part of a row, and shorter than the row, so some cross its borders.
"""

import pytest

from tests.launch import pretrain
from tests.synthetic import make_data

BOUND = 1e-5  # relative; floating-point sums in another order are allowed, nothing else
HEADS = ("model.hidden_size=32", "model.heads=4", "model.head_size=8", "model.intermediate_size=48")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), {"web": 300, "books": 60}, {"web": 60, "books": 16}, longest=30)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def assert_same_curve(records, reference):
    assert [r["step"] for r in records] == [r["step"] for r in reference] == list(range(1, 21))
    assert [r["data/batch_hash"] for r in records] == [r["data/batch_hash"] for r in reference]
    for record, expected in zip(records, reference, strict=True):
        for name in ("train/loss", "train/gradient_norm"):
            assert record[name] == pytest.approx(expected[name], rel=BOUND)
    assert reference[-1]["train/loss"] < reference[0]["train/loss"]


@pytest.fixture(scope="module")
def whole(runs, data):
    return pretrain(runs, data, "whole", *HEADS, "zero=stage1")


def test_rows_shared_by_two_ranks(runs, data, whole):
    records = pretrain(runs, data, "shared", *HEADS, "zero=stage2", "parallel.sequence=2", ranks=2)
    assert_same_curve(records, whole)
