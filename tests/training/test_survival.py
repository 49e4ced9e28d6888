"""Ranks that are stopped, killed, stuck or broken in the midst of a step: what the user sees, and what is left."""

import json
import re
import signal
import subprocess
import time

import pytest

from tests.curves import curve
from tests.launch import ENVIRONMENT, ROOT, SMALL, command, records, start_ranks
from tests.training.conftest import FORTY_STEPS

FOR_EVER = ("schedule.steps=100000", "run.stop_after=0", "checkpoint.every=1000")


@pytest.fixture
def fault(monkeypatch):
    """Says what the next jobs suffer: `fault("KIND:RANK:STEP")`, the step counted in micro-batches."""
    return lambda what: monkeypatch.setitem(ENVIRONMENT, "FAULT", what)


def places(runs, data, name):
    return f"run.directory={runs}", f"run.name={name}", f"data.path={data}"


def wait_for_steps(run, steps, job):
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < steps:
        assert job.poll() is None, job.communicate()
        time.sleep(0.005)


def outcome(job):
    """Exit code and lines of stderr of each rank."""
    texts = [process.communicate(timeout=120)[1] for process in job]
    return [(process.returncode, text.splitlines()) for process, text in zip(job, texts, strict=True)]


def ours(lines):
    return [line for line in lines if line.startswith("loam: ")]


@pytest.mark.parametrize("asking", ["SIGUSR1", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_a_signal_to_one_rank_stops_all_with_a_checkpoint(runs, data, asking):
    name, number = f"asked-{asking}", getattr(signal, asking)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {number})  # as some launchers start their jobs
    job = start_ranks("framework.pretrain", *SMALL, *FOR_EVER, *places(runs, data, name), ranks=2)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    wait_for_steps(runs / name, 3, job[0])
    job[1].send_signal(number)
    ended = outcome(job)
    assert [code for code, _ in ended] == [75, 75]
    done = records(runs / name)[-1]["step"]
    assert ours(ended[0][1]) == [f"loam: stopped at step {done} with a checkpoint; start again to go on"]
    assert ours(ended[1][1]) == []
    (path,) = (runs / name / "checkpoints").iterdir()
    assert json.loads((path / "state.json").read_text())["step"] == done


@pytest.mark.slow
def test_a_rank_that_was_stopped_is_named_and_the_job_ends(runs, data, fault):
    fault("stop:1:14")
    job = start_ranks(
        "tests.faulty_pretrain", *SMALL, *places(runs, data, "halted"), "guard.timeout=5", "batch.micro=8", ranks=2
    )
    (code, lines), (killed, _) = outcome(job)
    assert (code, killed) == (70, -signal.SIGKILL)
    said = ours(lines)
    assert re.match(r"loam: hung: rank 1, last heard of at step \d+: silent, so it was stopped \(SIGSTOP\)", said[0])
    assert re.match(r"loam: rank 0 waits in all_reduce \(step 14, framework/training/engine.py:\d+, ", said[1])
    assert said[2].startswith("loam: no progress for 5 s (guard.timeout): the job ends")
    assert said[0].removeprefix("loam: ") in (runs / "halted" / "log" / "rank-00000.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "rank", "problem"),
    [("sleep", 0, "tests/faulty_pretrain.py"), ("sleep", 1, "tests/faulty_pretrain.py"), ("stop", 0, "silent")],
)
def test_a_hung_rank_is_named_with_its_stack(runs, data, fault, kind, rank, problem):
    name = f"{kind}-{rank}"
    fault(f"{kind}:{rank}:14")
    job = start_ranks(
        "tests.faulty_pretrain", *SMALL, *places(runs, data, name), "guard.timeout=5", "batch.micro=8", ranks=2
    )
    ended = outcome(job)
    assert all(code != 0 for code, _ in ended)
    said = [line for _, lines in ended for line in ours(lines)]
    assert re.match(rf"loam: hung: rank {rank}(, last heard of at step \d+: silent| at step 14)", said[0])
    assert any(problem in line for line in said)
    assert any(line.startswith(f"loam: rank {1 - rank} waits in all_reduce (step 14, ") for line in said)


@pytest.mark.slow
def test_a_rank_that_holds_the_interpreter_shows_its_stack_all_the_same(runs, data, fault):
    fault("hold:1:14")
    arguments = (*SMALL, *places(runs, data, "held"), "guard.timeout=5", "batch.micro=8")
    (code, lines), (killed, its_own) = outcome(start_ranks("tests.faulty_pretrain", *arguments, ranks=2))
    assert (code, killed) == (70, -signal.SIGKILL)
    assert re.match(r"loam: hung: rank 1, last heard of at step \d+: silent", ours(lines)[0])
    assert any("faulty_pretrain.py" in line for line in its_own)


@pytest.mark.slow
def test_the_first_traceback_is_what_the_user_sees(runs, data, fault):
    fault("raise:1:14")
    job = start_ranks("tests.faulty_pretrain", *SMALL, *places(runs, data, "bug"), ranks=2)
    (other, lines), (broken, traceback) = outcome(job)
    assert (other, broken) == (1, 1)
    assert traceback[0].startswith("Traceback")
    assert traceback[-1] == "ValueError: a bug that a test put there"
    assert lines == ["loam: [rank 0] ends because [rank 1] ValueError: a bug that a test put there"]
    assert "ValueError: a bug that a test put there" in (runs / "bug" / "log" / "rank-00001.log").read_text()
    fault("raise:1:14")
    done = torchrun("tests.faulty_pretrain", *SMALL, *places(runs, data, "bug"))
    root = done.stderr.partition("Root Cause")[2]
    assert "ValueError: a bug that a test put there" in root
    assert done.stderr.count("RuntimeError") == 0


def torchrun(module, *overrides, restarts=0):
    """A job of two ranks, each of whose deaths starts it again; to its end."""
    start = command(module, *overrides, ranks=2)
    start.insert(1, f"--max-restarts={restarts}")
    return subprocess.run(start, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=400)


@pytest.mark.slow
def test_a_launcher_starts_a_killed_job_again_and_it_goes_on(runs, data, undisturbed, fault):
    fault("kill:1:70")  # a step is two micro-batches
    done = torchrun("tests.faulty_pretrain", *SMALL, *FORTY_STEPS, *places(runs, data, "again"), restarts=1)
    assert done.returncode == 0, done.stderr
    assert re.search("taken up at step [1-4]0, ", done.stdout)
    assert curve(records(runs / "again")) == curve(records(undisturbed))


@pytest.mark.slow
def test_torchrun_hands_signals_on(runs, data):
    start = command("framework.pretrain", *SMALL, *FOR_EVER, *places(runs, data, "handed"), ranks=2)
    start.insert(1, "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")
    job = subprocess.Popen(
        start, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    wait_for_steps(runs / "handed", 3, job)
    job.send_signal(signal.SIGUSR1)
    _, stderr = job.communicate(timeout=60)
    done = records(runs / "handed")[-1]["step"]
    assert f"loam: stopped at step {done} with a checkpoint" in stderr
    assert (runs / "handed" / "checkpoints" / f"step-{done:08d}").exists()
