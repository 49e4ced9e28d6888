"""Nodes without a shared disk: a rank needs the manifest from rank 0, and the blocks of its own lanes."""

import shutil

import pytest

from tests.launch import SMALL, pretrain, records, start_ranks
from tests.synthetic import make_data, wipe_other_lanes

RANKS, LANES = 2, 8  # the lanes that SMALL has


@pytest.fixture(scope="module")
def data(tmp_path_factory):  # enough that the run stays within the first epoch
    return make_data(tmp_path_factory.mktemp("data"), {"web": 500, "books": 500}, blocks=30)


@pytest.mark.slow
def test_a_rank_never_opens_a_block_of_anothers_lane(data, tmp_path):
    folders = [tmp_path / f"node-{rank}" for rank in range(RANKS)]
    for rank, folder in enumerate(folders):
        copy = shutil.copytree(data, folder / "data")
        wipe_other_lanes(copy, rank, RANKS, LANES)
        if rank:
            (copy / "tokens" / "manifest.json").unlink()
            shutil.rmtree(copy / "tokenizer")
    places = (f"run.directory={tmp_path}", "run.name=apart", "data.path=data")
    job = start_ranks("framework.pretrain", *SMALL, *places, ranks=RANKS, folders=folders)
    for process in job:
        output = process.communicate()
        assert process.returncode == 0, output
    whole = pretrain(tmp_path, data, "whole", ranks=RANKS)
    for record, expected in zip(records(tmp_path / "apart"), whole, strict=True):
        for name in ("train/loss", "data/batch_hash"):
            assert record[name] == expected[name]
