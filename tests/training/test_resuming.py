"""Runs that were killed, damaged or started again with something else: the same curve, or one clear line."""

import hashlib
import os
import re
import shutil
import signal
import time

import pytest

from framework.composition import from_yaml
from framework.config import ObjectiveConfig, PretrainConfig
from framework.errors import UserError
from framework.stream.manifest import read_manifest
from framework.training.checkpoints.identity import identity, orders
from framework.training.pretraining import train
from tests.curves import curve
from tests.launch import SMALL, pretrain, records, run, start_ranks
from tests.synthetic import make_data
from tests.training.conftest import FORTY_STEPS


def places(runs, data, name):
    return f"run.directory={runs}", f"run.name={name}", f"data.path={data}"


def hashes(directory):
    """Of every file in it, or of the file that it is."""
    files = [path for path in [directory, *sorted(directory.rglob("*"))] if path.is_file()]
    return {path.relative_to(directory): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_killed_job_goes_on_as_if_nothing_had_happened(runs, data, undisturbed):
    job = start_ranks("framework.pretrain", *SMALL, *FORTY_STEPS, *places(runs, data, "killed"), ranks=2)
    metrics = runs / "killed" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 23:
        assert job[0].poll() is None, job[0].communicate()
        time.sleep(0.005)
    os.killpg(job[0].pid, signal.SIGKILL)
    for rank in job:
        rank.communicate()
    assert [rank.returncode for rank in job] == [-signal.SIGKILL] * 2
    assert len(metrics.read_text().splitlines()) < 40
    pretrain(runs, data, "killed", *FORTY_STEPS, ranks=2)
    assert re.search("taken up at step (20|30), ", (runs / "killed" / "log" / "rank-00001.log").read_text())
    assert curve(records(runs / "killed")) == curve(records(undisturbed))


@pytest.mark.slow
def test_damaged_checkpoints_are_passed_over_and_trained_again(runs, data, undisturbed):
    shutil.copytree(undisturbed, runs / "damaged")
    checkpoints = runs / "damaged" / "checkpoints"
    (checkpoints / "step-00000040" / "rank-00000.safetensors").write_bytes(b"")
    (checkpoints / "step-00000030" / "state.json").unlink()
    done = run("framework.pretrain", *SMALL, *FORTY_STEPS, *places(runs, data, "damaged"), ranks=2)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert f"{checkpoints / 'step-00000040'}: passed over, rank-00000.safetensors: its hash" in lines[0]
    assert f"{checkpoints / 'step-00000030'}: passed over, state.json: No such file" in lines[1]
    assert lines[2] == f"{checkpoints / 'step-00000020'}: taken up at step 20, 320 sequences into the data"
    assert curve(records(runs / "damaged")) == curve(records(undisturbed))
    names = ("rank-00000.safetensors", "rank-00001.safetensors")
    for step in (30, 40):  # written again, and equal to the last bit
        for name in names:
            file = f"checkpoints/step-{step:08d}/{name}"
            assert (runs / "damaged" / file).read_bytes() == (undisturbed / file).read_bytes()


@pytest.mark.slow
def test_without_a_sound_checkpoint_nothing_is_trained_and_nothing_removed(runs, data, undisturbed):
    shutil.copytree(undisturbed, runs / "ruined")
    for state in (runs / "ruined" / "checkpoints").glob("*/state.json"):
        state.write_text("{}")
    before = hashes(runs / "ruined" / "checkpoints")
    done = run("framework.pretrain", *SMALL, *FORTY_STEPS, *places(runs, data, "ruined"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("loam: error: ")
    assert all(f"step-{step:08d}: passed over, state.json: its hash" in line for step in (20, 30, 40))
    assert line.endswith("no sound checkpoint is left: restore one, or remove them all to start anew")
    assert hashes(runs / "ruined" / "checkpoints") == before
    assert curve(records(runs / "ruined")) == curve(records(undisturbed))


def config_of(run_directory):
    return from_yaml((run_directory / "config.yaml").read_text(), PretrainConfig)


OTHERS = {  # what is not the same, and how the refusal begins
    "model.layers": 3,
    "model.rope_theta": 5000.0,
    "data.sequence_length": 16,
    "data.lanes": 4,
    "data.seed": 1,
    "data.weights": {"web": 1.0, "books": 1.0},
}


@pytest.mark.parametrize("field", OTHERS)
def test_a_run_is_not_taken_up_with_another_setting(undisturbed, field):
    config, before = config_of(undisturbed), hashes(undisturbed)
    group, name = field.split(".")
    setattr(getattr(config, group), name, OTHERS[field])
    with pytest.raises(UserError) as refusal:
        train(config)
    assert str(refusal.value).startswith(f"{field}: is {OTHERS[field]}, ")
    assert "set it back, or choose another run.name" in str(refusal.value)
    assert hashes(undisturbed) == before


def test_a_run_is_not_taken_up_with_another_seed_or_other_data(undisturbed, tmp_path):
    config = config_of(undisturbed)
    config.run.seed = 1
    with pytest.raises(UserError, match=r"run\.seed: is 1, .* has 0; set it back, or choose another run\.name$"):
        train(config)
    config = config_of(undisturbed)
    config.data.path = str(make_data(tmp_path, {"web": 300, "books": 60}, {"web": 60, "books": 16}, seed=1))
    with pytest.raises(UserError, match=r"corpora\.web: is [0-9a-f]{64}, .* data\.allow_change=true"):
        train(config)


def test_a_checkpoint_of_before_there_were_objectives_is_one_of_causal_lm(undisturbed, data):
    config, manifest = config_of(undisturbed), read_manifest(data)
    now = identity(config, manifest)
    saved = [{"began_at": 0, "identity": {part: value for part, value in now.items() if part != "objective"}}]
    assert orders(saved, now, undisturbed, 640, False) == (saved, [])
    config.objective = ObjectiveConfig("fill_in_middle", 0.5, 0.5)
    with pytest.raises(UserError, match=r"objective\.name: is fill_in_middle, .* has causal_lm; .*allow_change=true$"):
        orders(saved, identity(config, manifest), undisturbed, 640, False)


def test_how_many_tokens_to_train_on_may_change(undisturbed, data):
    config, manifest = config_of(undisturbed), read_manifest(data)
    now = identity(config, manifest)
    config.data.tokens = 1e6
    assert identity(config, manifest) == now


def test_a_run_is_not_taken_up_with_another_optimizer(undisturbed):
    config, before = config_of(undisturbed), hashes(undisturbed)
    config.optimizer.name = "lion"
    with pytest.raises(UserError, match=r"^optimizer\.name: is lion, .* with adamw, .*set it back to adamw"):
        train(config)
    assert hashes(undisturbed) == before


def test_the_same_data_may_lie_elsewhere(undisturbed, data, tmp_path):
    shutil.copytree(data, tmp_path / "moved")
    config = config_of(undisturbed)
    config.data.path = str(tmp_path / "moved")
    config.run.seed = 1  # the next thing that is refused, once the data are found to be the same
    with pytest.raises(UserError, match=r"run\.seed"):
        train(config)


def test_a_refusal_is_one_line_and_code_2(runs, data, undisturbed):
    arguments = (*SMALL, *FORTY_STEPS, *places(runs, data, "refused"), "model.layers=3")
    shutil.copytree(undisturbed, runs / "refused")
    done = run("framework.pretrain", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("loam: error: model.layers: is 3, ")
    for kept in ("checkpoints", "config.yaml", "metrics.jsonl"):
        assert hashes(runs / "refused" / kept) == hashes(undisturbed / kept)


def test_never_resuming_refuses_a_run_that_exists(undisturbed):
    config, before = config_of(undisturbed), hashes(undisturbed)
    config.run.resume = "never"
    with pytest.raises(UserError, match=r"run\.name: .*undisturbed/.* exists and run\.resume=never; choose"):
        train(config)
    assert hashes(undisturbed) == before
