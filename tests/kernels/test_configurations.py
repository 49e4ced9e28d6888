"""The table of tiles: it has all that may be asked for, says what it lacks, and a program can rewrite it."""

import itertools

import pytest
import torch

from kernels import configurations, tune
from kernels.configurations import Configuration, choose

FAMILIES = ("sm_80", "sm_86", "sm_90", "sm_100", "gfx942", "gfx950", "interpreter")
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A copy that may be rewritten."""
    copy = tmp_path / "configurations.json"
    copy.write_text(configurations.TABLE.read_text())
    monkeypatch.setattr(configurations, "TABLE", copy)
    yield copy
    monkeypatch.undo()
    configurations.write_table(configurations.read_table())  # forgets the copy; the file itself stays as it is


def test_every_head_size_has_a_tile_everywhere():
    everything = itertools.product(configurations.KERNELS, FAMILIES, range(1, 257), DTYPES, (True, False))
    for kernel, family, head_size, dtype, describable in everything:
        found = choose(kernel, family, head_size, dtype, describable)
        assert not found.descriptors or (describable and family in ("sm_90", "sm_100"))
        for rows in (found.queries, found.keys):
            assert rows & (rows - 1) == 0
            assert rows >= 16  # what a matrix instruction takes


def test_relatives_take_the_tiles_of_their_family():
    assert choose("forward", "sm_89", 128, torch.bfloat16) == choose("forward", "sm_86", 128, torch.bfloat16)
    assert choose("forward", "sm_103", 80, torch.bfloat16) == choose("forward", "sm_100", 128, torch.bfloat16)


@pytest.mark.parametrize(
    ("architecture", "head_size", "dtype", "told"),
    [
        ("sm_75", 128, torch.bfloat16, "sm_75"),
        ("gfx1100", 128, torch.bfloat16, "gfx1100"),
        ("sm_90", 257, torch.bfloat16, "head size 257"),
        ("sm_90", 128, torch.float64, "float64"),
        ("sm_90", 128, torch.int16, "int16"),
    ],
)
def test_what_is_not_there_is_told(architecture, head_size, dtype, told):
    with pytest.raises(ValueError, match=f"(?s){told}.*up to 256.*bfloat16.*sm_90"):
        choose("forward", architecture, head_size, dtype)


def test_the_file_is_as_a_program_writes_it(table):
    before = table.read_text()
    configurations.write_table(configurations.read_table()[::-1])
    assert table.read_text() == before


def test_what_is_written_is_what_is_chosen(table):
    rows = configurations.read_table()
    for row in rows:
        if (row["architecture"], row["kernel"]) == ("gfx942", "forward"):
            row["stages"] = 7
    configurations.write_table(rows)
    assert choose("forward", "gfx942", 128, torch.bfloat16).stages == 7
    assert choose("backward_keys", "gfx942", 128, torch.bfloat16).stages != 7


def test_tuning_takes_the_fastest_that_fits():
    row = next(row for row in configurations.read_table() if row["architecture"] == "sm_90" and row["descriptors"])
    tried = list(tune.candidates(row))
    slow, best, unfit = tried[0], tried[5], tried[9]

    def milliseconds(_row, configuration):
        assert configuration != unfit
        return {slow: 3.0, best: 1.5}.get(configuration, 2.0)

    found = tune.fastest(row, lambda all_: (each != unfit for each in all_), milliseconds, "a GPU")
    assert Configuration(**{name: found[name] for name in vars(best)}) == best
    assert found["measured"] == f"1.500 ms on a GPU, of {len(tried) - 1} tried"
    assert found["head_size"] == row["head_size"]
    assert tune.fastest(row, lambda all_: (False for _ in all_), milliseconds, "a GPU") == row


def test_tuning_needs_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tune.main([]) == 2
    assert "GPU" in capsys.readouterr().err
