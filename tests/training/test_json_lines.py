"""Files of JSON lines that a kill may have cut off anywhere."""

import json

import pytest

from framework.training.json_lines import cut_back, objects

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
