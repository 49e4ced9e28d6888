"""Nodes without a shared disk: a rank needs the manifest from rank 0, and the blocks of its own lanes."""

import shutil

import pytest

from framework.stream.manifest import read_manifest
from framework.stream.order import BlockOrder
from tests.launch import SMALL, pretrain, records, start_ranks
from tests.synthetic import make_data

RANKS, LANES = 2, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory):  # enough that the run stays within the first epoch
    return make_data(tmp_path_factory.mktemp("data"), {"web": 500, "books": 500}, blocks=30)


def keep_only(rank, data):
    """Overwrite the training blocks of other ranks' lanes with zeros, and for ranks but 0 remove the manifest."""
    manifest = read_manifest(data)
    for name, corpus in manifest.corpora.items():
        order = BlockOrder(corpus.train.block_tokens(), LANES, 0, name)
        mine = {int(b) for lane in range(rank, LANES, RANKS) for b in order.lane_blocks(lane, 0)}
        shard = data / "tokens" / name / "train-00000.tar"
        content = bytearray(shard.read_bytes())
        for number, block in enumerate(corpus.train.blocks):
            if number not in mine:
                content[block.tokens_offset : block.tokens_offset + block.tokens_bytes] = bytes(block.tokens_bytes)
        shard.write_bytes(content)
    if rank:
        (data / "tokens" / "manifest.json").unlink()
        shutil.rmtree(data / "tokenizer")


def test_a_rank_never_opens_a_block_of_anothers_lane(data, tmp_path):
    folders = [tmp_path / f"node-{rank}" for rank in range(RANKS)]
    for rank, folder in enumerate(folders):
        keep_only(rank, shutil.copytree(data, folder / "data"))
    places = (f"run.directory={tmp_path}", "run.name=apart", "data.path=data")
    job = start_ranks("framework.pretrain", *SMALL, *places, ranks=RANKS, folders=folders)
    for process in job:
        output = process.communicate()
        assert process.returncode == 0, output
    whole = pretrain(tmp_path, data, "whole", ranks=RANKS)
    for record, expected in zip(records(tmp_path / "apart"), whole, strict=True):
        for name in ("train/loss", "data/batch_hash"):
            assert record[name] == expected[name]
