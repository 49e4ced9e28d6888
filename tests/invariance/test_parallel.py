"""Rows and layers shared by ranks give the curve of whole ones: real jobs over gloo, 20 updates in fp32.

Documents are longer than a rank's part of a row, so they cross its borders, and new ones begin within it.
"""

import functools

import pytest
import torch
from safetensors.torch import load_file

from framework.config import BatchConfig, DataConfig, ModelConfig, ParallelConfig, PrecisionConfig, PretrainConfig
from framework.errors import UserError
from tests.curves import BOUND, assert_same_curve, curve
from tests.launch import SMALL, pretrain, records, run

LLAMA = ("model.hidden_size=32", "model.heads=4", "model.head_size=8", "model.intermediate_size=48")
GROUPED = (*LLAMA, "model.key_value_heads=2", "model.qk_norm=true", "model.tied_embeddings=false")
GPT2 = (
    *LLAMA,
    *("model.position=learned", "model.norm=layernorm", "model.activation=gelu"),
    *("model.attention_bias=true", "model.attention_output_bias=true", "model.mlp_bias=true"),
)
ENCODER = (*LLAMA, "model.causal=false", "objective=masked_lm")
MODELS = {"llama": LLAMA, "grouped": GROUPED, "gpt2": GPT2, "encoder": ENCODER}
BOTH = ["parallel.sequence=2", "parallel.tensor=2"]
LAYOUTS = {  # ranks, stage, settings
    "sequence 2": (2, 2, ["parallel.sequence=2"]),
    "tensor 2": (2, 1, ["parallel.tensor=2"]),
    "sequence 2 x data 2": (4, 3, ["parallel.sequence=2"]),
    "tensor 2 x data 2": (4, 2, ["parallel.tensor=2"]),
    "sequence 2 x tensor 2": (4, 1, BOTH),
    "sequence 4": (4, 1, ["parallel.sequence=4"]),  # more than the key-value heads of GROUPED
    "sequence 2, stage 0": (2, 0, ["parallel.sequence=2"]),
    "tensor 2, stage 0": (2, 0, ["parallel.tensor=2"]),
    "sequence 2 x tensor 2, recomputed": (4, 2, [*BOTH, "memory.activation_checkpointing=full"]),
    "sequence 2 x tensor 2, compiled": (4, 1, [*BOTH, "compile=true"]),
    "tensor 2 x data 2, stage 3": (4, 3, ["parallel.tensor=2", "batch.micro=2"]),
}
IN_SHORT = {("grouped", "tensor 2")}
OF_ALL_MODELS = ("sequence 2 x data 2", "sequence 2 x tensor 2", "tensor 2 x data 2, stage 3")


@pytest.fixture(scope="module")
def whole(runs, data):
    """The curve of a model on one rank, which has whole rows and whole layers."""
    return functools.cache(lambda model: pretrain(runs, data, f"{model}-whole", *MODELS[model], "zero=stage1"))


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        pytest.param(model, layout, marks=() if (model, layout) in IN_SHORT else pytest.mark.slow)
        for model in MODELS
        for layout in (LAYOUTS if model == "grouped" else OF_ALL_MODELS)
    ],
)
def test_the_curve_is_that_of_one_rank(runs, data, whole, model, layout):
    ranks, stage, settings = LAYOUTS[layout]
    name = f"{model}-{layout.replace(',', '').replace(' ', '-')}"
    shared = pretrain(runs, data, name, *MODELS[model], f"zero=stage{stage}", *settings, ranks=ranks)
    assert_same_curve(shared, whole(model))


def stop_and_go_on(runs, data, name, first, second):
    """Ten updates in one layout and ten in another; each is (ranks, settings)."""
    pretrain(runs, data, name, *GROUPED, *first[1], "run.stop_after=10", ranks=first[0])
    return pretrain(runs, data, name, *GROUPED, *second[1], ranks=second[0])


