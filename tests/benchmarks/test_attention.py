"""The benchmark of attention runs here too, at sizes that say nothing of speed: what it counts, checks and tells."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

import kernels
from benchmarks import attention, elementwise, timing
from benchmarks.attention_contestants import Contestant, Work

WORK = Work(64, 128, 2, 1, 32, torch.float32)
DOCUMENTS = replace(WORK, document=16)


def test_tells_who_is_how_fast(tmp_path, capsys):
    names = ["reference", "sdpa flash"]
    attention.main(["--output", str(tmp_path), "--turns", "1", "--milliseconds", "1", "--contestants", *names])
    told = capsys.readouterr().out
    assert "backward" in told
    assert "dropped: sdpa flash: takes no documents" in told
    found = json.loads((tmp_path / "attention.json").read_text())
    measured = {(r["contestant"], r["time"], r["document"], r["direction"]) for r in found["results"]}
    assert ("reference", 128, 32, "backward") in measured
    assert ("sdpa flash", 64, 0, "forward") in measured
    assert all(r["relative_error"] < 1e-5 and r["calls"] >= 3 and r["teraflops"] > 0 for r in found["results"])
    picture = ElementTree.parse(tmp_path / "attention.svg")
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}circle"))) == 2 * 2 * 2  # rows of 64 and 128


def test_whoever_is_wrong_is_dropped_and_the_others_go_on():
    def off_by_one(_work, inputs):
        return lambda q, k, v: kernels.attention(q, k, v, window=WORK.time - 1)

    def broken(_work, inputs):
        raise RuntimeError("no such kernel\nand a long trace")

    def right(_work, inputs):
        return kernels.attention

    record = attention.Record()
    contestants = [Contestant("off", off_by_one), Contestant("broken", broken), Contestant("right", right)]
    attention.race(WORK, contestants, record, turns=1, seconds=0.001)
    assert {result.contestant for result in record.results} == {"right"}
    assert record.dropped["broken"] == {"no such kernel": [WORK.name]}
    (reason,) = record.dropped["off"]
    assert reason.startswith("is wrong")


def test_counts_the_pairs_of_documents_alone():
    assert WORK.flops("forward") == 4 * 32 * 2 * (2 * 64**2 / 2)
    assert WORK.flops("backward") == 2.5 * WORK.flops("forward")
    assert DOCUMENTS.flops("forward") == WORK.flops("forward") / 4
    uneven = replace(DOCUMENTS, uneven=True)
    assert all(sum(row) == 64 for row in uneven.lengths())
    assert max(max(row) for row in uneven.lengths()) <= 32


@pytest.mark.parametrize(("seconds", "verdict"), [(0.8, "met"), (0.9, "NOT MET")])
def test_goals(seconds, verdict):
    work = Work(4096, 16384, 16, 16, 128, torch.bfloat16)
    record = attention.Record()
    for name, taken in (("triton", seconds), ("sdpa flash", 1.0)):
        record.results.append(attention.Result(work, name, "forward", 0.0, [taken, taken, 9.0]))
    lines = attention.goals(record, [work])
    (told,) = [line for line in lines if "triton over sdpa flash, forward" in line]
    assert told.startswith(verdict)
    assert all(line.startswith("not measured") for line in lines if line != told)


def test_makes_ready_before_each_call():
    made = iter(range(1000))
    seen = []
    taken = timing.sample(lambda: next(made), seen.append, torch.device("cpu"), 0.0)
    assert len(taken) == 3
    assert seen == list(range(5))  # two to see how long one takes


@pytest.mark.slow
def test_elementwise_tells_what_a_kernel_could_win(tmp_path):
    elementwise.main(["--output", str(tmp_path), "--milliseconds", "1"])
    found = json.loads((tmp_path / "elementwise.json").read_text())
    assert all({"torch", "compile"} <= part["seconds"].keys() and part["floor"] > 0 for part in found["parts"])
