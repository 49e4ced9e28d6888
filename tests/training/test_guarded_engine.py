"""Updates withheld from DeepSpeed, and checkpoints set into an engine that has been training: to the last bit."""

import sys
from dataclasses import replace

import pytest
import torch

from framework import distributed
from framework.config import BatchConfig, PrecisionConfig, PretrainConfig, ZeroConfig
from framework.training.state import collect, optimizer_steps, owned_state, restore
from tests.launch import start_ranks
from tests.training.test_optimizer import MICRO, MODEL, RATES, ROWS, batch, fresh_model, optimizer_config

LAYOUTS = [
    *(("fp32", stage, "adamw") for stage in range(4)),
    *(("bf16", stage, "adamw") for stage in (1, 2, 3)),
    *(("fp32", stage, optimizer) for stage in (2, 3) for optimizer in ("muon", "lion")),
]
FEW = [("fp32", 3, "adamw"), ("bf16", 1, "adamw"), ("fp32", 2, "muon")]  # stage 0 is plain torch: test_guard.py
NAN = float("nan")


def fresh_engine(dtype, stage, optimizer):
    from framework.training.engine import Engine

    return Engine(
        fresh_model(),
        PretrainConfig(
            model=MODEL,
            batch=BatchConfig(sequences=ROWS, micro=MICRO),
            optimizer=replace(optimizer_config(0.3), name=optimizer),
            zero=ZeroConfig(stage=stage),
            precision=PrecisionConfig(dtype=dtype),
        ),
    )


def share(number):
    whole, ranks = batch(number), slice(distributed.rank(), None, distributed.world_size())
    return replace(
        whole,
        tokens=whole.tokens[ranks],
        labels=whole.labels[ranks],
        document=whole.document[ranks],
        corpora=whole.corpora[ranks],
    )


def everything(engine):
    """Weights and moments, whole, and the count of updates."""
    tensors = {f"{name}/{field}": values[field].clone() for name, values in collect(engine) for field in values}
    return tensors, optimizer_steps(engine)


def assert_equal(found, expected):
    assert found[1] == expected[1]
    assert found[0].keys() == expected[0].keys()
    for key, value in expected[0].items():
        assert torch.equal(found[0][key], value), key


def poisoned_step(engine, number):
    """A step in which the loss of one micro-batch, of the last rank alone, is not a number."""
    whole, seen = engine._forward_backward, []

    def forward_backward(micro, scale):
        seen.append(micro)
        total = whole(micro, scale * (NAN if poisoned and len(seen) == 1 else 1))
        return total * NAN if poisoned and len(seen) == 1 else total

    poisoned = distributed.rank() == distributed.world_size() - 1
    engine._forward_backward = forward_backward
    result = engine.step(share(number), 0.01, lambda loss, norm: loss == loss)
    del engine._forward_backward
    return result


def train(engine, withheld=(), poisoned=()):
    """Six updates; before some of them another that is withheld, for a reason or for its numbers."""
    numbers = []
    for step, rate in enumerate(RATES):
        before = everything(engine) if step else None
        if step in withheld:
            asked = []
            result = engine.step(share(50), 0.01, lambda *pair, asked=asked: bool(asked.append(pair)))
            assert (result.loss, result.gradient_norm, result.applied) == (*asked[0], False)
            assert len(asked) == 1
        if step in poisoned:
            result = poisoned_step(engine, 51)
            assert not result.applied
            assert result.loss != result.loss
        if before:
            assert_equal(everything(engine), before)
        result = engine.step(share(step), rate)
        assert result.applied
        numbers.append((result.loss, result.gradient_norm))
    return numbers


def check_layout(*layout):
    """In a process of a job: everything there is to show at one precision and stage, with one optimizer."""
    plain = fresh_engine(*layout)
    expected = train(plain), everything(plain)
    for withheld, poisoned in (({0, 2}, {3}), (set(), {0})):
        engine = fresh_engine(*layout)
        assert train(engine, withheld, poisoned) == expected[0]
        assert_equal(everything(engine), expected[1])
    late = fresh_engine(*layout)
    late.step(share(50), 0.01, lambda *_: False)
    owned_state(late)  # a checkpoint before the first update that was made
    assert optimizer_steps(late) == 0
    before = everything(plain)
    owned_state(plain)  # makes nothing that is there already
    assert_equal(everything(plain), before)
    kept = {key: value.clone() for key, value in everything(plain)[0].items()}
    further = [(r.loss, r.gradient_norm) for r in (plain.step(share(6), 0.01), plain.step(share(7), 0.01))]
    plain.step(share(8), 0.5)
    restore(plain, lambda name, field: kept[f"{name}/{field}"], expected[1][1])
    assert_equal(everything(plain), (kept, expected[1][1]))
    assert [(r.loss, r.gradient_norm) for r in (plain.step(share(6), 0.01), plain.step(share(7), 0.01))] == further


if __name__ == "__main__":
    for layout in LAYOUTS if sys.argv[1] == "all" else FEW:
        check_layout(*layout)
        print("as it should be:", *layout, flush=True)
    distributed.leave(0)


def assert_sound(ranks, layouts):
    for process in start_ranks("tests.training.test_guarded_engine", layouts, ranks=ranks):
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert out.count("as it should be") == len(LAYOUTS if layouts == "all" else FEW)


@pytest.mark.slow
def test_one_rank():
    assert_sound(1, "few")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_layout(ranks):
    assert_sound(ranks, "all")
