"""Kernels compiled without a GPU: what ships keeps the rules and takes what the README says; who breaks one is told."""

import dataclasses
import tempfile

import pytest

from kernels import ahead_of_time, tune
from kernels.configurations import Configuration

triton = pytest.importorskip("triton")
if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from kernels.compilation import Resources, compiling_for  # noqa: E402

PRETRAINING = ["--features", "pretraining"]
SOUND = ahead_of_time.Row(
    case=ahead_of_time.Case("attention", "sm_90", 128, "bfloat16", "descriptors", "pretraining"),
    kernel="flash_attention.forward",
    tile="128x128",
    warps=8,
    stages=2,
    multiplies=True,
    resources=Resources(
        registers=248,
        accumulation_registers=0,
        stack=0,
        spills=0,
        shared=165888,
        instructions={"HGMMA": 32, "UTMALDG": 9},
        wgmma=True,
    ),
)


def compared(wanted):
    """Compiles, holds to the rules and, where there are any, to the figures kept for this version of Triton."""
    rows = list(ahead_of_time.compile_cases(wanted))
    assert [line for row in rows for line in row.violations()] == []
    kept = ahead_of_time.stored(triton.__version__)
    if not kept:
        pytest.skip(f"the README keeps no figures for Triton {triton.__version__}")
    figures = ahead_of_time.COLUMNS[ahead_of_time.KEY :]
    for row in rows:
        cells = row.cells()
        if row.case.features != "pretraining":
            continue
        now = dict(zip(figures, cells[ahead_of_time.KEY :], strict=True))
        then = dict(zip(figures, kept[cells[: ahead_of_time.KEY]], strict=True))
        assert int(now["stack"]) <= int(then["stack"]), row
        assert int(now["spills"]) <= int(then["spills"]), row
        for name in ("tile", "warps", "stages", "registers", "AGPRs", "shared", "matrix instructions", "TMA loads"):
            assert now[name] == then[name], f"{name} of {row}: python -m kernels.ahead_of_time --write"
    return rows


def test_what_pretraining_takes_on_hopper_and_on_amd():
    targets = ("sm_90", "gfx942")
    rows = compared(ahead_of_time.cases(targets, sizes=(128,), dtypes=("bfloat16",), features=("pretraining",)))
    names = {row.kernel.rpartition(".")[2] for row in rows}
    assert names >= {"forward", "backward_keys", "backward_queries", "forward_kernel"}


@pytest.mark.slow
@pytest.mark.parametrize("target", [*ahead_of_time.SHIPPED])
def test_all_that_ships(target):
    compared(ahead_of_time.cases((target,)))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_86", "gfx950"])
def test_relatives_keep_the_rules(target):
    for row in ahead_of_time.compile_cases(ahead_of_time.cases((target,))):
        assert list(row.violations()) == []


@pytest.mark.slow
def test_half_precision_keeps_the_rules():
    for row in ahead_of_time.compile_cases(ahead_of_time.cases(dtypes=("float16",))):
        assert list(row.violations()) == []


def test_a_sound_kernel_breaks_no_rule():
    assert list(SOUND.violations()) == []


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"shared": 232449}, "232449 bytes of shared memory, sm_90 gives 232448"),
        ({"stack": 8, "spills": 16}, "8 bytes of stack, 16 spilled"),
        ({"instructions": {"HMMA": 32, "UTMALDG": 9}}, "no HGMMA"),
        ({"instructions": {"HGMMA": 32}}, "no load by TMA"),
        ({"wgmma": False}, "no wgmma in the PTX"),
    ],
)
def test_each_rule_is_told(broken, told):
    row = dataclasses.replace(SOUND, resources=dataclasses.replace(SOUND.resources, **broken))
    lines = list(row.violations())
    assert len(lines) == 1
    assert told in lines[0]
    assert lines[0].startswith("sm_90 flash_attention.forward 128 bfloat16")


def test_a_tile_that_spills_fails_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with tune.trying("forward", Configuration(queries=128, keys=128, warps=4, stages=2)):
        code = ahead_of_time.main(["--target", "sm_80", "--size", "128", "--dtype", "bfloat16", *PRETRAINING])
    printed = capsys.readouterr()
    assert code == 1
    assert [line.split(": ")[0] for line in printed.err.splitlines()] == [
        "sm_80 flash_attention.forward 128 bfloat16 pointers pretraining"
    ]
    assert printed.out.count("flash_attention.") == 4
    assert not list(tmp_path.iterdir())  # no file is left behind


def test_triton_is_afterwards_as_it_was():
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from kernels.flash_attention import forward

    before = JITFunction.run, driver._active, len(forward.device_caches)

    def fail():
        with compiling_for("sm_90"):
            ahead_of_time.attention(dataclasses.replace(SOUND.case, size=32))
            assert JITFunction.run is not before[0]
            raise OSError

    with pytest.raises(OSError):
        fail()
    assert (JITFunction.run, driver._active, len(forward.device_caches)) == before


def test_each_target_has_a_binary_of_its_own():
    for target in ("sm_80", "sm_90"):
        with compiling_for(target) as compiled:
            ahead_of_time.attention(dataclasses.replace(SOUND.case, target=target, size=32))
        assert {f".target {target}" in kernel.asm["ptx"] for kernel in compiled} == {True}
        assert len(compiled) == 4


def test_the_interpreter_is_refused(monkeypatch):
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET"), compiling_for("sm_90"):
        raise AssertionError("compiled")


def test_tables_are_kept_by_version():
    rows = [SOUND.cells(), dataclasses.replace(SOUND, kernel="flash_attention.other").cells()]
    tables = [ahead_of_time.markdown([row]) for row in rows]
    text = ahead_of_time.written("3.6.0", ahead_of_time.markdown(rows), f"before\n{ahead_of_time.END}\nafter\n")
    text = ahead_of_time.written("3.7.1", tables[0], text)
    text = ahead_of_time.written("3.6.0", tables[1], text)
    assert ahead_of_time.stored("3.6.0", text) == {rows[1][: ahead_of_time.KEY]: rows[1][ahead_of_time.KEY :]}
    assert ahead_of_time.stored("3.7.1", text) == {rows[0][: ahead_of_time.KEY]: rows[0][ahead_of_time.KEY :]}
    assert ahead_of_time.stored("3.8.0", text) == {}
    assert text.startswith("before\n")
    assert text.endswith(f"{ahead_of_time.END}\nafter\n")
    with pytest.raises(ValueError, match="missing"):
        ahead_of_time.written("3.6.0", tables[0], "a text without tables")


@pytest.mark.parametrize("version", ["3.6.0", "3.7.1", "3.9.0"])
def test_the_readme_keeps_all_that_ships(version):
    kept = {key for key in ahead_of_time.stored(version) if key[1] == "flash_attention.forward"}
    wanted = {(c.target, str(c.size), c.dtype, c.loads) for c in ahead_of_time.cases(launchers=("attention",))}
    assert {(target, *rest) for target, _, *rest in kept} == wanted


def test_a_part_of_the_table_is_not_written(capsys):
    with pytest.raises(SystemExit) as left:
        ahead_of_time.main(["--write", *PRETRAINING])
    assert left.value.code == 2
    assert "--features" in capsys.readouterr().err
