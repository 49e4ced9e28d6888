"""Decisions about steps, against numpy and by cases; and the gate before an optimizer, without DeepSpeed."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from framework.config import GuardConfig
from framework.errors import UserError
from framework.stream.curriculum import Curriculum
from framework.stream.loader import Order, TrainingRows
from framework.stream.manifest import read_manifest
from framework.stream.shards import open_shards
from framework.training.optimization.gate import Gate
from framework.training.record.tally import Tally
from framework.training.survival.guard import Action, Guard, remedy_for_divergence, threshold
from tests.synthetic import make_data

NAN, INFINITE = float("nan"), float("inf")


def judged(guard, numbers, first=1, batch=4, length=8):
    """The actions that `guard` takes on (loss, norm) of consecutive steps."""
    actions = []
    for step, (loss, norm) in enumerate(numbers, start=first):
        admitted = guard.admits(step, range((step - 1) * batch, step * batch), length, loss, norm)
        assert admitted == (guard.verdict.action == Action.UPDATE)
        actions.append(guard.verdict.action.value)
    return actions


def steady(count, seed=0):
    random = np.random.default_rng(seed)
    return list(zip(4 + 0.1 * random.normal(size=count), 1 + 0.1 * random.normal(size=count), strict=True))


def test_the_threshold_is_the_median_and_so_many_robust_deviations():
    random = np.random.default_rng(1)
    for size in (1, 2, 7, 64, 129):
        values = random.exponential(size=size) + 1
        deviation = np.median(np.abs(values - np.median(values)))
        expected = np.median(values) + 7 * max(1.4826 * deviation, 0.01 * np.median(values))
        assert threshold(values.tolist(), 7.0) == pytest.approx(expected, rel=1e-12)


def test_every_decision_is_that_of_numpy_over_the_updates_made():
    config = GuardConfig(name="skip", window=20, loss_factor=4.0, gradient_factor=6.0, skips=1000)
    random = np.random.default_rng(2)
    numbers = [(loss + 3 * (random.random() < 0.1), norm + (random.random() < 0.1)) for loss, norm in steady(400)]
    made, expected = [], []
    for pair in numbers:
        window = np.array(made[-20:]).reshape(-1, 2)
        middle = np.median(window, axis=0) if len(window) else np.zeros(2)
        spread = np.maximum(1.4826 * np.median(np.abs(window - middle), axis=0), middle / 100) if len(window) else 0
        spike = len(window) >= 10 and (np.array(pair) > middle + np.array([4.0, 6.0]) * spread).any()
        expected.append("skip" if spike else "update")
        made += [] if spike else [pair]
    assert judged(Guard(config, {}), numbers) == expected
    assert 40 < expected.count("skip") < 120


@pytest.mark.parametrize("cut", [1, 30, 61, 64, 90])
def test_a_guard_resumed_from_json_decides_as_it_would_have(cut):
    config = GuardConfig(window=20, loss_factor=4.0, spikes=3, within=20, rollbacks=1)
    numbers = steady(100)
    for step in (50, 60, 62, 63, 75, 80, 88):
        numbers[step] = (9.0, 1.0)
    whole, first = Guard(config, {}), Guard(config, {})
    expected = judged(whole, numbers)
    assert {"skip", "rollback"} < set(expected)
    start = judged(first, numbers[:cut])
    second = Guard(config, json.loads(json.dumps(first.saved())))
    assert start + judged(second, numbers[cut:], first=cut + 1) == expected
    assert second.saved() == whole.saved()


@pytest.mark.parametrize("poison", [(NAN, 1.0), (4.0, NAN), (INFINITE, 1.0), (4.0, INFINITE)])
@pytest.mark.parametrize("name", ["stop", "skip", "rollback"])
def test_what_is_not_finite_is_never_an_update(name, poison):
    guard = Guard(GuardConfig(name=name), {})
    assert judged(guard, [poison]) == ["end" if name == "stop" else "skip"]
    assert guard.verdict.threshold is None
    assert "is not finite" in guard.verdict.reason
    assert guard.state.losses == guard.state.norms == []


def test_stop_lets_spikes_pass():
    assert judged(Guard(GuardConfig(name="stop"), {}), [*steady(100), (400.0, 1e9)]) == ["update"] * 101


def test_spikes_are_looked_for_once_half_the_window_is_filled():
    config = GuardConfig(window=20)
    assert judged(Guard(config, {}), [*steady(9), (8.0, 1.0)])[-1] == "update"
    assert judged(Guard(config, {}), [*steady(10), (8.0, 1.0)])[-1] == "skip"
    assert judged(Guard(config, {}), [*steady(10), (1.0, 0.1)])[-1] == "update"  # falling is no spike


def test_other_batches_are_not_measured_against_those_before():
    guard = Guard(GuardConfig(window=20), {})
    judged(guard, steady(20))
    assert judged(guard, [(8.0, 1.0)] * 3, first=21, length=16) == ["update"] * 3
    assert judged(guard, [(8.0, 1.0)] * 3, first=24, batch=8, length=16) == ["update"] * 3


def test_the_run_ends_when_too_many_updates_in_a_row_are_skipped():
    config = GuardConfig(name="skip", skips=4)
    poison, fine = (NAN, 1.0), (4.0, 1.0)
    actions = judged(Guard(config, {}), [poison] * 3 + [fine] + [poison] * 4)
    assert actions == ["skip"] * 3 + ["update"] + ["skip"] * 3 + ["end"]


def test_so_many_spikes_in_so_many_steps_take_the_run_back():
    guard = Guard(GuardConfig(spikes=3, within=10), {})
    numbers = [(4.0, 1.0)] * 30
    for step in (1, 8, 11, 17):  # the first is forgotten by the time of the third
        numbers[step - 1] = (NAN, 1.0)
    actions = judged(guard, numbers[:17])
    assert [step for step, action in enumerate(actions, 1) if action == "skip"] == [1, 8, 11]
    assert actions[16] == "rollback"
    assert guard.verdict.first == 8
    assert guard.may_go_back_to(17) == 7
    assert guard.state.left_out == [[0, 4], [28, 32], [40, 44], [64, 68]]


def test_after_a_rollback_the_guard_is_that_of_the_checkpoint_and_remembers_what_it_did():
    config = GuardConfig(spikes=2, within=10, rollbacks=1, window=8)
    guard = Guard(config, {})
    judged(guard, [(NAN, 1.0), *steady(9)])
    saved = guard.saved()
    assert judged(guard, [(4.0, 1.0), (NAN, 1.0), (4.0, 1.0), (NAN, 1.0)], first=11) == [
        *("update", "skip"),
        *("update", "rollback"),
    ]
    guard.return_to(saved, 40, 56)
    assert guard.state.losses == saved["losses"]
    assert (guard.state.skipped, guard.state.rolled_back, guard.state.spikes) == (3, 1, [])
    assert guard.state.left_out == [[0, 4], [40, 56]]
    assert judged(guard, [(NAN, 1.0), (NAN, 1.0)], first=11) == ["skip", "end"]  # it has gone back once
    assert "went back 1 times" in guard.verdict.reason


def test_without_a_checkpoint_to_go_back_to_it_takes_as_many_spikes_again():
    guard = Guard(GuardConfig(spikes=2, within=10, skips=6), {})
    for _ in range(3):
        assert judged(guard, [(NAN, 1.0)] * 2, first=guard.state.skipped + 1) == ["skip", "rollback"]
        guard.stay()
    assert guard.state.in_a_row == 6
    assert judged(guard, [(NAN, 1.0)], first=7) == ["end"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("window", 0), ("loss_factor", 0.0), ("gradient_factor", -1.0), ("skips", 0), ("name", "pray")),
        *(("spikes", 0), ("within", 0), ("rollbacks", -1), ("spikes", 51), ("spikes", 21)),
    ],
)
def test_settings_that_cannot_be_are_refused(field, value):
    config = GuardConfig(**{field: value})
    with pytest.raises(UserError, match=f"^guard.{field}: "):
        config.check()


def test_tokens_and_shares_are_of_what_was_trained_on(tmp_path):
    data = make_data(tmp_path, {"a": 60, "b": 60}, {"a": 3.0, "b": 1.0})
    manifest = read_manifest(str(data))
    lengths = Curriculum(8, {40: 16})
    shards = open_shards(str(data), None)
    rows = TrainingRows(manifest, {}, lengths, 4, 0, shards, Order(1, 20))
    left_out = [[4, 12], [16, 24], [36, 48]]
    tally = Tally(rows, left_out)
    for position in (48, 64, 96):
        kept = [i for i in range(position) if not any(first <= i < past for first, past in left_out)]
        assert tally.tokens(position) == sum(8 if i < 40 else 16 for i in kept)
        tokens = {"a": 0, "b": 0}
        for i in kept:
            if i >= 20:  # of the order in force
                tokens[rows.mixture.corpus(i - 20)] += 8 if i < 40 else 16
        assert tally.by_corpus(position) == tokens
        assert tally.shares(position) == {name: count / sum(tokens.values()) for name, count in tokens.items()}
    assert sum(Tally(rows, [[0, 48]]).shares(48).values()) == 0


def trained(optimizer_class, withheld, **options):
    """Weights and state after five updates of two groups, those in `withheld` tried and not made in between."""
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(3)), torch.nn.Parameter(torch.randn(2, 2))]
    optimizer = optimizer_class([{"params": [weight]} for weight in weights], lr=0.1, **options)
    gate, asked = Gate(optimizer), []
    groups = optimizer.param_groups

    def update():  # group by group, as DeepSpeed does
        for group in groups:
            optimizer.param_groups = [group]
            optimizer.step()
        optimizer.param_groups = groups

    for number in range(5):
        for made in [False] * (number in withheld) + [True]:
            gradients = [torch.randn_like(w) * (1 if made else float("nan")) for w in weights] if not made else None
            gradients = gradients or [torch.full_like(w, number + 1.0).sin() for w in weights]
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            assert gate.pass_through(update, lambda made=made: asked.append(made) or made) == made
            assert all(w.grad is g for w, g in zip(weights, gradients, strict=True))  # DeepSpeed disposes of them
    return [w.detach() for w in weights], optimizer.state_dict()["state"], asked


class Derived(torch.optim.AdamW):
    """Its `step` calls another that torch has hooks around, too."""

    def step(self, closure=None):
        return super().step(closure)


@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [
        (Derived, {}),
        (torch.optim.AdamW, {"weight_decay": 0.5}),
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.NAdam, {}),
    ],
)
@pytest.mark.parametrize("withheld", [{1, 3}, {0}])
def test_an_update_that_is_withheld_leaves_no_trace(optimizer_class, options, withheld):
    weights, state, asked = trained(optimizer_class, withheld, **options)
    expected, expected_state, _ = trained(optimizer_class, set(), **options)
    assert asked.count(False) == len(withheld)
    assert asked.count(True) == 5
    assert all(torch.equal(found, right) for found, right in zip(weights, expected, strict=True))
    for number, values in expected_state.items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(state[number][name]), torch.as_tensor(value)), name


def test_an_update_that_is_given_up_before_it_began_is_asked_about_all_the_same():
    gate, asked = Gate(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)), []
    assert gate.pass_through(lambda: None, lambda: asked.append(1) or True) is False
    assert asked == [1]


def test_consecutive_ranges_become_one():
    guard = Guard(GuardConfig(name="skip"), {})
    judged(guard, [(NAN, 1.0), (NAN, 1.0), (4.0, 1.0), (NAN, 1.0)])
    assert guard.state.left_out == [[0, 8], [12, 16]]
    assert all(past < first for (_, past), (first, _) in pairwise(guard.state.left_out))


@pytest.mark.parametrize(
    ("in_a_row", "kept", "told"),
    [
        (0, [], "there is no checkpoint yet, so it begins anew"),
        (3, [8, 4], "goes on from the checkpoint of step 8, which update 7 may have spoilt already: if it ends so"),
        (2, [4], "goes on from the checkpoint of step 4"),
    ],
)
def test_the_remedy_for_divergence_can_be_followed(in_a_row, kept, told):
    said = remedy_for_divergence(10, in_a_row, kept)
    assert told in said
    assert ("spoilt" in said) == (kept[:1] == [8])
