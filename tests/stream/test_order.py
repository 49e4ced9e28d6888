"""The order of blocks: every block once an epoch, whatever the number of lanes."""

import numpy as np
import pytest

from framework.stream.order import BlockOrder, permutation


def test_permutation_depends_on_its_key_alone():
    assert sorted(permutation(1000, 1, "web", 2)) == list(range(1000))
    assert np.array_equal(permutation(1000, 1, "web", 2), permutation(1000, 1, "web", 2))
    assert not np.array_equal(permutation(1000, 1, "web", 2), permutation(1000, 1, "web", 3))
    assert not np.array_equal(permutation(1000, 1, "web", 2), permutation(1000, 1, "wiki", 2))
    # written down once: an order that changes with a version of Loam or NumPy would break every resume
    assert permutation(8, 0, "web", 0).tolist() == [4, 3, 6, 1, 7, 0, 2, 5]


def test_permutations_are_uniform():
    counts = np.zeros((6, 6))
    for key in range(6000):
        counts[np.arange(6), permutation(6, key)] += 1
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 5 / 6)  # five standard deviations


@pytest.mark.parametrize(("blocks", "lanes"), [(200, 64), (64, 64), (63, 64), (5, 64), (7, 3), (100, 1)])
def test_every_block_once_an_epoch(blocks, lanes):
    order = BlockOrder(np.full(blocks, 10), lanes, 0, "web")
    for epoch in range(5):
        dealt = np.concatenate([order.lane_blocks(lane, epoch) for lane in range(lanes)])
        assert sorted(dealt) == list(range(blocks))


@pytest.mark.parametrize(("blocks", "lanes"), [(200, 64), (5, 64), (7, 3)])
def test_dealing_favours_no_lane(blocks, lanes):
    order = BlockOrder(np.full(blocks, 10), lanes, 0, "web")
    for epochs in (1, 3, 64):
        dealt = [sum(len(order.lane_blocks(lane, e)) for e in range(epochs)) for lane in range(lanes)]
        assert max(dealt) - min(dealt) <= 1


def test_seeking_finds_what_walking_finds():
    tokens = np.random.default_rng(0).integers(1, 50, 37)
    order, fresh = (BlockOrder(tokens, 8, 5, "web") for _ in range(2))
    for lane in range(8):
        walked = [
            (epoch, place, offset)
            for epoch in range(4)
            for place, block in enumerate(order.lane_blocks(lane, epoch))
            for offset in range(tokens[block])
        ]
        for token in (len(walked) - 1, 0, 17, len(walked) // 2):
            assert fresh.locate(lane, token) == walked[token]
