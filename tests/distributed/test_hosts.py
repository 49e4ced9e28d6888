"""Several hosts, each with its own address, name and disk, in network namespaces: what the README calls nodes."""

import json
import shutil
import sys
import time

import pytest

from tests import hosts as network
from tests.curves import curve
from tests.hosts import Hosts, ended, launch
from tests.launch import ROOT, SMALL, records
from tests.synthetic import make_data

pytestmark = pytest.mark.skipif(bool(network.missing()), reason=network.missing() or "-")

MEET = """
import sys
from framework.errors import UserError
from framework.rendezvous import Meeting, meet
nodes, node, address, wait = sys.argv[1:]
try:
    meet(Meeting(int(nodes), int(node), address, 29500, wait=float(wait)))
except UserError as error:
    sys.exit(f"loam: {error}")
"""


@pytest.fixture
def three(tmp_path):
    with Hosts(3, tmp_path) as hosts:
        yield list(hosts)


def meeting(host, nodes, node, address, wait=2.0):
    return host.start(sys.executable, "-c", MEET, str(nodes), str(node), address, str(wait))


def refusals(*processes):
    """What each of them, refused, says last."""
    results = ended(list(processes), seconds=20)
    assert all(code == 1 for code, _, _ in results), results
    return [err.strip().splitlines()[-1] for _, _, err in results]


# ------------------------------------------------------------------------------------------ before the start


def test_nodes_meet_and_leave_the_port_free(three):
    a, b, c = three
    for _ in range(2):  # the second time at once: nothing of the first is in the way
        results = ended([meeting(b, 3, 1, a.address), meeting(c, 3, 2, a.address), meeting(a, 3, 0, a.address)])
        assert [code for code, _, _ in results] == [0, 0, 0]
        assert "3 nodes have met: host-a, host-b (10.77.0.2), host-c (10.77.0.3)" in results[2][2]


def test_a_node_that_does_not_come_is_named_on_all_others(three):
    a, b, _ = three
    lines = refusals(meeting(a, 3, 0, a.address), meeting(b, 3, 1, a.address))
    assert lines[0] == lines[1]
    assert "node 2 of 3 did not come within 2 s" in lines[0]


def test_nodes_that_were_told_different_things_say_so(three):
    a, b, c = three
    lines = refusals(meeting(a, 3, 0, a.address), meeting(b, 3, 1, a.address), meeting(c, 3, 1, a.address))
    assert len(set(lines)) == 1
    assert "say that they are node 1" in lines[0]
    assert "host-b (10.77.0.2)" in lines[0]
    lines = refusals(meeting(a, 2, 0, a.address), meeting(b, 3, 1, a.address))
    assert len(set(lines)) == 1
    assert "host-b (10.77.0.2), was told of 3 nodes, node 0 of 2" in lines[0]


@pytest.mark.slow
def test_a_wrong_address_is_told_on_every_node(three):
    a, b, c = three
    none, first = c.address.replace(".3", ".9"), "is no address of this machine, which is node 0; this machine has"
    lines = refusals(meeting(a, 2, 0, none), meeting(b, 2, 1, none))
    assert f"MASTER_ADDR={none}, port 29500: {none} {first} 10.77.0.1" in lines[0]
    assert f"MASTER_ADDR={none}, port 29500: node 1 cannot meet node 0 there (No route to host" in lines[1]
    lines = refusals(meeting(a, 2, 0, "192.0.2.1"), meeting(b, 2, 1, "192.0.2.1"))
    assert "192.0.2.1 is no address of this machine" in lines[0]
    assert "(Network is unreachable" in lines[1]
    lines = refusals(meeting(a, 2, 0, c.address), meeting(b, 2, 1, c.address))
    assert "is no address of this machine" in lines[0]
    assert "(Connection refused" in lines[1]
    lines = refusals(meeting(a, 2, 0, "no-such-host"), meeting(b, 2, 1, "no-such-host"))
    assert all("no-such-host, port 29500: no such host" in line for line in lines)


