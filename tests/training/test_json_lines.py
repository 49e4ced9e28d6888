"""Files of JSON lines that a kill may have cut off anywhere."""

import json

import pytest

from framework.errors import UserError
from framework.training.record.json_lines import cut_back, objects

LINES = [json.dumps({"step": step, "text": "\u00e9" * step}) + "\n" for step in range(1, 7)]


@pytest.mark.parametrize("lost", range(1, len(LINES[-1]) + 1))
def test_a_file_that_a_kill_cut_off_is_written_on_after_its_last_whole_line(lost, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(LINES)[:-lost])
    assert [one["step"] for one in objects(path)][:5] == [1, 2, 3, 4, 5]
    with path.open("a") as file:  # another hand has it open
        cut_back(path, 6)
        file.write(LINES[5])
    assert path.read_text() == "".join(LINES)


def test_later_steps_go(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for last in (0, 3, 6, 9):
        path.write_text("".join(LINES))
        cut_back(path, last)
        assert path.read_text() == "".join(LINES[:last])
    cut_back(tmp_path / "none", 3)
    assert not (tmp_path / "none").exists()
    assert list(objects(tmp_path / "none")) == []


GARBAGE = (
    b"\xff\x00 garbage\n",
    b"\n",
    b"17\n",
    b"{}\n",
    b'{"step": "4"}\n',
    b"[" * 100_000 + b"\n",
    LINES[3][:9].encode() + b"\n",
)


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_damage_in_the_middle_is_told_and_nothing_is_removed(garbage, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes("".join(LINES[:3]).encode() + garbage + "".join(LINES[3:]).encode())
    before = path.read_bytes()
    message = rf"^{path} line 4: is no JSON object with a step, the file is damaged; remove the line$"
    with pytest.raises(UserError, match=message):
        list(objects(path))
    with pytest.raises(UserError, match=message):
        cut_back(path, 5)
    assert path.read_bytes() == before


def test_damage_in_what_is_removed_anyway_is_no_matter(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(LINES[:4]) + "garbage\n" + LINES[4])
    cut_back(path, 3)
    assert path.read_text() == "".join(LINES[:3])
