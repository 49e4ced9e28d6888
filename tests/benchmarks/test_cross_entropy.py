"""The benchmark of cross-entropy runs here too, at a size that says nothing of speed."""

import json

import torch

import kernels
from benchmarks import cross_entropy
from benchmarks.cross_entropy import Inputs, Work


def test_tells_who_takes_what(tmp_path, capsys, monkeypatch):
    everybody = cross_entropy.contestants
    monkeypatch.setattr(
        cross_entropy, "contestants", lambda work: {k: v for k, v in everybody(work).items() if k != "compile"}
    )
    cross_entropy.main(["--output", str(tmp_path), "--turns", "1", "--milliseconds", "1"])
    told = capsys.readouterr().out
    assert "chunks" in told
    if not kernels.INTERPRETED:
        assert "dropped: triton: the Triton kernels need tensors on a GPU" in told
    found = json.loads((tmp_path / "cross_entropy.json").read_text())
    assert {"chunks", "torch"} <= {row["contestant"] for row in found["results"]}
    assert all(row["relative_error"] < 1e-5 and row["calls"] >= 3 for row in found["results"])


def test_a_wrong_gradient_is_seen():
    inputs = Inputs(Work(40, 8, 300, torch.float32), torch.device("cpu"))
    right = inputs.step(cross_entropy.plain)
    assert inputs.error(right, rows=16) < 1e-5
    for number in range(3):
        wrong = [tensor.detach().clone() for tensor in right]
        wrong[number].view(-1)[0] += 0.1
        assert inputs.error(tuple(wrong), rows=16) > 1e-3
