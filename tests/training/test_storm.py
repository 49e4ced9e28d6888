"""Twenty kills at random moments of a run that torchrun starts again: no token is trained twice or skipped."""

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.curves import curve
from tests.launch import ENVIRONMENT, ROOT, SMALL, command, pretrain, records

KILLS = 20
STEPS = 240
STORM = (
    *(f"schedule.steps={STEPS + 1}", f"run.stop_after={STEPS}", "zero=stage1", "validation.every=40"),
    *("checkpoint.every=3", "checkpoint.keep=2", "checkpoint.keep_every=50"),
)


def ranks_of(launcher):
    """Process number of each rank by rank, as far as they have started."""
    found = {}
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for entry in environment:
            if entry.startswith(b"RANK="):
                found[int(entry.removeprefix(b"RANK="))] = int(child)
    return found


def storm(launcher, run, chance):
    """Kill a random rank, some random time after the ranks have started or some random steps after the last ones."""
    killed = []
    while len(killed) < KILLS and launcher.poll() is None:
        ranks = ranks_of(launcher.pid)
        if len(ranks) < 2 or set(ranks.values()) & {number for number, _ in killed}:
            time.sleep(0.02)
            continue
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0, 6))
        else:
            wait_for_steps_beyond(run, chance.randint(1, 14), launcher, ranks)
            time.sleep(chance.uniform(0, 0.05))
        rank = chance.randrange(2)
        try:
            os.kill(ranks[rank], signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed.append((ranks[rank], rank))
    return killed


def wait_for_steps_beyond(run, steps, launcher, ranks):
    """Until so many steps were recorded since these ranks began to; or they are no more."""
    log = run / "log" / "rank-00000.log"
    before = step_lines(log)
    while step_lines(log) < before + steps and launcher.poll() is None and ranks_of(launcher.pid) == ranks:
        time.sleep(0.01)


def step_lines(log):
    return log.read_text().count(" INFO step ") if log.exists() else 0


@pytest.mark.slow
def test_a_storm_of_kills_changes_nothing(runs, data):
    expected = curve(pretrain(runs, data, "calm", *STORM, ranks=2))
    places = (f"run.directory={runs}", "run.name=storm", f"data.path={data}")
    start = command("framework.pretrain", *SMALL, *STORM, *places, ranks=2)
    start.insert(1, f"--max-restarts={2 * KILLS}")
    with (runs / "storm.txt").open("w") as output:
        job = subprocess.Popen(start, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=output)
        killed = []
        thread = threading.Thread(target=lambda: killed.extend(storm(job, runs / "storm", random.Random(7))))
        thread.start()
        code = job.wait()
        thread.join()
    assert code == 0, (runs / "storm.txt").read_text()[-5000:]
    assert len(killed) == KILLS
    assert {rank for _, rank in killed} == {0, 1}
    assert curve(records(runs / "storm")) == expected
    assert [r["data/sequences"] for r in records(runs / "storm")] == [16 * step for step in range(1, STEPS + 1)]
