"""Batches: every token once, documents kept apart, nothing dependent on who asks."""

import json
import shutil

import numpy as np
import pytest

from framework.errors import UserError
from framework.stream.curriculum import Curriculum
from framework.stream.loader import NO_LOSS, TrainingRows, ValidationRows, share_of
from framework.stream.manifest import copy_tokenizer, read_manifest
from framework.stream.order import BlockOrder
from framework.stream.rows import LaneRows
from framework.stream.shards import LocalShards
from tests.synthetic import END_OF_TEXT, make_data, wipe_other_lanes

WEIGHTS = {"web": 60.0, "books": 16.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), {"web": 300, "books": 40}, WEIGHTS)


def rows_of(data, length=32, lanes=8, seed=0):
    return TrainingRows(read_manifest(data), {}, Curriculum(length), lanes, seed, LocalShards())


def documents_of(split):
    shards = LocalShards()
    for block in split.blocks:
        content = shards.read(block)
        yield from (tuple(d) for d in np.split(content.tokens, np.cumsum(content.lengths)[:-1]))


def test_an_epoch_uses_every_document_once_and_whole(data):
    corpus = read_manifest(data).corpora["web"]
    order = BlockOrder(corpus.train.block_tokens(), 8, 0, "web")
    reader = LaneRows(order, corpus.train.blocks, LocalShards())
    for epoch in range(2):
        seen = []
        for lane in range(8):
            start = int(order.tokens[order.lane_blocks(lane, 0)].sum()) if epoch else 0
            count = int(order.tokens[order.lane_blocks(lane, epoch)].sum())
            tokens, document = np.empty(count + 1, np.int64), np.zeros(count, np.int32)
            reader.read(lane, start, tokens, document)
            seen += [tuple(d) for d in np.split(tokens[:-1], np.flatnonzero(np.diff(document)) + 1)]
        assert sorted(seen) == sorted(documents_of(corpus.train))


def test_rows_of_a_lane_continue_each_other(data):
    rows = rows_of(data)
    last_label, last_row = {}, {}
    for sequence in range(400):
        batch = rows.read(range(sequence, sequence + 1))
        key = (sequence % 8, batch.corpora[0])
        if key in last_row:
            assert batch.tokens[0, 0] == last_label[key]
        assert np.array_equal(batch.tokens[0, 1:], batch.labels[0, :-1])
        last_label[key], last_row[key] = batch.labels[0, -1], sequence


def test_documents_begin_where_the_end_of_text_stands(data):
    batch = rows_of(data).read(range(64))
    begins = np.diff(batch.document, axis=1) == 1
    assert np.array_equal(begins, batch.tokens[:, 1:] == END_OF_TEXT)
    assert (batch.document[:, 0] == 0).all()
    assert (batch.labels != NO_LOSS).all()
    assert batch.tokens.dtype == batch.labels.dtype == np.int64
    assert batch.document.dtype == np.int32


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_batch_does_not_depend_on_the_ranks_or_the_past(data, world_size):
    whole = sorted(rows_of(data).read(range(160, 176)).row_hashes())
    parts = []
    for rank in range(world_size):  # each rank comes fresh to this position, as after a resume
        parts += rows_of(data).read(share_of(rank, world_size, 160, 16)).row_hashes()
    assert sorted(parts) == whole


def test_a_rank_reads_only_the_blocks_of_its_lanes(data, tmp_path):
    """What the other ranks need is wiped out, so that the hash of a block read in error would not agree."""
    part = shutil.copytree(data, tmp_path / "part")
    rank, world_size = 1, 4
    wipe_other_lanes(part, rank, world_size, lanes=8)
    batches = 8  # all of them in the first epoch; later a block may come to another lane
    mine = [s for t in range(batches) for s in share_of(rank, world_size, t * 16, 16)]
    expected = [rows_of(data).read(range(s, s + 1)).row_hashes() for s in mine]
    assert [rows_of(part).read(range(s, s + 1)).row_hashes() for s in mine] == expected
    with pytest.raises(UserError, match="its hash differs"):
        rows_of(part).read(range(16))


def test_the_seed_changes_the_order(data):
    assert rows_of(data, seed=0).read(range(8)).row_hashes() != rows_of(data, seed=1).read(range(8)).row_hashes()


@pytest.mark.parametrize("length", [32, 7, 1000])
def test_validation_rows_hold_every_token_as_a_label_once(tmp_path, length):
    data = make_data(tmp_path, {"web": 20}, held_out=50, held_out_blocks=7)
    split = read_manifest(data).corpora["web"].validation
    assert len(split.blocks) == 7
    stored = np.concatenate([np.array(d) for d in documents_of(split)])
    reader = ValidationRows(split, length, LocalShards())
    rows = [reader.read(row) for row in range(len(reader))]
    labels = np.concatenate([row.labels[0] for row in rows])
    assert np.array_equal(labels[labels != NO_LOSS], stored[1:])
    assert all(row.tokens.shape == (1, length) for row in rows)
    for row in rows:
        within = row.labels[0, :-1] != NO_LOSS  # what pads the last row is not a document
        begins = np.diff(row.document[0]) == 1
        assert np.array_equal(begins[within], row.tokens[0, 1:][within] == END_OF_TEXT)


def test_a_flipped_byte_is_named(tmp_path):
    data = make_data(tmp_path, {"web": 20})
    shard = data / "tokens" / "web" / "train-00000.tar"
    content = bytearray(shard.read_bytes())
    block = read_manifest(data).corpora["web"].train.blocks[3]
    content[block.tokens_offset + block.tokens_bytes - 1] ^= 1
    shard.write_bytes(content)
    rows = rows_of(data)  # sizes agree, so only reading can tell
    with pytest.raises(UserError, match=rf"{shard}.*byte {block.tokens_offset}.*hash"):
        rows.read(range(2000))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: m.update(schema_version=2), "schema_version is 2"),
        (lambda m: m["corpora"]["web"]["train"].update(tokens=1), "do not add up"),
        (lambda m: m["corpora"]["web"]["train"]["shards"][0].update(bytes=5), "has .* bytes"),
        (lambda m: m["corpora"]["web"]["train"]["shards"][0].update(path="web/none.tar"), "No such file"),
        (lambda m: m["corpora"]["web"].pop("weight"), "damaged"),
    ],
)
def test_a_manifest_that_disagrees_is_refused(tmp_path, damage, message):
    data = make_data(tmp_path, {"web": 20})
    path = data / "tokens" / "manifest.json"
    manifest = json.loads(path.read_text())
    damage(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        read_manifest(data)


def test_another_tokenizer_is_refused(tmp_path):
    data = make_data(tmp_path / "data", {"web": 20})
    tokenizer = data / "tokenizer" / "tokenizer.model"
    assert copy_tokenizer(read_manifest(data), tmp_path).read_bytes() == tokenizer.read_bytes()
    tokenizer.write_bytes(b"another")
    with pytest.raises(UserError, match="is not the tokenizer"):
        copy_tokenizer(read_manifest(data), tmp_path)


def test_what_is_missing_is_named(tmp_path, data):
    with pytest.raises(UserError, match=r"manifest\.json: No such file.*framework\.prepare"):
        read_manifest(tmp_path)
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read_manifest(tmp_path)
    with pytest.raises(UserError, match=r"data\.weights\.wiki: no such corpus"):
        TrainingRows(read_manifest(data), {"wiki": 1.0}, Curriculum(32), 8, 0, LocalShards())
