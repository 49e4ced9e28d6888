"""What saves memory changes no curve: activations computed twice, the loss in chunks, at every ZeRO stage."""

import json
import subprocess
import sys
from functools import partial

import pytest
import torch

from framework.config import BatchConfig, LossConfig, MemoryConfig, PretrainConfig, ZeroConfig
from framework.errors import UserError
from framework.model.loss import summed_losses
from framework.training.recomputation import recompute_activations
from tests.launch import ENVIRONMENT, ROOT
from tests.model.shapes import CONFIGS, random_model, random_tokens
from tests.training.test_optimizer import MICRO, MODEL, RATES, ROWS, batch, fresh_model, optimizer_config

RECOMPUTED = {
    "full": MemoryConfig(activation_checkpointing="full"),
    "every_n": MemoryConfig(activation_checkpointing="every_n", every=2),
}
VARIANTS = {
    "plain": {},
    **{name: {"memory": memory} for name, memory in RECOMPUTED.items()},
    "chunks": {"loss": LossConfig(chunk_tokens=6)},
    "z-loss": {"loss": LossConfig(z_loss=0.01)},
}


def train_with_engine() -> None:
    """For a process of its own: losses, norms and z-losses of a few updates of every variant at every stage."""
    from framework.training.engine import Engine

    curves: dict[str, list[list[float]]] = {}
    for name, settings in VARIANTS.items():
        for stage in range(4):
            config = PretrainConfig(
                model=MODEL,
                batch=BatchConfig(sequences=ROWS, micro=MICRO),
                optimizer=optimizer_config(0.3),
                zero=ZeroConfig(stage=stage),
                **settings,
            )
            engine = Engine(fresh_model(), config)
            results = [engine.step(batch(step), rate) for step, rate in enumerate(RATES[:3])]
            held_out, counted = engine.held_out_losses(batch(0))
            assert not held_out[~counted].any()
            curve = [[r.loss, r.gradient_norm, r.z_loss] for r in results]
            curves[f"{name}-{stage}"] = [*curve, [float(held_out.double().sum()), int(counted.sum())]]
    print("curves", json.dumps(curves))


@pytest.fixture(scope="module")
def curves():
    program = "from tests.training.test_memory import train_with_engine; train_with_engine()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("curves ")[2])


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("name", RECOMPUTED)
def test_activations_computed_twice_give_the_same_bits(curves, name, stage):
    assert curves[f"{name}-{stage}"] == curves[f"plain-{stage}"]


@pytest.mark.parametrize("stage", range(4))
def test_the_loss_in_chunks_is_the_loss(curves, stage):
    for found, expected in zip(curves[f"chunks-{stage}"], curves[f"plain-{stage}"], strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stage", range(4))
def test_z_loss_is_trained_on_and_reported_apart(curves, stage):
    with_it, plain = curves[f"z-loss-{stage}"], curves[f"plain-{stage}"]
    assert with_it[0][0] == plain[0][0]  # the first loss, before any update, is the plain likelihood
    assert with_it[1][0] != plain[1][0]
    model = fresh_model()
    rows = batch(0)
    counted = torch.from_numpy(rows.labels) != -100
    log_z = model(torch.from_numpy(rows.tokens)).double().logsumexp(-1)[counted]
    assert with_it[0][2] == pytest.approx(0.01 * log_z.square().mean().item(), rel=1e-5)
    assert plain[0][2] == 0.0


def saved_and_gradients(model, tokens):
    """Elements that autograd keeps for the backward pass, and the gradients."""
    kept: dict[int, int] = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(tokens, head=partial(summed_losses, labels_BT=tokens, config=LossConfig()))[0]
    loss.backward()
    return sum(kept.values()), [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("shape", CONFIGS)
def test_less_is_kept_and_gradients_are_the_same_bits(shape):
    tokens = random_tokens(CONFIGS[shape], 2, 20)
    kept, gradients = {}, {}
    for name, memory in {"none": MemoryConfig(), **RECOMPUTED}.items():
        model = random_model(CONFIGS[shape])
        names = [name for name, _ in model.named_parameters()]
        recompute_activations(model.blocks, memory)
        assert [name for name, _ in model.named_parameters()] == names
        kept[name], gradients[name] = saved_and_gradients(model, tokens)
    assert kept["full"] < kept["every_n"] < kept["none"]
    for name in RECOMPUTED:
        for one, other in zip(gradients[name], gradients["none"], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"activation_checkpointing": "some"}, "memory.activation_checkpointing: unknown value 'some'; choose none "),
        ({"every": 0}, "memory.every: is 0; "),
    ],
)
def test_bad_settings_are_named(settings, field):
    with pytest.raises(UserError, match=f"^{field}"):
        MemoryConfig(**settings).check()
