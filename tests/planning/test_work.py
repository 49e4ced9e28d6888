"""Steps, tokens, bytes on the wire: against counting one by one."""

import pytest

from framework.config import BatchConfig, DataConfig, ParallelConfig, PretrainConfig, ScheduleConfig, ZeroConfig
from framework.planning.network import network_of
from framework.planning.parameters import parameters_of
from framework.planning.work import steps_for, work_of
from framework.stream.curriculum import Curriculum


def changing() -> PretrainConfig:
    """Batches and rows that grow."""
    config = PretrainConfig(schedule=ScheduleConfig(steps=50))
    config.model.vocabulary_size = 360
    config.batch.changes = {160: 32, 480: 64}
    config.data.length_changes = {320: 512, 480: 128}
    return config


def tokens_after(config: PretrainConfig, steps: int) -> int:
    """As the loop consumes them."""
    batches = Curriculum(config.batch.sequences, config.batch.changes)
    lengths = Curriculum(config.data.sequence_length, config.data.length_changes)
    position = tokens = 0
    for _ in range(steps):
        tokens += sum(lengths.at(position + n) for n in range(batches.at(position)))
        position += batches.at(position)
    return tokens


def test_tokens_are_those_that_the_loop_consumes():
    config = changing()
    for steps in (1, 9, 10, 11, 15, 20, 21, 50):
        config.schedule.steps = steps
        assert work_of(config).tokens == tokens_after(config, steps)


def test_steps_are_the_fewest_that_see_the_tokens():
    config = changing()
    for tokens in (1, 4096, 4097, 40_960, 50_000, 122_880, 122_881, 205_000, 1_000_000):
        steps = steps_for(config, tokens)
        assert tokens_after(config, steps) >= tokens
        assert steps == 1 or tokens_after(config, steps - 1) < tokens


def test_frozen_weights_have_no_gradients_to_compute():
    config = changing()
    whole = work_of(config)
    assert work_of(config, whole.parameters).flops == whole.flops
    assert work_of(config, 0).flops == pytest.approx(whole.flops * 2 / 3)


@pytest.mark.parametrize(
    ("stage", "gradients", "weights"),
    # 1000 numbers in fp32 on 4 ranks, two forward passes: a ring sends 3/4 of them for a reduce-scatter
    [(0, 2 * 3000, 0), (1, 3000, 3000), (2, 2 * 3000, 3000), (3, 2 * 3000, 4 * 3000)],
)
def test_what_a_rank_sends(stage, gradients, weights):
    config = PretrainConfig(zero=ZeroConfig(stage=stage), batch=BatchConfig(sequences=16, micro=2))
    config.cluster.link_gb_per_second = 1.0
    found = network_of(config, parameters_of(config, {"a": (10, 100)}), 4, 2)
    assert (found.gradient_bytes, found.weight_bytes) == (gradients, weights)
    assert found.seconds == pytest.approx((gradients + weights) / 1e9)
    config.cluster.gpus_per_node = 2
    assert network_of(config, parameters_of(config, {"a": (10, 100)}), 4, 2).seconds is None  # unknown between nodes


def test_shared_layers_exchange_the_residual_stream():
    config = PretrainConfig(
        batch=BatchConfig(sequences=2, micro=2), parallel=ParallelConfig(tensor=2), data=DataConfig(sequence_length=64)
    )
    config.model.vocabulary_size, config.cluster.link_gb_per_second = 360, 1.0
    found = network_of(config, parameters_of(config, {"blocks.0.mlp.up.weight": (10, 100)}), 2, 2)
    rows = 2 * 64 * config.model.hidden_size * 4
    assert found.activation_bytes == 4 * config.model.layers * rows  # an all-reduce of 2 ranks sends all of it once
    assert found.gradient_bytes == 0
