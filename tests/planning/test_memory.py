"""The prediction of memory against what real updates of the engine take, part by part."""

import json

import pytest

from framework.composition import from_yaml
from framework.config import (
    EmaConfig,
    ModelConfig,
    OptimizerConfig,
    PrecisionConfig,
    PretrainConfig,
    ZeroConfig,
)
from framework.model.huggingface import parameter_shapes
from framework.planning.activations import Pass, block_bytes
from framework.planning.memory import memory_of
from framework.planning.parameters import Parameters, parameters_of
from tests.launch import start_ranks

TENTH = 0.1
LLAMA = "{vocabulary_size: 2048, hidden_size: 384, layers: 3, heads: 6, key_value_heads: 3, head_size: 64, "
LLAMA += "intermediate_size: 1024, tied_embeddings: false}"
GPT2 = "{vocabulary_size: 1024, hidden_size: 256, layers: 4, heads: 4, key_value_heads: 4, head_size: 64, "
GPT2 += "intermediate_size: 1024, norm: layernorm, activation: gelu, position: learned, maximum_positions: 256, "
GPT2 += "attention_bias: true, attention_output_bias: true, mlp_bias: true}"


def text(stage: int, policy: str = "none", model: str = LLAMA, micro: int = 16, **more: str) -> str:
    """A configuration of two forward passes on each of two ranks."""
    lines = {
        "model": model,
        "batch": f"{{sequences: {4 * micro}, micro: {micro}}}",
        "data": "{sequence_length: 64}",
        "zero": f"{{stage: {stage}}}",
        "memory": f"{{activation_checkpointing: {policy}}}",
        **more,
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


CASES = {
    "stage 0": text(0),
    "stage 1": text(1),
    "stage 2": text(2),
    "stage 3": text(3),
    "recomputed": text(2, "full"),
    "one pass": text(2, batch="{sequences: 32, micro: 16}"),
}
MORE = {
    "few activations at stage 0": text(0, micro=2),
    "few activations at stage 3": text(3, micro=2),
    "every second recomputed": text(3, "every_n"),
    "gpt2": text(1, model=GPT2),
    "gpt2 at stage 0": text(0, model=GPT2),
    "gpt2 recomputed": text(0, "full", model=GPT2),
    "lion": text(2, optimizer="{name: lion}"),
    "an average": text(1, ema="{decay: 0.9}"),
    "bf16 at stage 1": text(1, micro=1, precision="{dtype: bf16}"),
    "bf16 at stage 2": text(2, micro=1, precision="{dtype: bf16}"),
    "long rows": text(2, micro=1, data="{sequence_length: 512}"),
}


def measured(texts: dict[str, str], ranks: int) -> dict[str, dict[str, list[int]]]:
    """By `tests.planning.allocations`, of rank 0."""
    processes = start_ranks("tests.planning.allocations", json.dumps(list(texts.values())), ranks=ranks)
    output, errors = processes[0].communicate(timeout=300)
    assert [process.wait(timeout=60) for process in processes] == [0] * ranks, errors
    return dict(zip(texts, json.loads(output.rpartition("marks ")[2]), strict=True))


def compared(text: str, marks: dict[str, list[int]], ranks: int) -> dict[str, tuple[float, float]]:
    """Prediction and fact of weights with optimizer, gradients, activations, and the most that is held at a time."""
    config = from_yaml(text, PretrainConfig)
    parameters = parameters_of(config, parameter_shapes(config.model))
    found = memory_of(config, parameters, ranks, config.batch.micro)
    level, most = ({mark: values[n] for mark, values in marks.items()} for n in (0, 1))
    stage, bf16 = config.zero.stage, config.precision.dtype == "bf16"
    always = found.gradients.always
    bucket = (2 if bf16 else 4) * parameters.trained if stage == 3 else 0
    pairs = {
        "weights and optimizer": (
            found.parts["weights"] + found.parts["optimizer"],
            level["forward"] - always - bucket,
        ),
        "gradients": (found.gradients.updating, level["update"] - level["forward"] + always),
        "peak": (found.total, float(max(most[mark] for mark in most if mark != "made"))),
    }
    if stage in (0, 2) and not bf16:  # at the others weights and buckets come and go at the same time
        between = found.gradients.between if config.batch.sequences > ranks * config.batch.micro else 0.0
        logits = 4 * config.batch.micro * config.data.sequence_length * config.model.vocabulary_size  # log-softmax
        pairs["activations"] = found.activations + logits, level["backward"] - level["forward"] - between
    return pairs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cases", "ranks"),
    [
        pytest.param(CASES, 2, id="2 ranks"),
        pytest.param(CASES, 1, id="1 rank", marks=pytest.mark.slow),
        pytest.param(MORE, 2, id="more on 2 ranks", marks=pytest.mark.slow),
    ],
)
def test_is_what_updates_take(cases, ranks):
    for name, marks in measured(cases, ranks).items():
        pairs = compared(cases[name], marks, ranks)
        off = {part: pair for part, pair in pairs.items() if pair[0] != pytest.approx(pair[1], rel=TENTH)}
        assert not off, name


