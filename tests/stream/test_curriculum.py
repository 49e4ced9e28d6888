"""Lengths and batches that change over a run: every token still once, and position still one integer."""

import numpy as np
import pytest

from framework.stream.curriculum import Curriculum
from framework.stream.loader import Order, TrainingRows
from framework.stream.manifest import read_manifest
from framework.stream.shards import LocalShards
from tests.synthetic import make_data

CHANGES = {40: 64, 96: 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), {"web": 300, "books": 40}, {"web": 60.0, "books": 16.0})


def rows_of(data, lengths, order=None):
    extra = (order,) if order else ()
    return TrainingRows(read_manifest(data), {}, lengths, 8, 0, LocalShards(), *extra)


def test_values_and_their_sum():
    lengths = Curriculum(32, CHANGES)
    walked = [32] * 40 + [64] * 56 + [16] * 20
    assert [lengths.at(i) for i in range(116)] == walked
    assert [lengths.total(i) for i in range(116)] == [sum(walked[:i]) for i in range(116)]
    assert [list(range(a, b)) for a, b, _ in lengths.pieces(30, 100)] == [
        list(range(30, 40)),
        list(range(40, 96)),
        list(range(96, 100)),
    ]


def test_lanes_go_on_where_they_were_when_the_length_changes(data):
    """The stream of a lane and corpus, put together from rows of three lengths, is that of rows of one length."""
    streams = []
    for changes, end in ((CHANGES, 160), ({}, 160)):
        rows = rows_of(data, Curriculum(32, changes))
        stream = {}
        for sequence in range(end):
            batch = rows.read(range(sequence, sequence + 1))
            stream.setdefault((sequence % 8, batch.corpora[0]), []).append(batch.tokens[0])
        streams.append({key: np.concatenate(parts) for key, parts in stream.items()})
    changing, constant = streams
    assert changing.keys() == constant.keys()
    for key, tokens in changing.items():
        shared = min(len(tokens), len(constant[key]))
        assert shared >= 32
        assert np.array_equal(tokens[:shared], constant[key][:shared])


def test_any_position_can_be_sought(data):
    lengths = Curriculum(32, CHANGES)
    walked = rows_of(data, lengths)
    hashes = [walked.read(range(i, i + 1)).row_hashes() for i in range(130)]
    for position in (129, 0, 40, 95, 96, 39):
        assert rows_of(data, lengths).read(range(position, position + 1)).row_hashes() == hashes[position]


def test_tokens_drawn_are_those_read(data):
    rows = rows_of(data, Curriculum(32, CHANGES))
    counted = {"web": 0, "books": 0}
    for sequence in range(120):
        batch = rows.read(range(sequence, sequence + 1))
        counted[batch.corpora[0]] += batch.tokens.size
    assert rows.tokens_drawn(120) == counted


def test_a_new_order_begins_anew_and_differs(data):
    first = rows_of(data, Curriculum(32))
    second = rows_of(data, Curriculum(32), Order(number=1, began_at=48))
    assert second.tokens_drawn(48) == {"web": 0, "books": 0}
    assert second.read(range(48, 64)).row_hashes() != first.read(range(16)).row_hashes()
    assert second.read(range(48, 64)).row_hashes() != first.read(range(48, 64)).row_hashes()
