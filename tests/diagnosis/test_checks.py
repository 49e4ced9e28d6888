"""Each check of the doctor against a fault that is really there, and against none."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from framework.diagnosis import disks, machine, peers, software, surroundings
from framework.diagnosis.finding import Finding, Level, breaks, joined
from framework.diagnosis.peers import Answer, Station
from tests.launch import ENVIRONMENT, ROOT

BREAKS, DOUBT, SOUND = Level.BREAKS, Level.DOUBT, Level.SOUND


def levels(findings):
    return [finding.level for finding in findings]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB; `remount` makes it read-only."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("takes root, to mount a file system")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_little_shared_memory(small_disk):
    [found] = machine.check_shared_memory(gpus=2, path=small_disk)
    assert (found.level, "--shm-size=1g" in found.remedy) == (BREAKS, True)
    assert found.fact.startswith("4.19 MB free")
    assert levels(machine.check_shared_memory(gpus=0, path=small_disk)) == [DOUBT]
    assert levels(machine.check_shared_memory(gpus=2, path=small_disk / "none")) == [DOUBT]


def test_what_is_no_disk():
    [found] = disks.check_disk("run directory", Path("/proc/nowhere"), 1_000_000)
    assert (found.level, found.fact) == (BREAKS, "/proc is on no disk")


def test_a_full_and_a_read_only_disk(small_disk):
    [found] = disks.check_disk("run directory", small_disk / "runs", 3_000_000)
    assert (found.level, found.remedy) == (BREAKS, "free some space, or choose another directory")
    [found] = disks.check_disk("run directory", small_disk / "runs", 1_000_000)
    assert (found.level, "a few checkpoints may fill it" in found.remedy) == (DOUBT, True)
    assert "writes" in found.fact
    assert not list(small_disk.iterdir())  # nothing is left
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    [found] = disks.check_disk("run directory", small_disk / "runs", 1_000_000)
    assert (found.level, "cannot be written (Read-only file system)" in found.fact) == (BREAKS, True)


def test_how_fast_a_disk_is_follows_from_bytes_and_seconds(tmp_path):
    ticks = iter(range(100))  # a second from one look to the next
    written, read, pushed = disks.measure(tmp_path, 8 << 20, clock=lambda: float(next(ticks)))
    assert (written, pushed) == ((8 << 20) + disks.SYNCS, 1.0)
    assert read == (8 << 20) + disks.SYNCS


def test_data_that_are_not_there(tmp_path):
    [found] = disks.check_data(str(tmp_path))
    assert (found.level, "manifest.json" in found.fact) == (BREAKS, True)


def test_a_disk_that_others_do_not_see(tmp_path):
    disks.mark(tmp_path / "runs", "mark")
    assert levels(disks.check_shared(tmp_path / "runs", "mark")) == [SOUND]
    [found] = disks.check_shared(tmp_path / "elsewhere", "mark")
    assert (found.level, "checkpoint.directory=s3://" in found.remedy) == (BREAKS, True)


def test_few_open_files():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        found, _ = machine.check_limits(world_size=64)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (found.level, found.fact) == (BREAKS, "256, 64 ranks need about 1536")


def test_more_ranks_or_threads_than_cores(tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")  # as a container with 1.5 cores has it
    assert machine.usable_cores(tmp_path / "cpu.max") == min(1.5, len(os.sched_getaffinity(0)))
    assert levels(machine.check_cores(ranks=4, cores=2, threads="1")) == [DOUBT]
    [found] = machine.check_cores(ranks=2, cores=8, threads="8")
    assert (found.level, found.remedy) == (DOUBT, "set OMP_NUM_THREADS=4")
    assert levels(machine.check_cores(ranks=2, cores=8, threads="4")) == [SOUND]


def test_versions_out_of_range_and_missing():
    admitted, found = software.ranges(), software.installed()
    assert set(levels(software.check_versions(found, admitted, gpus=False))) == {SOUND}
    other = {**found, "torch": "2.5.1", "deepspeed": "", "triton": ""}
    wrong = {f.subject: f.fact for f in software.check_versions(other, admitted, gpus=True) if f.breaks}
    assert set(wrong) == {"torch", "deepspeed", "triton"}
    assert wrong["torch"].startswith("2.5.1, <2.14,>=2.11 is admitted")
    without = {f.subject for f in software.check_versions(other, admitted, gpus=False) if f.breaks}
    assert without == {"torch", "deepspeed"}


def test_a_package_that_hides_ours(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("")
    look = "from framework.diagnosis.software import check_shadows\nfor f in check_shadows(): print(f.subject, f.fact)"
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", look], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith(f"package kernels is {tmp_path}/kernels, not "), done.stderr
    assert software.check_shadows() == []


def test_a_driver_without_a_torch_for_it(tmp_path, monkeypatch):
    import torch

    if torch.version.cuda is not None:
        pytest.skip("this torch is for GPUs")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 570.86.15\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    [found] = software.check_cuda()
    assert (found.level, "driver 570.86.15, but this torch was built for CPUs" in found.fact) == (DOUBT, True)


def test_variables_that_surprise():
    assert levels(surroundings.check_variables({"HOME": "/"})) == [SOUND]
    found = surroundings.check_variables({"NCCL_P2P_DISABLE": "1", "WORLD_SIZE": "4", "NCCL_DEBUG": "INFO"})
    assert [(f.subject, f.level) for f in found[:2]] == [("NCCL_P2P_DISABLE=1", DOUBT), ("launcher", BREAKS)]
    assert found[-1].fact == "NCCL_DEBUG=INFO"
    alone = surroundings.check_variables({"SLURM_NTASKS": "8", "SLURM_STEP_ID": "0"})
    assert "each would train alone" in alone[0].fact


def test_interfaces_that_are_not_there():
    known = {"lo", "eth0", "eth1"}
    assert surroundings.check_interfaces({"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth"}, known) == []
    assert surroundings.check_interfaces({"NCCL_SOCKET_IFNAME": "^docker0"}, known) == []
    for name, value in (("GLOO_SOCKET_IFNAME", "eth"), ("NCCL_SOCKET_IFNAME", "=eth"), ("NCCL_SOCKET_IFNAME", "ib")):
        [found] = surroundings.check_interfaces({name: value}, known)
        assert (found.level, "there are eth0, eth1, lo" in found.fact) == (BREAKS, True)


def test_a_master_that_is_every_machine_itself():
    there = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    assert surroundings.check_master(there, machines=1) == []
    found = surroundings.check_master(there, machines=2)[0]
    assert (found.level, found.fact.endswith("here: each machine itself")) == (BREAKS, True)
    [found] = surroundings.check_master({**there, "MASTER_ADDR": "no-such-host.invalid"}, machines=2)
    assert found.breaks


def station_facts(station, host, address="127.0.0.1"):
    return {"host": host, "address": address, "port": station.port}


@pytest.mark.parametrize(
    ("ahead", "level"), [(0.0, SOUND), (2.5, DOUBT), (-7200.0, BREAKS)], ids=["right", "a-little", "hours"]
)
def test_a_clock_that_is_wrong(ahead, level):
    right, wrong = Station(), Station(clock=lambda: time.time() + ahead)
    stations = [station_facts(right, "a"), station_facts(wrong, "b")]
    answer = peers.call("127.0.0.1", right.port, 5.0, clock=lambda: time.time() + ahead)  # as rank 1 asks rank 0
    assert abs(-answer.ahead - ahead) <= answer.seconds / 2 + 1e-3
    [found] = peers.check_clocks(stations, [None, answer])
    assert found.level == level
    assert f"rank 1 (b) is {-answer.ahead:+.3f} s from rank 0's" in found.fact
    assert abs(peers.call("127.0.0.1", wrong.port, 5.0).ahead - ahead) <= 0.5  # and the other way round
    right.close()
    wrong.close()


def test_a_peer_that_does_not_answer_is_named_with_the_pair():
    up = Station()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        stations = [station_facts(up, "a"), {"host": "b", "address": "127.0.0.1", "port": taken.getsockname()[1]}]
        answers = [peers.call_all(stations, 0, 1.0), peers.call_all(stations, 1, 1.0)]
    found = peers.check_reach(stations, answers)
    assert found[0].level == BREAKS
    assert found[0].fact == "rank 0 (a) cannot reach rank 1 (b) at 127.0.0.1: Connection refused"
    assert found[1].fact.startswith("1 of 2 directions reached")
    up.close()


def test_machines_with_one_name():
    stations = [{"host": "a", "address": address, "port": 1} for address in ("10.0.0.1", "10.0.0.2", "10.0.0.2")]
    [found] = peers.check_names(stations)
    assert (found.level, found.fact) == (DOUBT, "a is the name of 10.0.0.1, 10.0.0.2")
    assert peers.check_names(stations[1:]) == []


def test_a_slow_answer_is_a_doubt():
    stations = [{"host": name, "address": "", "port": 1} for name in "ab"]
    [found] = peers.check_reach(stations, [[None, Answer(0.5)], [Answer(0.001), None]])
    assert (found.level, "slowest 500000 µs: rank 0 (a) to rank 1 (b)" in found.fact) == (DOUBT, True)


def test_what_machines_find_alike_is_one_line():
    torch, bad = Finding("torch", "2.13.0"), breaks("disk", "full", "free it")
    lines = joined([("a", [torch]), ("b", [torch, bad])])
    assert [(line.where, line.subject) for line in lines] == [("all 2", "torch"), ("b", "disk")]
