"""What the Gluon kernel for Hopper compiles to, without one: what its speed and its safety rest on is in the binary."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import triton

from kernels import compilation

FEATURES = {
    "pretraining": {"causal": True, "window": 0, "softcap": 0.0, "documents": True, "sink": False},
    "bidirectional": {"causal": False, "window": 0, "softcap": 0.0, "documents": False, "sink": False},
    "everything": {"causal": True, "window": 1000, "softcap": 30.0, "documents": True, "sink": True},
}
KEPT_STACK = 16  # bytes: a number or two that some assemblers keep there and read once a tile, not in the loop
_kernels = {}


def compiled(head_size, features):
    """The kernel as the launcher compiles it for sm_90."""
    from kernels import hopper_launch

    key = head_size, features
    if key not in _kernels:
        options = dict(FEATURES[features])
        documents, sink = options.pop("documents"), options.pop("sink")
        with torch.device("meta"):
            q, k, v = (torch.empty(2, 4096, heads, head_size, dtype=torch.bfloat16) for heads in (16, 4, 4))
            first, end = (torch.empty(2, 4096, dtype=torch.int32) if documents else None for _ in range(2))
            sink = torch.empty(16) if sink else None
        with compilation.compiling_for("sm_90") as kernels:
            hopper_launch.forward(q, k, v, first, end, sink, scale=head_size**-0.5, **options)
        (_kernels[key],) = kernels
    return _kernels[key]


def assembly(kernel, directory):
    """Instructions of the binary, in order."""
    path = directory / "kernel.cubin"
    path.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    listing = subprocess.run([tool, "-sass", path], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", listing, re.MULTILINE)


def overlaps(instructions):
    """From each wait for the scores alone, while the other product goes on, to the wait for that one."""
    waits = [i for i, line in enumerate(instructions) if "WARPGROUP.DEPBAR" in line]
    return [(a, b) for a, b in pairwise(waits) if instructions[a].endswith("0x1")]


CASES = [
    (64, "pretraining"),
    (128, "pretraining"),
    *(
        pytest.param(head_size, features, marks=pytest.mark.slow)
        for head_size in (64, 128)
        for features in ("bidirectional", "everything")
    ),
]


@pytest.mark.parametrize(("head_size", "features"), CASES)
def test_it_fits_hopper(head_size, features):
    kernel = compiled(head_size, features)
    taken = compilation.resources(kernel)
    assert taken.shared <= compilation.TARGETS["sm_90"][3]
    assert taken.stack <= KEPT_STACK
    assert taken.wgmma
    assert taken.instructions["HGMMA"] >= 2 * 2 * (head_size // 16 + 128 // 16)  # consumers x (first and loop)
    assert taken.instructions["UTMALDG"]
    # Three warp groups: what the producer's, of which three warps idle, gives back goes to the two consumers'.
    given = set(map(int, re.findall(r"setmaxnreg\.\w+\.sync\.aligned\.u32\s+(\d+)", kernel.asm["ptx"])))
    assert {240, 24} <= given
    assert 128 * (2 * 240 + 24) <= 65536
    assert taken.registers <= 65536 // (3 * 128)


@pytest.mark.parametrize(("head_size", "features"), CASES)
def test_the_softmax_runs_while_the_tensor_cores_multiply(head_size, features, tmp_path):
    """64 x 128 scores are 64 of a thread: as many exponentials lie between the two waits of the loop."""
    instructions = assembly(compiled(head_size, features), tmp_path)
    found = overlaps(instructions)
    assert len(found) == 2  # consumers
    for first, last in found:
        between = instructions[first:last]
        assert sum("MUFU.EX2" in line for line in between) >= 64
        assert not any("HGMMA" in line for line in between)


@pytest.mark.parametrize(("head_size", "features"), CASES)
def test_what_is_in_local_memory_is_not_read_in_the_loop(head_size, features, tmp_path):
    instructions = assembly(compiled(head_size, features), tmp_path)
    for first, last in overlaps(instructions):
        products = [i for i, line in enumerate(instructions[:first]) if "HGMMA" in line]
        begin = products[-(head_size // 16 + 128 // 16)]
        assert not any(re.search(r"\b(LDL|STL)\b", line) for line in instructions[begin:last])


@pytest.mark.parametrize(("head_size", "features"), CASES)
def test_the_assembler_does_not_serialise_the_products(head_size, features, tmp_path):
    """It says so (C7510 and its like) if it cannot prove that registers in flight are left alone."""
    from triton.backends.nvidia.compiler import get_ptxas

    source = tmp_path / "kernel.ptx"
    source.write_text(compiled(head_size, features).asm["ptx"])
    command = [get_ptxas(90).path, "-v", "--gpu-name=sm_90a", source, "-o", tmp_path / "again.cubin"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "registers" in said
    assert "wgmma" not in said
    assert "setmaxnreg" not in said


@pytest.mark.parametrize(("head_size", "features"), CASES)
def test_the_warps_of_a_consumer_agree_before_it_arrives(head_size, features):
    """One thread arrives for all: a barrier must stand between what they did and that."""
    events = r"bar\.sync|wgmma\.\w+|stmatrix|mbarrier\.try_wait|cp\.async\.bulk|mbarrier\.arrive\.shared::cta\.b64 _"
    seen = re.findall(events, compiled(head_size, features).asm["ptx"])
    before = [previous for previous, event in pairwise(seen) if event.startswith("mbarrier.arrive")]
    assert len(before) == 2 * 6  # two of each ring's, one for queries, one for turns; of two consumers
    assert set(before) == {"bar.sync"}
