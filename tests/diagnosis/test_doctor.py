"""`python -m framework.doctor` as a user runs it: alone, with ranks, on several hosts with real faults."""

import json
import subprocess
import sys

import pytest

from tests import hosts as network
from tests.hosts import Hosts, ended, launch
from tests.launch import ENVIRONMENT, ROOT, run

QUICK = ("disk_megabytes=4", "network_megabytes=1")


def test_alone_it_says_what_it_found_and_ends_with_one_where_a_run_would_break(tmp_path):
    places = (f"directory={tmp_path}", f"data={tmp_path / 'none'}")
    done = run("framework.doctor", *QUICK, *places, "format=json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["sound"] is False
    bad = [finding for finding in told["findings"] if finding["level"] == "breaks"]
    assert [finding["subject"] for finding in bad] == ["data"]
    assert bad[0]["remedy"]
    assert {"torch", "deepspeed", "cores", "/dev/shm", "open files", f"run directory {tmp_path}"} <= {
        finding["subject"] for finding in told["findings"]
    }
    wrong = run("framework.doctor", "format=xml")
    assert (wrong.returncode, wrong.stderr) == (2, "loam: error: format: unknown value 'xml'; choose table | json\n")


@pytest.mark.slow
def test_ranks_are_measured_together_and_nothing_is_wrong(tmp_path):
    command = [str(ROOT / "launch" / "torchrun.sh"), "framework.doctor", *QUICK, f"directory={tmp_path}"]
    environment = {**ENVIRONMENT, "RANKS": "3", "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 directions reached" in done.stdout
    assert "right on 3 ranks" in done.stdout
    assert done.stdout.splitlines()[-1] == "nothing found that would break a run"


@pytest.mark.slow
@pytest.mark.skipif(bool(network.missing()), reason=network.missing() or "-")
def test_hosts_that_do_not_reach_each_other_are_named(tmp_path):
    with Hosts(3, tmp_path) as hosts:
        a, b, c = hosts
        c.know({"host-c": "127.0.1.1"})  # gloo would listen there
        arguments = ("framework.doctor", *QUICK, "timeout=3", "directory=/tmp/loam-disk/runs", "format=json")
        results = ended(launch([a, b, c], *arguments))
        assert [code for code, _, _ in results] == [1, 1, 1], results
        bad = [f["subject"] for f in json.loads(results[0][1])["findings"] if f["level"] == "breaks"]
        assert bad == ["shared disk"]  # theirs are disks apart; all else is well
        sound = {f["subject"]: f["fact"] for f in json.loads(results[0][1])["findings"] if f["level"] == "sound"}
        assert "right on 3 ranks" in sound["gloo all-reduce"]
        subprocess.run(["ip", "-n", b.space, "route", "add", "blackhole", f"{c.address}/32"], check=True)
        results = ended(launch([a, b, c], *arguments))
        assert [code for code, _, _ in results] == [1, 1, 1], results
        facts = [f["fact"] for f in json.loads(results[0][1])["findings"] if f["subject"] == "network"]
        pairs = [fact.partition(":")[0] for fact in facts if "cannot reach" in fact]
        assert pairs == [
            "rank 1 (host-b) cannot reach rank 2 (host-c) at 10.77.0.3",
            "rank 2 (host-c) cannot reach rank 1 (host-b) at 10.77.0.2",
        ]