def test_an_address_that_means_this_machine_on_every_machine_is_refused(three):
    a, b, _ = three
    a.know({a.name: "127.0.1.1"})  # as Debian's installer writes it
    b.know({a.name: a.address})
    lines = refusals(meeting(a, 2, 0, a.name), meeting(b, 2, 1, a.name))
    assert "MASTER_ADDR=host-a, port 29500: is 127.0.1.1 here (see /etc/hosts), which means this machine" in lines[0]
    assert "this machine has 10.77.0.1" in lines[0]
    assert "MASTER_ADDR=host-a, port 29500: node 1 cannot meet node 0 there (Connection refused" in lines[1]
    for address in ("localhost", "127.0.0.1"):
        lines = refusals(meeting(a, 2, 0, address), meeting(b, 2, 1, address))
        assert all("means this machine alone on every machine, and there are 2 nodes" in line for line in lines)
    lines = refusals(meeting(b, 2, 1, b.address))
    assert "is this machine's own address 10.77.0.2 (eth0), but this is node 1" in lines[0]


def test_an_endpoint_of_c10d_is_reached_or_told(three):
    a, b, _ = three
    reach = MEET.replace("import Meeting, meet", "import Meeting, reach as meet").replace("29500,", "29400,")
    server = a.start(sys.executable, "-m", "http.server", "29400")
    results = ended([h.start(sys.executable, "-c", reach, "2", "-1", a.address, "10") for h in (a, b)])
    server.kill()
    assert [code for code, _, _ in results] == [0, 0], results
    [(code, _, err)] = ended([b.start(sys.executable, "-c", reach, "2", "-1", a.address, "1")])
    assert (code, "cannot be reached (Connection refused, for 1 s" in err) == (1, True)


def test_a_port_that_is_taken_and_one_with_another_program_are_told(three):
    a, b, _ = three
    server = a.start(sys.executable, "-m", "http.server", "29500")
    time.sleep(0.5)
    lines = refusals(meeting(a, 2, 0, a.address), meeting(b, 2, 1, a.address))
    server.kill()
    assert "another program listens there already" in lines[0]
    assert "what listens there is no node 0 that waits" in lines[1]


def test_the_script_ends_with_two_and_a_line_within_seconds(three):
    a, b, _ = three
    before = time.monotonic()
    results = ended(launch([a, b], "framework.pretrain", MASTER_ADDR="10.77.0.9", NODES_WAIT="2"))
    assert [code for code, _, _ in results] == [2, 2]
    assert "10.77.0.9 is no address of this machine" in results[0][2]
    assert "cannot meet node 0 there" in results[1][2]
    assert time.monotonic() - before < 60
    script = str(ROOT / "launch" / "torchrun_nodes.sh")
    [(code, _, err)] = ended([a.start(script, "framework.pretrain", NODES="2", NODE_RANK="0")])
    assert (code, err) == (2, f"loam: error: MASTER_ADDR: is not set; the head of {script} says what it means\n")


# ------------------------------------------------------------------------------------------------- real runs

STEPS = (*SMALL, "schedule.steps=61", "run.stop_after=60", "data.path=data", "run.log_every=1")
REMOTE = (*STEPS, "checkpoint.directory=s3://runs")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two hosts with data of their own; host-b's lacks the manifest and the tokenizer, which rank 0 alone needs."""
    with Hosts(2, tmp_path_factory.mktemp("hosts")) as hosts:
        a, b = hosts
        make_data(a.disk / "data", {"web": 300, "books": 60}, {"web": 60, "books": 16})
        shutil.copytree(a.disk / "data", b.disk / "data")
        (b.disk / "data" / "tokens" / "manifest.json").unlink()
        shutil.rmtree(b.disk / "data" / "tokenizer")
        yield hosts


@pytest.fixture(scope="module")
def expected(two):
    """The same run on one host, with two ranks."""
    a, _ = two
    script = str(ROOT / "launch" / "torchrun.sh")
    [(code, out, err)] = ended([a.start(script, "framework.pretrain", *STEPS, "run.name=whole", RANKS="2")])
    assert code == 0, out + err
    return curve(records(a.disk / "runs" / "whole"))


