"""What every shipped kernel takes of a GPU, told without one: `python -m kernels.ahead_of_time`.

Compiles each configuration through the launchers that production calls (see `kernels.compilation`), prints a table
of registers, stack, spills, shared memory and matrix instructions, and holds it to these rules:

- shared memory within what the architecture gives one program;
- with the options of a pretraining run (causal, documents, z-loss) no stack and no spilled register, for what lies in
  local memory costs a trip to it in the innermost loop; with window, softcap and sink, or label smoothing, on top at
  most 16 bytes of stack;
- in 16 bits the architecture's own matrix instruction: wgmma on sm_90 (in the PTX and in the binary), tcgen05 on
  sm_100, mma on sm_80 and sm_86, MFMA on AMD (in fp32 products are exact, NVIDIA's without tensor cores);
- where a configuration says descriptors, loads by TMA. What no descriptor can hold (strides that are no multiple of
  16 bytes) is loaded number by number; there the rules are those of memory, and any matrix instruction will do.

`--write` keeps the table of pretraining in `kernels/README.md`, one for each version of Triton. Exit code 1 if a
kernel breaks a rule (each is told in a line), 2 for a wrong call.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from kernels.compilation import TARGETS, Resources, compiling_for, constants, resources
from kernels.configurations import HEAD_SIZES

README = Path(__file__).with_name("README.md")
SHIPPED = ("sm_80", "sm_90", "sm_100", "gfx942")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# What decides how much of a kernel is compiled in: the options of a pretraining run, or all that there are.
FEATURES = {
    "pretraining": {"window": 0, "softcap": 0.0, "sink": False},
    "everything": {"window": 1024, "softcap": 30.0, "sink": True},
}
STACK = {"pretraining": 0, "everything": 16}  # bytes that a thread may have
MMA = ("HMMA", "HGMMA", "UTCHMMA", "MFMA")
OWN = {"sm_80": MMA[:1], "sm_86": MMA[:1], "sm_90": MMA[1:2], "sm_100": MMA[2:3], "gfx942": MMA[3:], "gfx950": MMA[3:]}
PRODUCTS = ("tt.dot", "ttng.warp_group_dot", "ttng.tc_gen5_mma")  # of matrices, in Triton's own language
TILE = ("M", "N", "TOKENS", "COLUMNS", "CHANNELS")  # constants of kernels that say it
COLUMNS = (
    "target", "kernel", "size", "dtype", "loads", "tile", "warps", "stages",
    "registers", "AGPRs", "stack", "spills", "shared", "matrix instructions", "TMA loads",
)  # fmt: skip
WIDTHS = (11, 6, 36, 4, 8, 12, 10, 5, 6, 9, 5, 5, 6, 9, 19, 9)  # when printed as text, the features first
KEY = COLUMNS.index("tile")  # the columns before say which row it is, the others what came out


@dataclass(frozen=True)
class Case:
    """One way to call a launcher: what is compiled is decided by these and the table of configurations.

    Attributes:
        launcher: a name in `LAUNCHERS`.
        size: of a head; of cross-entropy, the hidden size.
        loads: "descriptors"; "pointers"; or "odd pointers", for strides that no descriptor can hold.
        features: a name in `FEATURES`.
    """

    launcher: str
    target: str
    size: int
    dtype: str
    loads: str
    features: str


@dataclass(frozen=True)
class Row:
    """A compiled kernel in the table."""

    case: Case
    kernel: str
    tile: str
    warps: int
    stages: int
    multiplies: bool
    resources: Resources

    def cells(self) -> tuple[str, ...]:
        """Texts of `COLUMNS`."""
        case, taken = self.case, self.resources
        counts = ", ".join(f"{n} {name}" for name, n in taken.instructions.items() if name != "UTMALDG")
        return (
            case.target, self.kernel, str(case.size), case.dtype, case.loads,
            self.tile, str(self.warps), str(self.stages), str(taken.registers), str(taken.accumulation_registers),
            str(taken.stack), str(taken.spills), f"{taken.shared / 1024:.1f} KiB", counts,
            str(taken.instructions.get("UTMALDG", 0)),
        )  # fmt: skip

    def violations(self) -> Iterator[str]:
        """Rules of the module that the kernel breaks, a line each."""
        target, taken = self.case.target, self.resources
        *_, limit = TARGETS[target]
        name = " ".join((*self.cells()[:KEY], self.case.features))
        if taken.shared > limit:
            yield f"{name}: {taken.shared} bytes of shared memory, {target} gives {limit}; take a smaller tile"
        if taken.stack > STACK[self.case.features]:
            yield f"{name}: {taken.stack} bytes of stack, {taken.spills} spilled; take a smaller tile or more warps"
        if not self.multiplies or self.case.dtype == "float32":
            return
        own = OWN[target] if self.case.loads != "odd pointers" else MMA
        if not any(taken.instructions.get(instruction) for instruction in own):
            yield f"{name}: no {' or '.join(own)} in the binary"
        if self.case.loads == "descriptors" and target == "sm_90" and not taken.wgmma:
            yield f"{name}: no wgmma in the PTX"
        if self.case.loads == "descriptors" and not taken.instructions.get("UTMALDG"):
            yield f"{name}: descriptors, but no load by TMA"


@dataclass(frozen=True)
class Launcher:
    """What is called to have kernels compiled, and for what.

    Attributes:
        call: launches on meta tensors what a case asks for.
        sizes: values of `Case.size`: head sizes; of cross-entropy, a hidden size.
        targets, dtypes: names in `TARGETS` and `DTYPES`.
        odd: takes strides that no descriptor can hold, too.
    """

    call: Callable[[Case], None]
    sizes: tuple[int, ...]
    targets: tuple[str, ...] = tuple(TARGETS)
    dtypes: tuple[str, ...] = tuple(DTYPES)
    odd: bool = True


def attention(case: Case) -> None:
    """Attention forward and backward."""
    from kernels import attention_launch

    (q, k, v, first, end, sink), options = _attention_tensors(case)
    output, lse = attention_launch.forward(q, k, v, first, end, sink, **options)
    attention_launch.backward(output, None, q, k, v, output, lse, first, end, **options)


def hopper_attention(case: Case) -> None:
    """Attention forward in Gluon."""
    from kernels import hopper_launch

    tensors, options = _attention_tensors(case)
    hopper_launch.forward(*tensors, **options)


def cross_entropy(case: Case) -> None:
    """Linear cross-entropy: the statistics of the logits, and their gradient for one chunk of the vocabulary."""
    from kernels import cross_entropy_launch

    tokens, vocabulary, chunk, dtype = 8192, 128256, 8192, DTYPES[case.dtype]
    whole = case.features == "everything"
    width = case.size + (case.loads == "odd pointers")
    with torch.device("meta"):
        x, weight = (torch.empty(rows, width, dtype=dtype)[:, : case.size] for rows in (tokens, vocabulary))
        labels, out = torch.empty(tokens, dtype=torch.int64), torch.empty(tokens, chunk, dtype=dtype)
        upstream, log_sums = torch.empty(()), torch.empty(tokens)
    cross_entropy_launch.statistics(x, weight, labels, smoothed=whole)
    options = {"z_loss": 1e-4, "label_smoothing": 0.1 if whole else 0.0}
    cross_entropy_launch.gradient(upstream, x, weight, labels, log_sums, slice(chunk, 2 * chunk), out, **options)


def _attention_tensors(case: Case) -> tuple[tuple[Any, ...], dict[str, Any]]:
    options = {**FEATURES[case.features], "causal": True, "scale": case.size**-0.5}
    sink = torch.empty(16, device="meta") if options.pop("sink") else None
    batch, time, heads, kv_heads = 2, 4096, 16, 4

    def tensor(heads: int) -> torch.Tensor:
        # A stride that is no multiple of 16 bytes is one that a descriptor cannot hold.
        width = case.size + (case.loads == "odd pointers")
        whole = torch.empty(batch, time, heads, width, dtype=DTYPES[case.dtype], device="meta")
        return whole[..., : case.size]

    first, end = (torch.empty(batch, time, dtype=torch.int32, device="meta") for _ in range(2))
    return (tensor(heads), tensor(kv_heads), tensor(kv_heads), first, end, sink), options


LAUNCHERS = {
    "attention": Launcher(attention, HEAD_SIZES),
    "hopper_attention": Launcher(hopper_attention, (64, 128), ("sm_90",), ("bfloat16", "float16"), odd=False),
    "cross_entropy": Launcher(cross_entropy, (4096,), (*SHIPPED, "sm_86")),
}


def cases(
    targets: Iterable[str] = SHIPPED,
    launchers: Iterable[str] = tuple(LAUNCHERS),
    sizes: Iterable[int] = (),
    dtypes: Iterable[str] = ("bfloat16", "float32"),
    features: Iterable[str] = tuple(FEATURES),
) -> list[Case]:
    """All that ship, of those asked for; no sizes: all."""
    return [
        Case(name, target, size, dtype, way, feature)
        for name, target in product(launchers, targets)
        if target in LAUNCHERS[name].targets
        for size, dtype in product(LAUNCHERS[name].sizes, dtypes)
        if dtype in LAUNCHERS[name].dtypes and (not sizes or size in sizes)
        for way in _ways(target, dtype, LAUNCHERS[name].odd)
        for feature in features
    ]


def _ways(target: str, dtype: str, odd: bool) -> tuple[str, ...]:
    if not describes(target, dtype):
        return ("pointers",)
    return ("descriptors", "odd pointers") if odd else ("descriptors",)


def describes(target: str, dtype: str) -> bool:
    """Whether kernels load by tensor descriptors there."""
    return target in ("sm_90", "sm_100") and dtype != "float32"


def compile_case(case: Case) -> list[Row]:
    """Compiles what one call launches."""
    with compiling_for(case.target) as compiled:
        LAUNCHERS[case.launcher].call(case)
    return [_row(case, kernel) for kernel in compiled]


def _row(case: Case, kernel: Any) -> Row:
    values = constants(kernel)
    function = kernel.src.fn
    metadata = kernel.metadata
    return Row(
        case,
        kernel=f"{function.__module__.rpartition('.')[2]}.{function.__name__}",
        tile="x".join(str(values[name]) for name in TILE if name in values),
        warps=metadata.num_warps,
        stages=values.get("STAGES", metadata.num_stages),
        multiplies=any(f"{product} " in kernel.asm["ttgir"] for product in PRODUCTS),
        resources=resources(kernel),
    )


def compile_cases(wanted: list[Case], processes: int = 1) -> Iterator[Row]:
    """Rows of all cases, in their order."""
    if processes == 1:
        for case in wanted:
            yield from compile_case(case)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for rows in pool.map(compile_case, wanted):
            yield from rows


# ------------------------------------------------------------------------------- the table kept


def markdown(rows: Iterable[tuple[str, ...]]) -> str:
    """The table as Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def stored(version: str, text: str | None = None) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Rows that the README (or another text) keeps for a version of Triton: key columns to the others."""
    text = README.read_text() if text is None else text
    _, found, rest = text.partition(_opening(version))
    table = rest.partition("</details>")[0] if found else ""
    lines = [tuple(cell.strip() for cell in line.strip("|\n").split("|")) for line in table.splitlines() if "|" in line]
    return {line[:KEY]: line[KEY:] for line in lines[2:]}


def written(version: str, table: str, text: str) -> str:
    """The text with the table of one version replaced, or added before the end marker."""
    block = f"{_opening(version)}\n\n{table}\n\n</details>\n"
    before, found, rest = text.partition(_opening(version))
    if found:
        return before + block + rest.partition("</details>\n")[2]
    before, found, rest = text.partition(END)
    if not found:
        raise ValueError(f"{README}: the line {END!r}, before which tables are added, is missing")
    return f"{before}{block}\n{END}{rest}"


END = "<!-- end of the tables of python -m kernels.ahead_of_time --write -->"


def _opening(version: str) -> str:
    return f"<details><summary>Triton {version}</summary>"


# ------------------------------------------------------------------------------------ the command


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parse(arguments)
    try:
        import triton
    except ImportError:
        print("kernels.ahead_of_time needs Triton: pip install 'loam[triton]'", file=sys.stderr)
        return 2
    wanted = cases(options.target, options.kernel, options.size, options.dtype, options.features)
    rows: list[Row] = []
    for row in compile_cases(wanted, options.processes):
        if not options.markdown:
            if not rows:
                print(_aligned("features", COLUMNS))
            print(_aligned(row.case.features, row.cells()), flush=True)
        rows.append(row)
    tables = {name: markdown(row.cells() for row in rows if row.case.features == name) for name in options.features}
    if options.markdown:
        print("\n\n".join(f"{name}:\n\n{table}" for name, table in tables.items()))
    if options.write:
        README.write_text(written(triton.__version__, tables["pretraining"], README.read_text()))
    broken = [line for row in rows for line in row.violations()]
    print(*broken, sep="\n", end="\n" if broken else "", file=sys.stderr)
    return 1 if broken else 0


PARTS = ("target", "kernel", "size", "dtype", "features")


def _aligned(features: str, cells: tuple[str, ...]) -> str:
    return " ".join(f"{cell:{width}}" for cell, width in zip((features, *cells), WIDTHS, strict=True))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kernels.ahead_of_time", description=__doc__.split("\n\n")[0])
    choice = partial(parser.add_argument, nargs="+", metavar="NAME")
    choice("--target", choices=tuple(TARGETS), default=SHIPPED, help=f"of {', '.join(TARGETS)}")
    choice("--kernel", choices=tuple(LAUNCHERS), default=tuple(LAUNCHERS), help=f"of {', '.join(LAUNCHERS)}")
    choice("--size", type=int, default=(), help="of a head, or hidden; default: all that ship")
    choice("--dtype", choices=tuple(DTYPES), default=("bfloat16", "float32"), help=f"of {', '.join(DTYPES)}")
    choice("--features", choices=tuple(FEATURES), default=tuple(FEATURES), help=f"of {', '.join(FEATURES)}")
    parser.add_argument("--processes", type=int, default=1, help="compilers at a time")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--write", action="store_true", help="keep the table of pretraining in kernels/README.md")
    options = parser.parse_args(arguments)
    parts = [name for name in PARTS if tuple(getattr(options, name)) != tuple(parser.get_default(name))]
    if options.write and parts:
        parser.error(f"--write keeps the whole table; leave out {', '.join(f'--{name}' for name in parts)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
