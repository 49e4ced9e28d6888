"""What a checkpoint is on disk, by hashlib and plain safetensors; which ones are passed over, kept and removed."""

import errno
import hashlib
import json
import os
import shutil
import threading

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from framework.config import CheckpointConfig
from framework.errors import UserError
from framework.training.checkpoints import reader
from framework.training.checkpoints.store import LocalStore
from framework.training.checkpoints.writer import CheckpointWriter

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


def newest_sound(run, *questions):
    return reader.newest_sound(LocalStore(run / "checkpoints"), *questions)


def save(run, tensors, state, config):
    writer = CheckpointWriter(LocalStore(run / "checkpoints"), config)
    writer.save(lambda: tensors, state)
    writer.finish()
    return run / "checkpoints" / f"step-{state['step']:08d}"


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
    assert found.place == str(tmp_path / "checkpoints" / "step-00000030")
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


def test_what_is_written_is_what_was_copied_and_the_step_does_not_wait_for_it(tmp_path, monkeypatch):
    weights, written = torch.zeros(3), threading.Event()
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (written.wait(60), sync(file))[1])
    writer = CheckpointWriter(LocalStore(tmp_path), CheckpointConfig())
    writer.save(lambda: {"weight/master": weights.clone()}, {"step": 1})
    weights += 1  # the next update, while nothing can have been written
    assert writer.news().keys() == {"checkpoint/stall_seconds"}
    assert LocalStore(tmp_path).steps() == []
    written.set()
    writer.save(lambda: {"weight/master": weights.clone()}, {"step": 2})  # which first finishes the one before
    assert LocalStore(tmp_path).steps() in ([1], [2, 1])
    writer.finish()
    assert writer.news().keys() == {"checkpoint/stall_seconds", "checkpoint/write_seconds"}
    for step, value in ((1, 0), (2, 1)):
        found, _ = reader.look_at(LocalStore(tmp_path), step)
        assert found.reader()("weight", "master").tolist() == [value] * 3


def test_a_failure_in_the_background_comes_up_at_the_next_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    writer = CheckpointWriter(LocalStore(tmp_path / "checkpoints"), CheckpointConfig())
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").write_text("in the way")
    writer.save(dict, {"step": 1})
    with pytest.raises(UserError, match=r"checkpoints/.step-00000001.partial: cannot be made \(.*\); free some space"):
        writer.save(dict, {"step": 2})
    (tmp_path / "checkpoints").unlink()
    writer.save(dict, {"step": 3})
    writer.finish()
    assert LocalStore(tmp_path / "checkpoints").steps() == [3]


def test_a_bug_in_the_background_is_told_too(tmp_path):
    writer = CheckpointWriter(LocalStore(tmp_path), CheckpointConfig())
    writer.save(dict, {"step": 1, "metrics": {1, 2}})  # no JSON
    with pytest.raises(UserError, match=r"checkpoint: writing failed with TypeError: .*set.*; this is a bug"):
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_one_of_other_tensors_is_passed_over(tmp_path):
    shapes = {"weight": (3,), "bias": (2,)}
    right = {"weight/master": torch.ones(3), "bias/master": torch.ones(2), "bias/exp_avg": torch.ones(2)}
    keep = CheckpointConfig(keep=9)
    save(tmp_path, right, {"step": 1}, keep)
    save(tmp_path, {**right, "bias/master": torch.ones(4)}, {"step": 2}, keep)
    save(tmp_path, {**right, "more/master": torch.ones(4)}, {"step": 3}, keep)
    save(tmp_path, {"bias/master": torch.ones(2)}, {"step": 4}, keep)
    found, passed_over = newest_sound(tmp_path, shapes)
    assert found.step == 1
    assert [line.partition("passed over, ")[2] for line in passed_over] == [
        "weight is missing, in this model [3]",
        "more is [4], in this model missing",
        "bias is [4], in this model [2]",
    ]


def test_one_of_another_model_is_passed_over_unless_there_is_no_other(tmp_path):
    for step, model in enumerate("aab", start=1):
        save(tmp_path, {}, {"step": step, "model": model}, CheckpointConfig(keep=9))

    def found(*wanted):
        checkpoint, lines = newest_sound(tmp_path, None, lambda c: None if c.state["model"] in wanted else "other")
        return checkpoint.step, len(lines)

    assert found("a") == (2, 1)
    assert found("b") == (3, 0)
    assert found("c") == (3, 0)  # the settings have changed, which is for the caller to refuse


def test_newer_ones_that_were_passed_over_do_not_push_out_the_one_written(tmp_path):
    for step in (10, 20, 30):
        path = save(tmp_path, {}, {"step": step}, CheckpointConfig(keep=3))
    (path / "state.json").unlink()
    save(tmp_path, {}, {"step": 25}, CheckpointConfig(keep=2))
    assert steps_in(tmp_path) == [20, 25]


def test_directories_without_a_manifest_alone_are_no_new_start(tmp_path):
    (save(tmp_path, {}, {"step": 1}, CheckpointConfig()) / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"it has no manifest.json.*; no sound checkpoint is left: restore one"):
        newest_sound(tmp_path)


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


def test_a_plain_file_with_the_name_of_a_checkpoint_is_to_be_moved_away(tmp_path):
    save(tmp_path, {}, {"step": 1}, CheckpointConfig())
    (tmp_path / "checkpoints" / "step-00000002").write_text("notes")
    with pytest.raises(
        UserError, match=r"^.*/step-00000002: is a plain file, and a checkpoint a directory; move it els"
    ):
        newest_sound(tmp_path)
