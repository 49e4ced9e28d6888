"""Compiling Triton kernels for a GPU that is not there, and reading what came out.

Inside `compiling_for("sm_90")` every launch of a Triton kernel becomes a compilation for that target: the launchers
that production calls run on meta tensors, so that what is compiled is what a real launch would specialise to
(divisibility of strides, constants, descriptors). Nothing is run.

`resources` reads a binary: registers and stack by `cuobjdump -res-usage`, instructions by `cuobjdump -sass` (it comes
with Triton); on AMD from the metadata in the assembly.
"""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

# Backend, architecture and threads of a warp as Triton names them; shared memory that one program may have in bytes.
# NVIDIA: "Technical Specifications per Compute Capability" in the CUDA programming guide, the row "maximum amount of
# shared memory per thread block" (163, 99, 227, 227 KiB; the tuning guides of Ampere, Hopper and Blackwell say the
# same). AMD: the column LDS of "AMD GPU specifications" in ROCm's documentation (64 and 160 KiB).
TARGETS: dict[str, tuple[str, int | str, int, int]] = {
    "sm_80": ("cuda", 80, 32, 163 * 1024),
    "sm_86": ("cuda", 86, 32, 99 * 1024),
    "sm_90": ("cuda", 90, 32, 227 * 1024),
    "sm_100": ("cuda", 100, 32, 227 * 1024),
    "gfx942": ("hip", "gfx942", 64, 64 * 1024),
    "gfx950": ("hip", "gfx950", 64, 160 * 1024),
}
MULTIPROCESSORS = 132  # an H100's, for launchers that size a persistent grid by them; no binary depends on it
# What is counted in a binary: matrix instructions of Hopper, Blackwell and Ampere, and loads by TMA.
INSTRUCTIONS = ("HGMMA", "UTCHMMA", "HMMA", "UTMALDG")


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes.

    Attributes:
        registers: of a thread (AMD: vector registers, of both kinds).
        accumulation_registers: AMD's AGPRs among them; 0 elsewhere.
        stack: bytes of local memory (AMD: of scratch) of a thread.
        spills: bytes that the binary's instructions store to and load from it, each counted once, as `ptxas -v` does
            (AMD: 4 for each spilled vector register; scalar ones are spilled to vector registers, not to memory).
        shared: bytes of shared memory (AMD: LDS) of a program.
        instructions: how often each of `INSTRUCTIONS`, or MFMA, stands in the binary.
        wgmma: the PTX holds Hopper's warp-group matrix instruction.
    """

    registers: int
    accumulation_registers: int
    stack: int
    spills: int
    shared: int
    instructions: dict[str, int]
    wgmma: bool = False


class _AbsentGPU:
    """What Triton asks of a driver before it launches: stands for a GPU of the target."""

    def __init__(self, target: str) -> None:
        from triton.backends.compiler import GPUTarget

        *place, shared = TARGETS[target]
        self._target = GPUTarget(*place)
        # Kernels keep their binaries by device number: one of its own for each target, and none that a GPU has.
        self._device = -1 - list(TARGETS).index(target)
        properties = {"multiprocessor_count": MULTIPROCESSORS, "max_shared_mem": shared}
        self.utils = SimpleNamespace(get_device_properties=lambda device: properties)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return self._device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("meta")


@contextmanager
def compiling_for(target: str) -> Iterator[list[Any]]:
    """Every Triton launch in the block compiles for `target`, a name in `TARGETS`, and does not run.

    Yields the list to which each launch appends its compiled kernel, in order. Whatever was changed in Triton is as
    it was afterwards. Not for threads: Triton has one driver a process.

    Raises:
        RuntimeError: under TRITON_INTERPRET=1, where nothing compiles.
    """
    import triton
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET=1 is set: kernels are interpreted and cannot be compiled. Unset it.")
    absent, compiled, functions = _AbsentGPU(target), [], []
    run, active = JITFunction.run, driver._active

    def compile_only(function: Any, *arguments: Any, grid: Any, warmup: bool = True, **options: Any) -> Any:
        functions.append(function)
        kernel = run(function, *arguments, grid=grid, warmup=True, **options)
        compiled.append(kernel.result() if hasattr(kernel, "result") else kernel)
        return compiled[-1]

    JITFunction.run = compile_only
    driver.set_active(absent)
    try:
        yield compiled
    finally:
        JITFunction.run = run
        driver._active = active
        for function in functions:
            function.device_caches.pop(absent.get_current_device(), None)


def constants(kernel: Any) -> dict[str, Any]:
    """Values of the compile-time constants that a compiled kernel was made with, by name."""
    names = kernel.src.fn.arg_names
    return {names[place[0]]: value for place, value in kernel.src.constants.items() if len(place) == 1}


def resources(kernel: Any) -> Resources:
    """Reads what a compiled kernel takes from its binary."""
    return _amd_resources(kernel) if "amdgcn" in kernel.asm else _nvidia_resources(kernel)


def _nvidia_resources(kernel: Any) -> Resources:
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as directory:
        binary = Path(directory) / "kernel.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        usage = _output(tools / "cuobjdump", "-res-usage", binary)
        listing = _output(tools / "cuobjdump", "-sass", binary)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage)
    assert found, usage
    registers, stack, static_shared = map(int, found.groups())
    names = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", listing, re.MULTILINE)
    counts = Counter(name.partition(".")[0] for name in names)
    return Resources(
        registers=registers,
        accumulation_registers=0,
        stack=stack,
        spills=sum(_width(name) for name in names if name.partition(".")[0] in ("STL", "LDL")),
        shared=kernel.metadata.shared + static_shared,
        instructions={name: counts[name] for name in INSTRUCTIONS if counts[name]},
        wgmma="wgmma.mma_async" in kernel.asm["ptx"],
    )


def _width(instruction: str) -> int:
    """Bytes that a load or store moves for each thread."""
    found = re.search(r"\.[US]?(8|16|64|128)\b", instruction)
    return int(found.group(1)) // 8 if found else 4


def _amd_resources(kernel: Any) -> Resources:
    def field(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", kernel.asm["amdgcn"])
        return int(found.group(1)) if found else 0

    products = len(re.findall(r"\bv_mfma_", kernel.asm["amdgcn"]))
    return Resources(
        registers=field("vgpr_count"),
        accumulation_registers=field("agpr_count"),
        stack=field("private_segment_fixed_size"),
        spills=4 * field("vgpr_spill_count"),
        shared=kernel.metadata.shared,
        instructions={"MFMA": products} if products else {},
    )


def _output(*command: Any) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
