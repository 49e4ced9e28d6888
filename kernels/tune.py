"""Which tiles are fastest on the GPU that is here: `python -m kernels.tune --write`.

Of each row that `configurations.json` has for this architecture, candidates are compiled for it, those that break a
rule of `kernels.ahead_of_time` are dropped, the others are timed (`triton.testing.do_bench`, median) in the launcher
that production calls, and the fastest is put in the row, with what it was timed on. Without `--write` the rows are
printed alone. What is timed is one causal pass over 16,384 tokens in rows of 4,096, one document a row, 2,048 numbers
of queries and 512 of keys a token; of the backward pass, the whole of it with the other kernels as they are.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import product
from multiprocessing import get_context
from typing import Any
from unittest import mock

import torch

from kernels import configurations
from kernels.ahead_of_time import FEATURES, Case, compile_case, describes
from kernels.configurations import Configuration, choose, present_architecture

DTYPE_OF_BYTES = {2: "bfloat16", 4: "float32"}
BATCH, TIME, WIDTH, GROUP = 4, 4096, 2048, 4

Row = dict[str, Any]


def candidates(row: Row) -> Iterator[Configuration]:
    """Configurations worth a try in place of a row's, itself first."""
    present = Configuration(**{name: row[name] for name in Configuration.__dataclass_fields__})
    yield present
    longer_sides, shorter_sides = ((64, 128, 256), (16, 32, 64, 128)) if row["bytes"] == 2 else ((16, 32, 64),) * 2
    persistent = (False, True) if row["kernel"] == "forward" else (False,)
    shapes = product(longer_sides, shorter_sides, (4, 8), (1, 2, 3, 4), persistent)
    for longer, shorter, warps, stages, persists in shapes:
        # The side that stays is the longer one: it is loaded once, and the other walks past it.
        queries, keys = (shorter, longer) if row["kernel"] == "backward_keys" else (longer, shorter)
        other = Configuration(queries, keys, warps, stages, row["descriptors"], persists)
        if other != present:
            yield other


def fits(row: Row, configuration: Configuration) -> bool:
    """Whether a configuration of a row keeps the rules of `kernels.ahead_of_time`, with all options too."""
    for features in FEATURES:
        dtype = DTYPE_OF_BYTES[row["bytes"]]
        case = Case("attention", row["architecture"], row["head_size"], dtype, _loads(row), features)
        with trying(row["kernel"], configuration):
            kernels = compile_case(case)
        name = f"flash_attention.{row['kernel']}"
        if any(any(kernel.violations()) for kernel in kernels if kernel.kernel == name):
            return False
    return True


def fastest(
    row: Row,
    fitting: Callable[[list[Configuration]], Iterator[bool]],
    milliseconds: Callable[[Row, Configuration], float],
    where: str,
) -> Row:
    """The row with the fastest of its candidates that fit; as it is where none does."""
    tried = list(candidates(row))
    kept = [each for each, fit in zip(tried, fitting(tried), strict=True) if fit]
    timed = [(milliseconds(row, each), number) for number, each in enumerate(kept)]
    if not timed:
        return row
    best, number = min(timed)
    return {**row, **vars(kept[number]), "measured": f"{best:.3f} ms on {where}, of {len(timed)} tried"}


def timed(row: Row, configuration: Configuration) -> float:
    """Milliseconds of the pass that launches a row's kernel."""
    from triton.testing import do_bench

    from kernels import attention_launch

    size, dtype = row["head_size"], getattr(torch, DTYPE_OF_BYTES[row["bytes"]])
    width = size + (_loads(row) == "odd pointers")

    def random(heads: int) -> torch.Tensor:
        return torch.randn(BATCH, TIME, heads, width, device="cuda", dtype=dtype)[..., :size]

    q, k, v = random(WIDTH // size), random(WIDTH // size // GROUP), random(WIDTH // size // GROUP)
    first = torch.zeros(BATCH, TIME, dtype=torch.int32, device="cuda")
    end = torch.full_like(first, TIME)
    options = {"causal": True, "window": 0, "scale": size**-0.5, "softcap": 0.0}
    with trying(row["kernel"], configuration):
        forward = partial(attention_launch.forward, q, k, v, first, end, None, **options)
        output, lse = forward()
        backward = partial(attention_launch.backward, output, None, q, k, v, output, lse, first, end, **options)
        return do_bench(forward if row["kernel"] == "forward" else backward, return_mode="median")


def _loads(row: Row) -> str:
    if row["descriptors"]:
        return "descriptors"
    return "odd pointers" if describes(row["architecture"], DTYPE_OF_BYTES[row["bytes"]]) else "pointers"


def trying(kernel: str, configuration: Configuration) -> AbstractContextManager[object]:
    """Launches a kernel in this configuration, the others in the table's."""
    from kernels import attention_launch

    def instead(asked: str, *place: Any) -> Configuration:
        return configuration if asked == kernel else choose(asked, *place)

    return mock.patch.object(attention_launch, "choose", instead)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kernels.tune", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kernel", nargs="+", choices=configurations.KERNELS, default=configurations.KERNELS)
    parser.add_argument("--head-size", nargs="+", type=int, default=configurations.HEAD_SIZES)
    parser.add_argument("--bytes", nargs="+", type=int, choices=(2, 4), default=(2,), help="of an element")
    parser.add_argument("--write", action="store_true", help="rewrite the rows in kernels/configurations.json")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("kernels.tune times kernels on a GPU, and torch sees none here", file=sys.stderr)
        return 2
    import triton

    architecture = present_architecture()
    architecture = configurations.RELATIVES.get(architecture, architecture)
    where = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Triton {triton.__version__}"
    rows = configurations.read_table()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for number, row in enumerate(rows):
            wanted = row["kernel"] in options.kernel and row["head_size"] in options.head_size
            if row["architecture"] == architecture and wanted and row["bytes"] in options.bytes:
                rows[number] = fastest(row, partial(pool.map, partial(fits, row)), timed, where)
                print(rows[number], flush=True)
                if options.write:  # at once, so that what was found survives an end of the machine's time
                    configurations.write_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
