"""What a checkpoint is on disk, by hashlib and plain safetensors; which ones are passed over, kept and removed."""

import errno
import hashlib
import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from framework.config import CheckpointConfig
from framework.errors import UserError
from framework.training.checkpoint import newest_sound, save

HIDDEN, FEED_FORWARD, VOCABULARY = 36, 50, 360
LAYER = {
    "attention_norm.weight": [HIDDEN],
    "attention.query.weight": [HIDDEN, HIDDEN],
    "attention.key.weight": [HIDDEN, HIDDEN],
    "attention.value.weight": [HIDDEN, HIDDEN],
    "attention.output.weight": [HIDDEN, HIDDEN],
    "mlp_norm.weight": [HIDDEN],
    "mlp.gate.weight": [FEED_FORWARD, HIDDEN],
    "mlp.up.weight": [FEED_FORWARD, HIDDEN],
    "mlp.down.weight": [HIDDEN, FEED_FORWARD],
}
SHAPES = {"embedding.weight": [VOCABULARY, HIDDEN], "norm.weight": [HIDDEN]}
SHAPES |= {f"blocks.{layer}.{name}": shape for layer in range(2) for name, shape in LAYER.items()}


def test_the_manifest_has_size_and_hash_of_every_file(undisturbed):
    for step in (20, 30, 40):
        directory = undisturbed / "checkpoints" / f"step-{step:08d}"
        listed = json.loads((directory / "manifest.json").read_text())["files"]
        contents = {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "manifest.json"}
        assert listed.keys() == contents.keys() == {"state.json", "rank-00000.safetensors", "rank-00001.safetensors"}
        for name, content in contents.items():
            assert listed[name] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_tensors_are_whole_in_fp32_under_plain_names_and_each_in_one_file(undisturbed):
    shapes = {}
    for file in sorted((undisturbed / "checkpoints" / "step-00000040").glob("*.safetensors")):
        with safe_open(file, framework="numpy") as tensors:
            assert tensors.keys()
            for key in tensors.keys():  # noqa: SIM118
                assert key not in shapes
                shapes[key] = tensors.get_slice(key).get_shape()
                assert tensors.get_slice(key).get_dtype() == "F32"
                assert tensors.get_tensor(key).any()
    fields = ("master", "exp_avg", "exp_avg_sq")
    assert shapes == {f"{name}/{field}": shape for name, shape in SHAPES.items() for field in fields}


def test_the_state_says_where_the_run_stands(undisturbed):
    state = json.loads((undisturbed / "checkpoints" / "step-00000030" / "state.json").read_text())
    record = json.loads((undisturbed / "metrics.jsonl").read_text().splitlines()[29])
    assert (state["step"], state["sequences"], state["optimizer_steps"]) == (30, 30 * 16, 30)
    assert state["metrics"] == record
    assert state["config"]["run"]["name"] == "undisturbed"


def edit_manifest(directory, **changes):
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {  # to the newest checkpoint's directory, and what the line about it says
    "a flipped bit": (lambda d: flip_a_byte(d / "rank-00001.safetensors"), "rank-00001.safetensors: its hash"),
    "a file cut short": (lambda d: os.truncate(d / "rank-00000.safetensors", 999), "rank-00000.safetensors: its hash"),
    "a file that is missing": (lambda d: (d / "rank-00001.safetensors").unlink(), "rank-00001.safetensors: No such"),
    "another state": (lambda d: flip_a_byte(d / "state.json"), "state.json: its hash"),
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "it has no manifest.json"),
    "a manifest cut short": (lambda d: os.truncate(d / "manifest.json", 100), "manifest.json is damaged"),
    "an empty manifest": (lambda d: os.truncate(d / "manifest.json", 0), "manifest.json is damaged"),
    "a manifest of nulls": (lambda d: (d / "manifest.json").write_bytes(bytes(500)), "manifest.json is damaged"),
    "a manifest of another kind": (lambda d: (d / "manifest.json").write_text("[1]"), "manifest.json is damaged"),
    "a manifest without hashes": (lambda d: edit_manifest(d, files={"state.json": 1}), "manifest.json is damaged"),
    "a manifest without files": (lambda d: edit_manifest(d, files={}), "manifest.json is damaged"),
    "another format": (lambda d: edit_manifest(d, format=2, files=["state.json"]), "its format is 2, this version"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_with_a_line_that_names_it(undisturbed, tmp_path, kind):
    shutil.copytree(undisturbed / "checkpoints", tmp_path / "checkpoints")
    newest = tmp_path / "checkpoints" / "step-00000040"
    damage, problem = DAMAGE[kind]
    damage(newest)
    found, passed_over = newest_sound(tmp_path)
    assert found.path == tmp_path / "checkpoints" / "step-00000030"
    (line,) = passed_over
    assert line.startswith(f"{newest}: passed over, {problem}")


def test_a_sound_checkpoint_is_taken_without_a_word(undisturbed):
    found, passed_over = newest_sound(undisturbed)
    assert found.state["step"] == 40
    assert passed_over == []


def test_a_file_that_the_manifest_does_not_list_is_not_read(tmp_path):
    path = save(tmp_path, {"weight/master": torch.ones(3)}, {"step": 1}, CheckpointConfig())
    save_file({"weight/master": torch.zeros(3)}, path / "rank-00001.safetensors")
    found, _ = newest_sound(tmp_path)
    assert found.reader()("weight", "master").tolist() == [1, 1, 1]


def steps_in(run):
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").iterdir())


def test_the_newest_and_every_so_many_are_kept(finished, tmp_path):
    assert steps_in(finished) == [6, 10, 12]  # of 2, 4 ... 12: two newest, and multiples of 6
    for step in range(1, 15):
        save(tmp_path, {}, {"step": step}, CheckpointConfig(keep=3, keep_every=5))
    assert steps_in(tmp_path) == [5, 10, 12, 13, 14]


def test_what_a_kill_left_behind_is_removed_by_the_next_checkpoint(tmp_path):
    partial = tmp_path / "checkpoints" / ".step-00000003.partial"
    partial.mkdir(parents=True)
    (partial / "rank-00000.safetensors").write_bytes(b"half")
    assert newest_sound(tmp_path) == (None, [])
    save(tmp_path, {}, {"step": 5}, CheckpointConfig())
    assert steps_in(tmp_path) == [5]


def test_a_full_disk_costs_only_the_new_checkpoint(tmp_path, monkeypatch):
    tensors = {"weight/master": torch.ones(3)}
    save(tmp_path, tensors, {"step": 1}, CheckpointConfig(keep=1))

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"rank-00000.safetensors: cannot be written \(No space left on device\); free"):
        save(tmp_path, tensors, {"step": 2}, CheckpointConfig(keep=1))
    assert steps_in(tmp_path) == [1]
    assert newest_sound(tmp_path)[0].state == {"step": 1}
