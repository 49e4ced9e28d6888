"""framework.launcher, and the scripts that call it: exit codes, signals, and what a scheduler is told."""

import os
import signal
import subprocess
import sys
import time

import pytest

from framework import distributed, launcher
from framework.errors import UserError
from tests.curves import curve
from tests.launch import ENVIRONMENT, ROOT, SMALL, records

SRUN = """#!/usr/bin/env bash
# As Slurm's: starts the command once for each node, hands signals on, and ends with the highest code.
echo "srun $*" >>"$RECORD"
while [[ $1 == --* ]]; do shift; done
SLURM_NODEID=0 "$@" &
step=$!
trap 'kill -USR1 "$step"' USR1
code=0
while kill -0 "$step" 2>/dev/null; do wait "$step" && code=0 || code=$?; done
exit "$code"
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$RECORD"
[[ $1 == show ]] && echo localhost
exit 0
"""


@pytest.fixture
def slurm(tmp_path):
    """The environment of a batch script, with a stand-in for Slurm that records what it is asked."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    facts = {"JOB_ID": "4242", "JOB_NUM_NODES": "1", "JOB_NODELIST": "localhost", "NNODES": "1"}
    return {
        **ENVIRONMENT,
        **{f"SLURM_{name}": value for name, value in facts.items()},
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "RECORD": str(tmp_path / "record"),
        "PYTHON": sys.executable,
        "RANKS": "1",
    }


def asked(slurm):
    with open(slurm["RECORD"]) as file:
        return file.read().splitlines()


def batch(slurm, *arguments, script="slurm.sbatch", **more):
    command = ["bash", f"launch/{script}", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**slurm, **more}, **pipes)


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 75])  # and 2 below
def test_the_code_of_the_ranks_is_the_launchers(tmp_path, code):
    (tmp_path / "ranks.py").write_text(f"import sys; sys.exit({code})")
    command = [str(ROOT / "launch" / "torchrun.sh"), "ranks"]
    environment = {**ENVIRONMENT, "PYTHON": sys.executable, "RANKS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr


@pytest.mark.slow
def test_a_slurm_job_is_told_before_its_time_is_up_saves_and_queues_itself_again(slurm, data, tmp_path):
    steps = (*SMALL, "schedule.steps=401", "run.stop_after=400", "run.log_every=1", f"data.path={data}")
    arguments = ("framework.pretrain", *steps, f"run.directory={tmp_path}", "run.name=long")
    job, log = batch(slurm, *arguments), tmp_path / "long" / "log" / "rank-00000.log"
    while not log.exists() or log.read_text().count(" INFO step ") < 3:
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)  # as --signal=B:USR1@300 has Slurm do
    out, err = job.communicate(timeout=60)
    assert job.returncode == 75, out + err
    assert asked(slurm)[-1] == "scontrol requeue 4242"
    assert "srun --kill-on-bad-exit=1 --cpu-bind=none bash -c" in asked(slurm)[1]
    stopped = len(records(tmp_path / "long"))
    assert 3 <= stopped < 400
    assert (tmp_path / "long" / "checkpoints" / f"step-{stopped:08d}" / "manifest.json").exists()
    again = batch(slurm, *arguments, "run.stop_after=" + str(stopped + 2), SLURM_RESTART_COUNT="1")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, out + err
    assert f"taken up at step {stopped}" in out
    assert [step for step, *_ in curve(records(tmp_path / "long"))] == list(range(1, stopped + 3))
    assert asked(slurm)[-1].startswith("srun ")


@pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_rank_that_was_told_half_of_what_it_needs_says_so(monkeypatch, missing):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    distributed.require_environment()
    monkeypatch.delenv(missing)
    with pytest.raises(UserError, match=f"{missing}: is not set, and WORLD_SIZE=2"):
        distributed.require_environment()


def options(*arguments):
    """What torchrun's parser makes of these, as the launcher has it."""
    from torch.distributed import run

    parser = run.get_args_parser()
    parser.set_defaults(master_addr="")
    return parser.parse_args([*arguments, "-m", "framework.pretrain"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--nnodes 2", "MASTER_ADDR: is not given, and there are 2 nodes"),
        ("--nnodes 0", "NODES: '0' is no number of nodes"),
        ("--nproc-per-node 0", "RANKS: '0' is no number of ranks; give 1 or more, or auto"),
        ("--nproc-per-node many", "RANKS: 'many' is no number of ranks"),
        ("--nnodes two", "NODES: 'two' is no number of nodes"),
        ("--nnodes 2 --node-rank 2 --master-addr 10.0.0.1", "NODE_RANK: is 2, and there are 2 nodes; use 0 to 1"),
        ("--nnodes 2 --master-addr 127.0.0.1", "MASTER_ADDR=127.0.0.1, port 29500: means this machine alone"),
        ("--nnodes 1:4 --rdzv-backend c10d --rdzv-endpoint localhost:29400", "--rdzv-endpoint=localhost, port 29400"),
        ("--nnodes 2 --rdzv-backend c10d --rdzv-endpoint localhost:many", "--rdzv-endpoint: "),
    ],
    ids=[
        "no-address",
        "no-nodes",
        "no-ranks",
        "no-number-of-ranks",
        "no-number",
        "no-such-node",
        "localhost",
        "c10d",
        "no-port",
    ],
)
def test_what_torchrun_would_wait_for_is_refused_at_once(arguments, line):
    with pytest.raises(UserError) as refused:
        launcher.look(options(*arguments.split()))
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["launch/torchrun.sh"], "loam: error: nothing to start: name an entry point"),
        (["launch/torchrun.sh", "framework.nosuch"], "loam: error: framework.nosuch: there is no such module"),
        (["launch/slurm.sbatch", "framework.pretrain"], "loam: error: this is a Slurm job; submit it: sbatch"),
        (["launch/slurm_sweep.sbatch", "points.txt"], "loam: error: this is a Slurm array; submit it: sbatch --array"),
        (["env", "RANKS=-1", "launch/deepspeed.sh", "framework.doctor"], "loam: error: RANKS: '-1' is no number of"),
    ],
    ids=["nothing", "no-module", "no-job", "no-array", "ranks"],
)
def test_a_mistake_in_starting_is_one_line(words, line):
    command = words if words[0] == "env" else ["bash", *words]
    environment = ENVIRONMENT | {"PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(line)


def test_one_node_meets_nobody():
    launcher.look(options("--standalone", "--nproc-per-node", "2"))
    launcher.look(options("--nnodes", "1", "--master-addr", "localhost"))


def test_a_slurm_job_with_a_mistake_is_not_queued_again(slurm):
    job = batch(slurm, "framework.pretrain", "model.heads=3")
    _, err = job.communicate(timeout=60)
    assert job.returncode == 2
    assert "model.heads: 3 heads do not divide" in err
    assert not [line for line in asked(slurm) if "requeue" in line]


def test_a_task_of_a_slurm_array_takes_its_line(slurm, tmp_path):
    (tmp_path / "srun").write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')  # what it is given, word by word
    (tmp_path / "srun").chmod(0o755)
    (tmp_path / "points.txt").write_text(
        "# a comment\nrun.name=low optimizer.learning_rate=1e-4\n\n"
        "--multirun run.name=drawn sweep=optuna 'optimizer.learning_rate=tag(log,interval(1e-4,1e-2))'\n"
    )
    slurm["PATH"] = f"{tmp_path}:{slurm['PATH']}"
    points = str(tmp_path / "points.txt")
    for task, expected in {
        "1": ["run.name=low", "optimizer.learning_rate=1e-4"],
        "2": [
            "--multirun",
            "run.name=drawn",
            "sweep=optuna",
            "optimizer.learning_rate=tag(log,interval(1e-4,1e-2))",
        ],
    }.items():
        job = batch(slurm, points, "framework.pretrain", script="slurm_sweep.sbatch", SLURM_ARRAY_TASK_ID=task)
        out, err = job.communicate(timeout=30)
        assert job.returncode == 0, err
        assert out.splitlines()[-len(expected) - 1 :] == ["framework.pretrain", *expected]
    job = batch(slurm, points, "framework.pretrain", script="slurm_sweep.sbatch", SLURM_ARRAY_TASK_ID="3")
    _, err = job.communicate(timeout=30)
    assert job.returncode == 2
    assert "has no line 3" in err
