"""Real jobs with other optimizers, schedules, averages and muP: any layout, stopped in any phase, one hand-off."""

import json

import pytest
from safetensors.torch import load_file

from tests.launch import SMALL, pretrain, run
from tests.synthetic import make_data

MUON = ("optimizer=muon", "ema.decay=0.9", "model.mup_base_width=12", "optimizer.no_decay=[embedding.weight]")
LION = ("optimizer=lion", "optimizer.learning_rate=1e-3", "schedule=inverse_square_root", "schedule.decay_steps=6")
PHASES = ("schedule=warmup_stable_decay", "schedule.warmup_steps=6", "schedule.decay_steps=8")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), {"web": 300, "books": 60}, {"web": 60, "books": 16})


def curve(records):
    names = ("step", "train/loss", "train/gradient_norm", "train/learning_rate", "data/batch_hash")
    return [tuple(record[name] for name in names) for record in records]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [MUON, LION], ids=["muon", "lion"])
def test_the_layout_does_not_matter(tmp_path, data, settings):
    reference = pretrain(tmp_path, data, "reference", *settings, "zero=stage2", ranks=2)
    assert reference[-1]["train/loss"] < reference[0]["train/loss"]
    for number, (ranks, stage, micro) in enumerate([(1, 0, 4), (1, 1, 2), (4, 3, 4), (2, 1, 8), (4, 0, 4)]):
        layout = (f"zero=stage{stage}", f"batch.micro={micro}")
        records = pretrain(tmp_path, data, f"layout-{number}", *settings, *layout, ranks=ranks)
        for record, expected in zip(records, reference, strict=True):
            assert record["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-5), (ranks, stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize(
    ("settings", "shared"),
    [(MUON, "parallel.sequence=2"), ((*LION, "ema.decay=0.9", "ema.hand_over=true"), "parallel.tensor=2")],
    ids=["muon", "lion"],
)
def test_nor_do_shared_rows_and_layers(tmp_path, data, settings, shared, stage):
    common = ("model.heads=2", "model.head_size=18", "validation.every=10", *settings)
    alone = pretrain(tmp_path, data, "alone", *common)
    records = pretrain(tmp_path, data, "shared", *common, shared, f"zero=stage{stage}", ranks=4)
    for record, expected in zip(records, alone, strict=True):
        for name in ("train/loss", *(name for name in expected if name.endswith("/loss"))):
            assert record[name] == pytest.approx(expected[name], rel=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("decay_shape", ["linear", "one_minus_sqrt"])
def test_a_run_stopped_in_every_phase_is_the_undisturbed_run(tmp_path, data, decay_shape):
    settings = (*PHASES, *MUON, f"schedule.decay_shape={decay_shape}", "zero=stage2")
    whole = pretrain(tmp_path, data, "whole", *settings, ranks=2)
    for stop in (3, 10, 17, 20):  # of 21: in the warm-up, in the plateau, in the decay
        stopped = pretrain(tmp_path, data, "stopped", *settings, f"run.stop_after={stop}", ranks=2)
    assert curve(stopped) == curve(whole)
    last = "checkpoints/step-00000020/rank-00001.safetensors"
    tensors = load_file(tmp_path / "whole" / last)
    assert any(key.endswith("/ema") for key in tensors)
    assert any(key.endswith("/momentum_buffer") for key in tensors)
    assert (tmp_path / "stopped" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


@pytest.mark.slow
def test_the_average_is_evaluated_and_handed_over_and_leaves_the_run_as_it_is(tmp_path, data):
    to_the_end = ("schedule.steps=12", "run.stop_after=0", "validation.every=4", "model.mup_base_width=12")
    plain = pretrain(tmp_path, data, "plain", *to_the_end, ranks=2)
    average = ("ema.decay=0.9", "ema.every=2", "ema.hand_over=true")
    curves = {}
    for stage in (0, 2, 3):
        name = f"averaged-{stage}"
        curves[stage] = pretrain(tmp_path, data, name, *to_the_end, *average, f"zero=stage{stage}", ranks=2)
        saved = {}
        for file in (tmp_path / name / "checkpoints" / "step-00000012").glob("*.safetensors"):
            saved |= load_file(file)
        written = load_file(tmp_path / name / "model" / "model.safetensors")["model.embed_tokens.weight"]
        assert (written == saved["embedding.weight/ema"]).all()
        assert not (written == saved["embedding.weight/master"]).all()
        assert json.loads((tmp_path / name / "model" / "provenance.json").read_text())["verified_with"]
    assert curve(curves[2]) == curve(plain)
    for stage, records in curves.items():
        for record, expected, other in zip(records, curves[2], plain, strict=True):
            for corpus in ("web", "books"):
                if f"eval/{corpus}/loss" in expected:
                    found = record[f"eval/{corpus}/loss"]
                    assert found == pytest.approx(expected[f"eval/{corpus}/loss"], rel=1e-5), stage
                    assert found != other[f"eval/{corpus}/loss"]


@pytest.mark.slow
def test_mistakes_are_told_in_one_line(tmp_path, data):
    places = (*SMALL, f"run.directory={tmp_path}", "run.name=refused", f"data.path={data}")
    for override, line in (
        ("optimizer=sgd", "optimizer: there is no 'sgd'; choose adamw | lion | muon"),
        ("optimizer.name=sgd", "optimizer.name: unknown value 'sgd'; choose adamw | muon | lion"),
        ("optimizer.no_decay=[embeddings]", "optimizer.no_decay: 'embeddings' matches no parameter; names are like "),
        ("schedule=linear", "schedule: there is no 'linear'; choose constant | cosine | inverse_square_root | "),
        (
            "zero.offload=cpu optimizer=muon",
            "zero.offload: is cpu, and optimizer.name=muon would orthogonalise matrices ",
        ),
        ("ema.hand_over=true", "ema.hand_over: is true, but ema.decay=0 keeps no average; set ema.decay"),
    ):
        done = run("framework.pretrain", *places, *override.split())
        assert done.returncode == 2, done.stderr
        (found,) = done.stderr.splitlines()
        assert found.startswith(f"loam: error: {line}")