def billions(stage: int, ranks: int, parameters: int, **settings: object) -> dict[str, float]:
    """States of a model of so many parameters in bf16, on GPUs, in GB."""
    config = PretrainConfig(zero=ZeroConfig(stage=stage), precision=PrecisionConfig("bf16"), **settings)
    config.model.vocabulary_size = 1000
    shapes = parameters_of(config, {"blocks.0.mlp.up.weight": (parameters // 100, 100)})
    found = memory_of(config, shapes, ranks, 1)
    return {"gradients": found.gradients.between / 1e9} | {
        part: found.parts[part] / 1e9 for part in ("weights", "optimizer")
    }


@pytest.mark.parametrize(
    ("stage", "gigabytes"),
    # 7.5e9 parameters on 64 ranks: figure 1 of arXiv:1910.02054. Its gradients have 2 bytes, ours are summed in 4, and
    # at stage 1 each rank has those 4 beside the 2 of a micro-batch
    [(1, 31.4 + 30), (2, 16.6 + 15 / 64), (3, 1.88 + 15 / 64)],
)
def test_states_are_those_of_the_paper(stage, gigabytes):
    assert sum(billions(stage, 64, 7_500_000_000).values()) == pytest.approx(gigabytes, rel=5e-3)


@pytest.mark.parametrize(("optimizer", "decay", "expected"), [("adamw", 0.0, 12), ("lion", 0.0, 8), ("lion", 0.9, 12)])
def test_what_an_optimizer_keeps(optimizer, decay, expected):
    found = billions(2, 1, 10**9, optimizer=OptimizerConfig(name=optimizer), ema=EmaConfig(decay=decay))
    assert found["optimizer"] == pytest.approx(expected)


def test_muon_keeps_one_moment_of_hidden_matrices_and_two_of_the_rest():
    config = PretrainConfig(optimizer=OptimizerConfig(name="muon"))
    found = parameters_of(config, {"blocks.0.mlp.up.weight": (100, 10), "embedding.weight": (50, 10)})
    assert (found.kept, found.orthogonalized) == (1000 + 2 * 500, 1000)


def test_offloaded_state_is_on_the_host():
    found = memory_of(*offloaded(3), 8, 1), memory_of(*offloaded(2), 8, 1)
    for memory in found:
        assert memory.parts["optimizer"] == 0
        assert memory.host >= 12 * 16_000_000 / 8


def offloaded(stage: int) -> tuple[PretrainConfig, Parameters]:
    config = PretrainConfig(zero=ZeroConfig(stage=stage, offload="cpu"), precision=PrecisionConfig("bf16"))
    config.model.vocabulary_size = 1000
    return config, parameters_of(config, {"blocks.0.mlp.up.weight": (4000, 4000)})


@pytest.mark.parametrize("tensor", [1, 2])
def test_activations_are_those_of_korthikanti(tensor):
    """arXiv:2205.05198, equations 1 and 2 without scores: s b h (10 + 24 / t) bytes, of which 2 are masks of dropout.

    Theirs are GELU and LayerNorm, with a dropout after either half of a block, whose mask has a byte.
    """
    model = ModelConfig(*(1000, 1024, 1, 16), head_size=64, intermediate_size=4096, norm="layernorm", activation="gelu")
    one = Pass(rows=2, tokens=2 * 512, length=512, number=2, cpu=False, masks=False, tensor=tensor, sequence=1)
    published = one.tokens * model.hidden_size * (10 + 24 / tensor)
    masks = one.tokens * model.hidden_size * 2  # a byte of each dropout
    assert block_bytes(model, one) == pytest.approx(published - masks, rel=0.01)