@pytest.fixture(scope="module")
def bucket(two):
    """Variables for an S3 server on the first host."""
    a, _ = two
    variables = {
        "AWS_ENDPOINT_URL": f"http://{a.address}:5000",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server = a.start(sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", "5000")
    make = "import boto3, sys; boto3.client('s3').create_bucket(Bucket='runs')"
    for _ in range(40):
        [(code, _, err)] = ended([a.start(sys.executable, "-c", make, **variables)])
        if code == 0:
            break
        time.sleep(0.5)
    assert code == 0, err
    yield variables
    server.kill()


@pytest.mark.slow
def test_two_hosts_without_a_shared_disk_train_as_one_host_does(two, expected, bucket):
    a, b = two
    for stop in ("12", "60"):  # and go on from a checkpoint
        arguments = ("framework.pretrain", *REMOTE, "run.name=apart", f"run.stop_after={stop}")
        results = ended(launch([a, b], *arguments, **bucket))
        assert [code for code, _, _ in results] == [0, 0], results
    assert "apart/step-00000012: taken up at step 12" in results[0][1]
    assert curve(records(a.disk / "runs" / "apart")) == expected
    starts = [json.loads(line) for line in (a.disk / "runs" / "apart" / "starts.jsonl").read_text().splitlines()]
    assert [start["hosts"] for start in starts] == [{"host-a": 1, "host-b": 1}] * 2
    left = [path.relative_to(b.disk / "runs") for path in (b.disk / "runs").rglob("*") if path.is_file()]
    assert [str(path) for path in left] == ["apart/log/rank-00001.log"]  # all else is rank 0's, or in the store
    assert not list((b.disk / "runs").rglob("*.partial"))


@pytest.mark.slow
def test_checkpoints_on_disks_apart_are_refused_before_the_first_step(two):
    a, b = two
    results = ended(launch([a, b], "framework.pretrain", *STEPS, "run.name=split"))
    assert [code for code, _, _ in results] == [2, 2]
    assert "runs/split/checkpoints: host-b does not see what rank 0 writes there" in results[1][2]
    assert not (a.disk / "runs" / "split").exists()


@pytest.mark.slow
def test_a_host_that_is_cut_off_is_named_and_the_run_goes_on_when_it_is_back(two, expected, bucket):
    a, b = two
    arguments = ("framework.pretrain", *REMOTE, "run.name=cut", "guard.timeout=4", "checkpoint.every=3")
    job = launch([a, b], *arguments, **bucket)
    log = a.disk / "runs" / "cut" / "log" / "rank-00000.log"
    while not log.exists() or log.read_text().count(" INFO step ") < 7:
        assert job[0].poll() is None, job[0].communicate()
        time.sleep(0.01)
    two.cut(b)
    results = ended(job)
    two.mend(b)
    assert [code for code, _, _ in results] == [70, 70], results
    assert "loam: hung: rank 1 on host-b, last heard of at step" in results[0][2]
    assert "its machine is gone" in results[0][2]
    assert "the launcher keeps, does not answer: host-a, where it is, or the network to it is gone" in results[1][2]
    results = ended(launch([a, b], *arguments, **bucket))
    assert [code for code, _, _ in results] == [0, 0], results
    assert "cut/step-0000000" in results[0][1]
    assert curve(records(a.disk / "runs" / "cut")) == expected


@pytest.mark.slow
def test_deepspeeds_launcher_starts_hosts_without_ssh(two):
    a, b = two
    for host in two:
        (host.disk / "hostfile").write_text(f"# ours\n{a.address} slots=1\n\n{b.address} slots=1\n")
    arguments = ("framework.doctor", "directory=/tmp", "disk_megabytes=4", "network_megabytes=1", "format=json")
    results = ended(launch([a, b], *arguments, script="deepspeed.sh", HOSTFILE="hostfile", NODES=""))
    assert [code for code, _, _ in results] == [0, 0], results
    told = next(json.loads(out[out.index("{\n") : out.rindex("}") + 1]) for _, out, _ in results if "{\n" in out)
    facts = {finding["subject"]: finding["fact"] for finding in told["findings"]}
    assert "right on 2 ranks" in facts["gloo all-reduce"]
    results = ended(launch([a, b], *arguments, script="deepspeed.sh", HOSTFILE="hostfile", MASTER_ADDR="localhost"))
    assert [code for code, _, _ in results] == [2, 2]
    assert all("means this machine alone on every machine" in err for _, _, err in results)