ALONE = (1, ["zero=stage1"])
SHARED = (4, ["zero=stage2", *BOTH])
SHARED_3 = (4, ["zero=stage3", "parallel.tensor=2"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("shared-alone", SHARED, ALONE),
        ("alone-shared", ALONE, SHARED),
        ("shared-shared-3", SHARED, SHARED_3),
        ("shared-3-sequence", SHARED_3, (2, ["zero=stage0", "parallel.sequence=2"])),
        ("shared-0", (2, ["zero=stage0", "parallel.tensor=2"]), ALONE),
    ],
)
def test_a_run_goes_on_in_another_layout(runs, data, whole, name, first, second):
    assert_same_curve(stop_and_go_on(runs, data, name, first, second), whole("grouped"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layout"),
    [("again", SHARED), ("again-3", SHARED_3), ("again-bf16", (4, [*SHARED[1], "precision=bf16"]))],
)
def test_in_the_same_layout_a_run_goes_on_exactly(runs, data, name, layout):
    undisturbed = pretrain(runs, data, f"{name}-undisturbed", *GROUPED, *layout[1], ranks=layout[0])
    resumed = stop_and_go_on(runs, data, name, layout, layout)
    assert curve(resumed) == curve(undisturbed)


@pytest.mark.slow
def test_held_out_loss_and_model_directory_are_those_of_one_rank(runs, data):
    to_the_end = ("schedule.steps=12", "run.stop_after=0", "validation.every=6")
    alone = pretrain(runs, data, "end-alone", *GROUPED, *ALONE[1], *to_the_end)
    shared = pretrain(runs, data, "end-shared", *GROUPED, *SHARED[1], *to_the_end, ranks=SHARED[0])
    for step in (5, 11):
        for name in ("eval/web/loss", "eval/books/bits_per_byte"):
            assert shared[step][name] == pytest.approx(alone[step][name], rel=BOUND)
    expected, found = (load_file(runs / name / "model" / "model.safetensors") for name in ("end-alone", "end-shared"))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():  # Adam turns the rounding of a gradient near 0 into a step of up to its rate
        assert torch.allclose(tensor, expected[name], atol=1e-4), name


@pytest.mark.slow
def test_a_sweep_shares_each_trial_in_its_own_way(runs, data, whole):
    places = (f"run.directory={runs}", "run.name=swept", f"data.path={data}")
    done = run(
        "framework.pretrain",
        *("--multirun", *SMALL, *GROUPED, *places, "zero=stage1", "parallel.tensor=2,1"),
        ranks=2,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for trial in ("swept-0", "swept-1"):
        assert_same_curve(records(runs / trial), whole("grouped"))


@pytest.mark.parametrize(
    ("world_size", "change", "line"),
    [
        (3, {"sequence": 2}, "parallel.sequence: groups of parallel.sequence x parallel.tensor = 2 ranks"),
        (6, {"tensor": 4}, "parallel.tensor: groups of parallel.sequence x parallel.tensor = 4 ranks"),
        (3, {"sequence": 3}, "parallel.sequence: 3 does not divide the 4 heads"),
        (4, {"sequence": 4, "tensor": 1}, None),
        (8, {"sequence": 4, "tensor": 2}, "parallel.sequence: 4 does not divide the 2 heads"),
        (4, {"tensor": 4}, "parallel.tensor: 4 does not divide model.key_value_heads=2"),
        (2, {"sequence": 0}, "parallel.sequence: is 0"),
    ],
)
def test_ranks_that_cannot_share_are_refused(world_size, change, line):
    config = PretrainConfig(
        model=ModelConfig(hidden_size=32, heads=4, key_value_heads=2), parallel=ParallelConfig(**change)
    )
    if line is None:
        config.check(world_size)
        return
    with pytest.raises(UserError) as refused:
        config.check(world_size)
    assert str(refused.value).startswith(line)


def test_lengths_that_ranks_cannot_share_are_refused():
    config = PretrainConfig(
        data=DataConfig(sequence_length=64, length_changes={32: 63}), parallel=ParallelConfig(sequence=2)
    )
    with pytest.raises(UserError, match=r"data.length_changes.32: 63 tokens cannot be shared by parallel.sequence=2"):
        config.check(2)


def test_fp8_and_shared_layers_are_refused():
    config = PretrainConfig(precision=PrecisionConfig(dtype="fp8"), parallel=ParallelConfig(tensor=2))
    config.model.intermediate_size = 64
    with pytest.raises(UserError, match=r"parallel.tensor: is 2, .* choose precision=bf16"):
        config.check(2)


def test_a_batch_is_dealt_to_groups_of_ranks():
    config = PretrainConfig(batch=BatchConfig(sequences=4, micro=2), data=DataConfig(lanes=4))
    config.parallel = ParallelConfig(sequence=2, tensor=2)
    config.check(8)  # two groups of four
    config.parallel = ParallelConfig()
    with pytest.raises(UserError, match=r"batch.sequences: 4 cannot be shared by 8 ranks"):
        config.check(8)
