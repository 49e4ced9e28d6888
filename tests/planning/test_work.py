"""Steps, tokens, bytes on the wire: against counting one by one."""

from dataclasses import replace

import pytest

from framework.config import (
    BatchConfig,
    ClusterConfig,
    DataConfig,
    ParallelConfig,
    PrecisionConfig,
    PretrainConfig,
    ScheduleConfig,
    ZeroConfig,
)
from framework.model.arithmetic import forward_flops_per_token
from framework.planning.duration import duration_of
from framework.planning.network import network_of
from framework.planning.parameters import parameters_of
from framework.planning.work import recomputed_flops, steps_for, work_of
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


def test_time_follows_from_the_peak_of_the_precision_and_from_what_is_computed_twice():
    """Every layer's forward pass a second time, but not the output's: 4/3 of the layers' time."""
    config = PretrainConfig(
        cluster=ClusterConfig(peak_tflops=312.0, fp32_tflops=19.5, mfu=0.4),
        precision=PrecisionConfig(dtype="bf16"),
        model=replace(PretrainConfig().model, layers=6, vocabulary_size=360),
    )
    work = work_of(config)
    plain = duration_of(work.flops, work, config, 2)
    assert plain.mfu == pytest.approx(0.4)
    assert plain.seconds == pytest.approx(work.flops / (2 * 0.4 * 312e12))
    in_fp32 = replace(config, precision=PrecisionConfig(dtype="fp32"))
    assert duration_of(work.flops, work, in_fp32, 2).seconds == pytest.approx(16 * plain.seconds)
    whole, half = (recomputed_flops(config, policy) for policy in ("full", "every_n"))
    assert (work.recomputed_flops, half) == (0, whole / 2)
    blocks = work.tokens * forward_flops_per_token(config.model, config.data.sequence_length, predicts=False)
    assert whole == pytest.approx(blocks)
    assert recomputed_flops(config, "full", first_block=2) == pytest.approx(whole * 4 / 6)
    twice = duration_of(work.flops, work, config, 2, recomputed=whole)
    assert twice.seconds == pytest.approx(plain.seconds * (1 + blocks / work.flops))
    assert twice.mfu == pytest.approx(0.4 / (1 + blocks / work.flops))
