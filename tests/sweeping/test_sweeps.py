"""Sweeps as users start them: what they leave, and that neither a kill nor the number of ranks changes it."""

import json
import os
import random
import re
import shlex
import signal
import subprocess
import time

import pytest
import yaml

from tests.curves import curve
from tests.launch import ENVIRONMENT, command, records, run, start_ranks
from tests.page.harmless import Page
from tests.sweeping.conftest import SWEEP, sweep_of

GRID = tuple(
    argument for argument in SWEEP if not argument.startswith(("sweep", "optimizer.", "model.layers", "loss."))
)


def curves(folder):
    """The steps of every trial."""
    return {path.name: curve(records(path)) for path in (folder / "runs").iterdir() if path.name != "swept"}


def wait_for(folder, condition, job):
    path = folder / "runs" / "swept" / "sweep.json"
    while not path.exists() or not condition(json.loads(path.read_text())["trials"]):
        assert job.poll() is None, job.communicate()
        time.sleep(0.002)


def ended(folder, data, ranks=1):
    done = run("framework.pretrain", *SWEEP, f"data.path={data}", cwd=folder, ranks=ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_trials_are_runs_that_differ_in_what_was_drawn(undisturbed):
    sweep = sweep_of(undisturbed)
    assert [trial["number"] for trial in sweep["trials"]] == list(range(4))
    for trial in sweep["trials"]:
        folder = undisturbed / "runs" / f"swept-{trial['number']}"
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["run"]["name"] == config["tracker"]["group"] + f"-{trial['number']}" == folder.name
        assert config["optimizer"]["learning_rate"] == float(trial["parameters"]["optimizer.learning_rate"])
        assert config["model"]["layers"] == int(trial["parameters"]["model.layers"])
        assert config["loss"]["z_loss"] == float(trial["parameters"]["loss.z_loss"])
        steps = records(folder)
        held_out = {r["step"]: [v for k, v in r.items() if re.fullmatch("eval/.*/loss", k)] for r in steps}
        assert trial["values"] == {str(step): sum(two) / 2 for step, two in held_out.items() if two}
        assert trial["step"] == steps[-1]["step"]
        assert (folder / "model").exists() == (trial["state"] == "complete")


def test_one_that_does_worse_than_the_median_ends_early(undisturbed):
    trials = sweep_of(undisturbed)["trials"]
    states = [trial["state"] for trial in trials]
    assert states[:2] == ["complete", "complete"]
    assert "stopped" in states
    for trial in trials[2:]:
        before = [other for other in trials[: trial["number"]] if other["state"] == "complete"]
        for step, value in trial["values"].items():
            there = sorted(other["values"][step] for other in before)
            middle = (there[(len(there) - 1) // 2] + there[len(there) // 2]) / 2
            is_last_seen = int(step) == trial["step"]
            assert (value > middle) == (is_last_seen and trial["state"] == "stopped") or int(step) == 6
    stopped = next(trial for trial in trials if trial["state"] == "stopped")
    assert stopped["step"] < 6
    assert re.match(r"eval/\*loss is worse than the median [\d.]+ of \d trials at step \d", stopped["reason"])


@pytest.mark.slow
def test_the_best_one_by_hand_is_the_same_run(undisturbed, data):
    sweep = sweep_of(undisturbed)
    complete = {t["number"]: t["value"] for t in sweep["trials"] if t["state"] == "complete"}
    assert complete[sweep["best"]] == min(complete.values())
    words = shlex.split(sweep["again"])
    assert words[:3] == ["python", "-m", "framework.pretrain"]
    done = run(
        "framework.pretrain", *words[3:], "run.stop_after=5", "run.directory=alone", cwd=undisturbed
    )  # no hand-off
    assert done.returncode == 0, done.stderr
    alone = records(undisturbed / "alone" / "swept-best")
    assert curve(alone) == curve(records(undisturbed / "runs" / f"swept-{sweep['best']}"))[:5]


def test_the_page_and_the_table_show_every_trial(undisturbed):
    sweep = sweep_of(undisturbed)
    page = Page((undisturbed / "runs" / "swept" / "sweep.html").read_text())
    links = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert links == {f"../swept-{number}/report.html" for number in range(4)}
    for link in links:
        assert (undisturbed / "runs" / "swept" / link).exists()
    assert re.search(rf"The best of 4 trials is\s+swept-{sweep['best']}\s+, with", page.text)
    assert sweep["again"] in page.text
    dots = [attributes for tag, attributes in page.elements if (attributes.get("class") or "").startswith("point")]
    assert len(dots) == 4 * (1 + 3)  # over the trials, and over each field
    table = (undisturbed / "stdout").read_text().partition("Sweep swept")[2]
    for trial in sweep["trials"]:
        assert f"{trial['value']:.5g}" in table
        assert trial["parameters"]["optimizer.learning_rate"] in table
    assert f"best: runs/swept-{sweep['best']}; to have it again:" in table


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_as_if_it_had_not_been(undisturbed, data, tmp_path):
    whole = command("framework.pretrain", *SWEEP, f"data.path={data}")
    job = subprocess.Popen(whole, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(tmp_path, lambda trials: len(trials) == 2 and len(trials[1]["values"]) == 1, job)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert sweep_of(tmp_path)["trials"][1]["state"] == "running"
    said = ended(tmp_path, data)
    assert re.findall(r"^trial (\d) of 4: model.layers=", said, re.M) == ["1", "2", "3"]
    assert sweep_of(tmp_path) == sweep_of(undisturbed)
    assert curves(tmp_path) == curves(undisturbed)


@pytest.fixture(scope="module")
def undisturbed_on_two(tmp_path_factory, data):
    """The folder in which the same ran on two ranks."""
    folder = tmp_path_factory.mktemp("two")
    ended(folder, data, ranks=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_sweep_that_is_killed_again_and_again(undisturbed_on_two, data, tmp_path, seed):
    draw, kills, seen, codes = random.Random(seed), 0, 0, []
    while codes != [0, 0]:
        job = start_ranks("framework.pretrain", *SWEEP, f"data.path={data}", ranks=2, folders=[tmp_path] * 2)
        more = seen + draw.randint(1, 3)
        while job[0].poll() is None:
            seen = validations(tmp_path)
            if seen >= more:
                time.sleep(draw.random() / 4)  # which may be between two trials, or in a hand-off
                os.killpg(job[0].pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        codes = [(process.communicate(timeout=120), process.returncode)[1] for process in job]
        assert codes in ([0, 0], [-signal.SIGKILL] * 2)
    assert kills >= 2
    assert sweep_of(tmp_path) == sweep_of(undisturbed_on_two)
    assert curves(tmp_path) == curves(undisturbed_on_two)


def validations(folder):
    path = folder / "runs" / "swept" / "sweep.json"
    return sum(len(trial["values"]) for trial in sweep_of(folder)["trials"]) if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("asking", ["SIGTERM", "SIGUSR1"])
def test_a_signal_ends_trial_and_sweep_with_a_checkpoint(undisturbed_on_two, data, tmp_path, asking):
    job = start_ranks("framework.pretrain", *SWEEP, f"data.path={data}", ranks=2, folders=[tmp_path] * 2)
    wait_for(tmp_path, lambda trials: len(trials) == 2 and len(trials[1]["values"]) == 1, job[0])
    job[1].send_signal(getattr(signal, asking))
    said = [process.communicate(timeout=60)[1] for process in job]
    assert [process.returncode for process in job] == [75, 75]
    assert "stopped at step" in said[0]
    ended(tmp_path, data, ranks=2)
    assert sweep_of(tmp_path) == sweep_of(undisturbed_on_two)
    assert curves(tmp_path) == curves(undisturbed_on_two)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_what_one_trial_is_refused_for_does_not_stop_the_others(data, tmp_path, launcher):
    values = ("model.heads=5,3", "optimizer.learning_rate=1e-3,2e-3")
    places = (*GRID, f"data.path={data}")
    done = run("framework.pretrain", *places, *values, ranks=2, launcher=launcher, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trials = sweep_of(tmp_path)["trials"]
    assert [trial["state"] for trial in trials] == ["refused", "refused", "complete", "complete"]
    assert trials[0]["reason"].startswith("model.heads: 5 heads do not divide model.hidden_size=36")
    assert not (tmp_path / "runs" / "swept-0").exists()
    assert f"trial 0 of 4: refused: {trials[0]['reason']}" in done.stderr + done.stdout
    again = run("framework.pretrain", *places, *values, ranks=2, launcher=launcher, cwd=tmp_path)
    assert re.findall(r"trial (\d) of 4: model", again.stdout) == ["0", "1"]  # it may have been mended


@pytest.mark.slow
def test_what_a_rank_alone_is_refused_for_is_told_and_the_sweep_goes_on(data, tmp_path):
    places = (*GRID, f"data.path={data}", "samples.every=0,2", "guard=stop", "optimizer.learning_rate=1e-3,1e30")
    done = run("framework.pretrain", *places, ranks=2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trials = sweep_of(tmp_path)["trials"]
    assert [trial["state"] for trial in trials] == ["complete", "failed", "complete", "failed"]
    assert "training has diverged" in trials[1]["reason"]
    again = run("framework.pretrain", *places, ranks=2, cwd=tmp_path)
    assert "trial" not in again.stdout.partition("Sweep swept")[0]


REFUSED = [
    ("sweep=optuna", "sweep.name: optuna has no field to vary; write some with their values, as in"),
    ("optimizer.learning_rate=interval(1e-4,1e-2)", "optimizer.learning_rate: interval(1e-4,1e-2) cannot be listed;"),
    ("optimizer.learnin_rate=1e-4,1e-2", "optimizer.learnin_rate: there is no such field; did you mean"),
    ("model=tiny,bogus", "model: there is no 'bogus'; choose"),
    ("sweep=optuna model.layers=interval(1,4)", "model.layers: takes whole numbers; write int(interval(LOW,HIGH))"),
    ("run.name=a,b", "run.name: is of the sweep itself, and the same for its trials; give it one value"),
    ("sweep=optuna model.layers=tag(lag,range(1,4))", "model.layers: tag(lag,range(1,4)) has a tag that means nothing"),
    ("model.layers=shuffle(1,2)", "model.layers: shuffle(1,2) has another order at each start; leave out shuffle"),
    (
        "sweep=optuna optimizer.learning_rate=tag(log,interval(0,1))",
        "optimizer.learning_rate: tag(log,interval(0,1)) has no",
    ),
    (
        "sweep=optuna optimizer.learning_rate=interval(1,0)",
        "optimizer.learning_rate: interval(1,0) goes up from 1.0 to 0.0",
    ),
    ("sweep.stopping=mean model.layers=1,2", "sweep.stopping: unknown value 'mean'; choose none | median"),
    ("model.heads=5,7", "none of 2 trials came to its end, trial 0 was refused: model.heads: 5 heads do not divide"),
]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        pytest.param(*one, id=one[0], marks=[pytest.mark.slow] if number > 3 else [])
        for number, one in enumerate(REFUSED)
    ],
)
def test_what_cannot_be_swept_is_told_in_one_line(words, line, tmp_path, monkeypatch, capsys):
    from framework import app, distributed
    from framework.config import PretrainConfig

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(distributed, "leave", leave)
    monkeypatch.setattr("sys.argv", ["pretrain", *GRID, f"run.directory={tmp_path}", *words.split()])
    with pytest.raises(SystemExit) as end:
        app.entry("pretrain", PretrainConfig)(lambda config: pytest.fail("was run"))()
    assert end.value.code == 2
    said = [told for told in capsys.readouterr().err.splitlines() if told.startswith("loam: ")]
    assert len(said) == 1
    assert said[0].startswith(f"loam: error: {line}")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_metric_that_there_is_not_ends_the_sweep_and_can_be_mended(data, tmp_path):
    places = (*GRID, f"data.path={data}", "model.layers=1,2")
    done = run("framework.pretrain", *places, "sweep.metric=eval/accuracy", ranks=2, cwd=tmp_path)
    assert re.search(
        r"loam: error: \[rank 0\] sweep.metric: no metric is called 'eval/accuracy'; choose one", done.stderr
    )
    assert run("framework.pretrain", *places, "sweep.metric=train/loss", ranks=2, cwd=tmp_path).returncode == 0
    assert [trial["state"] for trial in sweep_of(tmp_path)["trials"]] == ["complete", "complete"]
