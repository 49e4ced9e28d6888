"""The kernels of linear cross-entropy, compiled for GPUs that are not there, by the launchers that production calls."""

import pytest
import torch

import kernels
from kernels import compilation

SPILLED = 16  # bytes of local memory a thread may have: a few loads outside the inner loop
MATRIX_INSTRUCTION = {"sm_80": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "gfx942": "MFMA"}
QUICK = ("sm_90-bfloat16-aligned", "gfx942-bfloat16-aligned")


def cases():
    for target in MATRIX_INSTRUCTION:
        for dtype in (torch.bfloat16, torch.float32):
            for hidden, vocabulary in ((4096, 128256), (97, 50257)):
                aligned = "aligned" if hidden == 4096 else "odd"
                name = f"{target}-{str(dtype).removeprefix('torch.')}-{aligned}"
                marks = () if name in QUICK else (pytest.mark.slow,)
                yield pytest.param(target, dtype, hidden, vocabulary, id=name, marks=marks)


def launch(dtype, hidden, vocabulary, tokens=8192, width=8192):
    from kernels import cross_entropy_launch

    with torch.device("meta"):
        x, weight = torch.empty(tokens, hidden, dtype=dtype), torch.empty(vocabulary, hidden, dtype=dtype)
        labels, out = torch.empty(tokens, dtype=torch.int64), torch.empty(tokens, width, dtype=dtype)
        upstream, log_sum = torch.empty(()), torch.empty(tokens)
    cross_entropy_launch.statistics(x, weight, labels, smoothed=True)
    part = slice(width, 2 * width)
    options = {"z_loss": 1e-4, "label_smoothing": 0.1}
    cross_entropy_launch.gradient(upstream, x, weight, labels, log_sum, part, out, **options)


@pytest.mark.skipif(kernels.INTERPRETED, reason="nothing compiles under TRITON_INTERPRET=1")
@pytest.mark.parametrize(("target", "dtype", "hidden", "vocabulary"), list(cases()))
def test_registers_and_shared_memory_suffice(target, dtype, hidden, vocabulary):
    with compilation.compiling_for(target) as compiled:
        launch(dtype, hidden, vocabulary)
    names = [kernel.metadata.name for kernel in compiled]
    assert names == ["statistics", "label_logits", "gradient"]
    *_, limit = compilation.TARGETS[target]
    for name, kernel in zip(names, compiled, strict=True):
        taken = compilation.resources(kernel)
        assert max(taken.stack, taken.spills) <= SPILLED, name
        assert taken.shared <= limit, name
        if name == "label_logits" or dtype == torch.float32:
            continue
        assert taken.instructions[MATRIX_INSTRUCTION[target]], name
        assert taken.wgmma == (target == "sm_90"), name
        assert bool(taken.instructions.get("UTMALDG")) == (target in ("sm_90", "sm_100") and hidden == 4096), name
