"""What W&B was given, read back from the file it writes offline."""

import json
import struct
import sys

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from framework.config import TrackerConfig
from framework.errors import UserError
from framework.training.tracker import open_tracker
from tests.launch import records

BLOCK, HEADER = 32768, 7  # of LevelDB's log format, which .wandb files have after 7 bytes of their own
FULL, FIRST, LAST = 1, 2, 4


def wandb_records(path):
    """The protobuf records of a .wandb file."""
    content, place, whole = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place < len(content):
        if BLOCK - place % BLOCK < HEADER:  # too little of the block is left for a header
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        piece = content[place + HEADER : place + HEADER + length]
        whole = piece if kind in (FULL, FIRST) else whole + piece
        if kind in (FULL, LAST):
            yield Record.FromString(whole)
        place += HEADER + length


@pytest.fixture(scope="module")
def logged(finished):
    (file,) = (finished / "wandb").glob("offline-run-*/run-*.wandb")
    return list(wandb_records(file))


def history(logged):
    """One dictionary a step."""
    for record in logged:
        if record.WhichOneof("record_type") == "history":
            yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}


def test_every_metric_of_every_step_was_logged_once(finished, logged):
    steps = [
        {name: value for name, value in step.items() if not name.startswith("_") or name == "_step"}
        for step in history(logged)
    ]
    expected = [{"_step" if name == "step" else name: v for name, v in step.items()} for step in records(finished)]
    assert len(expected) == 12
    assert steps == expected


def test_the_run_has_name_project_configuration_and_summary(finished, logged):
    (run,) = [record.run for record in logged if record.WhichOneof("record_type") == "run"]
    assert (run.display_name, run.project) == ("finished", "loam")
    assert run.run_id == (finished / "wandb.id").read_text()
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert settings["schedule"]["steps"] == 12
    assert settings["batch"]["sequences"] == 16
    updates = [record.summary.update for record in logged if record.WhichOneof("record_type") == "summary"]
    summary = {item.key: json.loads(item.value_json) for update in updates for item in update}
    assert summary["loss"] == json.loads((finished / "summary.json").read_text())["loss"]


def test_a_missing_wandb_is_the_users_to_mend(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # import raises ImportError
    with pytest.raises(UserError, match=r"tracker\.name: wandb is not installed; pip install 'loam\[wandb\]', or "):
        open_tracker(TrackerConfig(name="wandb", mode="offline"), tmp_path, {})
    assert not list(tmp_path.iterdir())
    open_tracker(TrackerConfig(name="none"), tmp_path, {}).log({"step": 1})


@pytest.mark.parametrize(
    ("mode", "key", "expected"),
    [("auto", "", "offline"), ("auto", "k" * 40, "online"), ("offline", "k" * 40, "offline")],
)
def test_online_only_where_there_is_a_key(mode, key, expected, tmp_path, monkeypatch):
    """W&B itself is replaced, for nothing may go to the network."""
    asked = {}

    class Wandb:
        Settings = dict

        @staticmethod
        def init(**settings):
            asked.update(settings)

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    open_tracker(TrackerConfig(name="wandb", mode=mode), tmp_path, {"a": 1})
    assert asked["mode"] == expected
    first = asked["id"]
    open_tracker(TrackerConfig(name="wandb", mode=mode), tmp_path, {"a": 1})
    assert asked["id"] == first  # a resumed run is the same run
