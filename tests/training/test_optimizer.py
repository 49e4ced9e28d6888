"""The engine's updates against a loop of plain torch, at every ZeRO stage on one rank."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from framework.config import BatchConfig, ModelConfig, OptimizerConfig, PretrainConfig, ZeroConfig
from framework.model.transformer import Transformer, initialize
from framework.stream.loader import NO_LOSS, Batch
from framework.training.optimization.optimizer import build_optimizer
from tests.launch import ENVIRONMENT, ROOT

MODEL = ModelConfig(vocabulary_size=50, hidden_size=12, layers=2, heads=3, head_size=4, attention_bias=True)
STEPS, ROWS, MICRO, TIME = 6, 8, 2, 10
RATES = [0.004, 0.01, 0.01, 0.008, 0.004, 0.001]
CLIPPING = {"clipped": 0.3, "free": 0.0}


def optimizer_config(clipping: float) -> OptimizerConfig:
    return OptimizerConfig(weight_decay=0.5, gradient_clipping=clipping)


def batch(step: int) -> Batch:
    """Random rows; the labels that count differ in number from row to row."""
    random = np.random.default_rng(step)
    tokens = random.integers(0, MODEL.vocabulary_size, (ROWS, TIME + 1))
    labels = np.where(random.random((ROWS, TIME)) < np.linspace(0.1, 0.9, ROWS)[:, None], NO_LOSS, tokens[:, 1:])
    return Batch(tokens[:, :-1].copy(), labels, np.zeros((ROWS, TIME), dtype=np.int32), [""] * ROWS)


def fresh_model() -> Transformer:
    model = Transformer(MODEL)
    initialize(model, MODEL, seed=3)
    return model


def train_with_engine(directory: str) -> None:
    """For a process of its own: the engine at every stage; weights, losses and norms to files."""
    from framework.training.engine import Engine
    from framework.training.state import whole_weights

    for name, clipping in CLIPPING.items():
        for stage in range(4):
            config = PretrainConfig(
                model=MODEL,
                batch=BatchConfig(sequences=ROWS, micro=MICRO),
                optimizer=optimizer_config(clipping),
                zero=ZeroConfig(stage=stage),
            )
            engine = Engine(fresh_model(), config)
            results = [engine.step(batch(step), rate) for step, rate in enumerate(RATES)]
            numbers = {
                ".losses": torch.tensor([r.loss for r in results], dtype=torch.float64),
                ".norms": torch.tensor([r.gradient_norm for r in results], dtype=torch.float64),
            }
            save_file({**whole_weights(engine), **numbers}, Path(directory) / f"{name}-{stage}.safetensors")


def train_plainly(clipping: float) -> dict[str, torch.Tensor]:
    """The same with torch alone: whole batches, mean loss, the groups by name."""
    model, config = fresh_model(), optimizer_config(clipping)
    plain = [p for n, p in model.named_parameters() if "norm" in n or n.endswith(".bias")]
    matrices = [p for n, p in model.named_parameters() if not ("norm" in n or n.endswith(".bias"))]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
    )
    losses, norms = [], []
    for step, rate in enumerate(RATES):
        rows = batch(step)
        logits = model(torch.from_numpy(rows.tokens))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(rows.labels).flatten(), ignore_index=NO_LOSS)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), clipping or float("inf"))))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
    numbers = {".losses": torch.tensor(losses), ".norms": torch.tensor(norms)}
    return {name: value.detach() for name, value in [*model.named_parameters(), *numbers.items()]}


@pytest.fixture(scope="module")
def engine_results(tmp_path_factory):
    directory = tmp_path_factory.mktemp("engine")
    program = f"from tests.training.test_optimizer import train_with_engine; train_with_engine({str(directory)!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("name", CLIPPING)
def test_the_engine_does_what_plain_torch_does(engine_results, name, stage):
    expected = train_plainly(CLIPPING[name])
    found = load_file(engine_results / f"{name}-{stage}.safetensors")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        bound = {"rtol": 1e-5, "atol": 0} if key.startswith(".") else {"rtol": 0, "atol": 1e-6}
        torch.testing.assert_close(found[key].to(value.dtype), value, **bound)


def test_clipping_was_needed_and_weights_moved():
    clipped, free, start = (
        train_plainly(CLIPPING["clipped"]),
        train_plainly(0.0),
        dict(fresh_model().named_parameters()),
    )
    assert clipped[".norms"].min() > CLIPPING["clipped"]
    for name, weight in start.items():
        assert (clipped[name] - weight).abs().max() > 1e-4
    assert any((clipped[name] - free[name]).abs().max() > 1e-4 for name in start)


def test_matrices_and_embeddings_decay_and_nothing_else():
    model = fresh_model()
    groups = build_optimizer(model, PretrainConfig(model=MODEL, optimizer=optimizer_config(1.0))).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    attention = [f"attention.{part}" for part in ("query", "key", "value", "output")]
    matrices = [*attention, "mlp.gate", "mlp.up", "mlp.down"]
    expected = {f"blocks.{layer}.{matrix}.weight" for layer in range(2) for matrix in matrices} | {"embedding.weight"}
    assert {name for name, p in model.named_parameters() if decay[id(p)] == 0.5} == expected
    assert all(decay[id(p)] in (0.0, 0.5) for p in model.parameters())
