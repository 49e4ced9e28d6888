"""How fast attention is beside others', on the same tensors, in the same run.

    python -m benchmarks.attention --output FOLDER

Wants torch, triton and this repository, nothing else. On a GPU: bf16, causal, 16,384 tokens of hidden size 2048 in rows
of 1k to 16k, head sizes 64 and 128, with grouped queries, and with documents; about five minutes. On a CPU it runs at
tiny sizes, to see that it runs; its figures say nothing of a GPU (with TRITON_INTERPRET=1 the Triton kernel runs too).

Everybody gets the same tensors [batch, time, heads, head size] of normal random numbers, lying as a model makes them.
First all of a work's contestants are checked on that very work, output and gradients of the last row's last heads
against float64; whoever is wrong or cannot do it is dropped, with the reason. Then they take turns. What counts is the
median of all calls, each timed by itself with the L2 cache swept before it. TFLOP/s are 4 x pairs x head size x heads
forward and 2.5 times that backward, where a row of T tokens has T^2 / 2 pairs, and one with documents those of its
documents alone. Ratios are our speed over the other's: above 1 we are faster.

The table is printed, and `attention.json` and `attention.svg` are written, after each work, so that a run that is cut
short leaves what it had.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from benchmarks import timing
from benchmarks.attention_contestants import (
    DIRECTIONS,
    ON_CPU,
    ON_GPU,
    OURS,
    TOLERANCE,
    Attention,
    Contestant,
    Inputs,
    UnavailableError,
    Work,
    relative_error,
)
from benchmarks.machine import accelerator, machine
from benchmarks.plot import write_lines


@dataclass
class Result:
    """Of one contestant at one work in one direction."""

    work: Work
    contestant: str
    direction: str
    error: float  # relative, against float64
    calls: list[float] = field(default_factory=list)  # seconds

    @property
    def seconds(self) -> float:
        """Of the median call."""
        return statistics.median(self.calls)

    @property
    def teraflops(self) -> float:
        """TFLOP/s at the median call."""
        return self.work.flops(self.direction) / self.seconds / 1e12


@dataclass
class Record:
    """All that a run found out."""

    results: list[Result] = field(default_factory=list)
    dropped: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # contestant, reason: names of works

    def find(self, work: Work, contestant: str, direction: str) -> Result | None:
        """What was measured of it."""
        wanted = (work, contestant, direction)
        return next((r for r in self.results if (r.work, r.contestant, r.direction) == wanted), None)

    def ratio(self, ours: tuple[Work, str], other: tuple[Work, str], direction: str) -> float | None:
        """The other's time over ours: above 1 ours is faster."""
        mine, theirs = self.find(*ours, direction), self.find(*other, direction)
        return theirs.seconds / mine.seconds if mine and theirs else None


def works_on_gpu() -> list[Work]:
    """Those that the goals are about first, for time may run out."""

    def work(time: int, head_size: int, groups: int = 1, **more: bool | int) -> Work:
        heads = 2048 // head_size
        return Work(time, 16384, heads, heads // groups, head_size, torch.bfloat16, **more)  # type: ignore[arg-type]

    long = [work(time, 128) for time in (8192, 4096, 16384)]
    documents = [work(8192, 128, document=512), work(8192, 128, document=512, uneven=True)]
    grouped = [work(8192, 128, groups=4)]
    short = [work(time, 128) for time in (1024, 2048)]
    small_heads = [work(time, 64) for time in (4096, 8192, 16384, 1024, 2048)]
    return [*long, *documents, *grouped, *small_heads, *short, work(8192, 64, document=512)]


def works_on_cpu() -> list[Work]:
    """The same kinds, tiny."""
    plain = [Work(time, 128, 2, 2, 32, torch.float32) for time in (64, 128)]
    return [*plain, Work(64, 128, 2, 1, 32, torch.float32), Work(128, 128, 2, 2, 32, torch.float32, document=32)]


# ---------------------------------------------------------------------------------- running


def race(work: Work, contestants: Iterable[Contestant], record: Record, turns: int, seconds: float) -> None:
    """Check every contestant, then time those that are right, in turns of about `seconds` each."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = Inputs(work, device)
    exact = inputs.exact()
    running: list[tuple[Result, Callable[[], list[float]]]] = []
    for contestant in contestants:
        try:
            attention = contestant.build(work, inputs)
            error = relative_error(attention, inputs, exact, contestant.backward)
            if not error < TOLERANCE[work.dtype]:
                raise UnavailableError(f"is wrong: relative error {error:.2g}")
            for direction in DIRECTIONS[: 1 + contestant.backward]:
                timed = _timed(attention, inputs, direction, seconds)
                running.append((Result(work, contestant.name, direction, error), timed))
        except Exception as reason:  # whatever a contestant fails of is a finding, and the others go on
            said = str(reason).strip().splitlines() or [type(reason).__name__]
            record.dropped.setdefault(contestant.name, {}).setdefault(said[0][:150], []).append(work.name)
    for _ in range(turns):
        for result, timed in running:
            result.calls += timed()
    record.results += [result for result, _ in running]


def _timed(attention: Attention, inputs: Inputs, direction: str, seconds: float) -> Callable[[], list[float]]:
    """One turn of a contestant, when it is called; it is warm already."""
    device = inputs.q.device
    if direction == "forward":
        detached = [leaf.detach() for leaf in inputs.leaves]

        def nothing() -> None:
            return None

        def forward(_: None) -> object:
            return attention(*detached)

        timing.warm(nothing, forward, device)
        return lambda: timing.sample(nothing, forward, device, seconds)

    def graph() -> torch.Tensor:
        return attention(*inputs.leaves)

    def backward(output: torch.Tensor) -> object:
        return torch.autograd.grad(output, inputs.leaves, inputs.upstream)

    timing.warm(graph, backward, device)
    return lambda: timing.sample(graph, backward, device, seconds)


# ---------------------------------------------------------------------------------- telling


def table(record: Record, works: list[Work], direction: str, names: list[str]) -> list[str]:
    """A line a work: everybody's TFLOP/s, and the speed of each of ours over each other's."""
    ours = [name for name in OURS if name in names]
    others = [name for name in names if name not in OURS]
    pairs = [(mine, other) for mine in ours for other in others]
    heads = [*names, *(f"{mine}/{other}" for mine, other in pairs)]
    widths = [max(len(head), 7) + 2 for head in heads]
    lines = [f"{direction:<54}" + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))]
    for work in works:
        found = [record.find(work, name, direction) for name in names]
        ratios = [record.ratio((work, mine), (work, other), direction) for mine, other in pairs]
        cells = [f"{result.teraflops:.3g}" if result else "-" for result in found]
        cells += [f"{ratio:.2f}x" if ratio else "-" for ratio in ratios]
        lines.append(f"{work.name:<54}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)))
    return lines


def goals(record: Record, works: list[Work]) -> list[str]:
    """Each goal for each of ours, at each work it is about."""
    lines = []
    plain = [w for w in works if not w.document and w.heads == w.key_value_heads and w.head_size == 128]
    for mine in OURS:
        for direction in DIRECTIONS:
            for other, least in (("sdpa flash", 1.2), ("sdpa cudnn", 0.9)):
                for work in sorted((w for w in plain if w.time >= 4096), key=lambda w: w.time):
                    ratio = record.ratio((work, mine), (work, other), direction)
                    lines.append(_goal(f"{mine} over {other}, {direction}, {work.name}", ratio, least))
            masked = [w for w in works if w.document == 512 and not w.uneven and (w.time, w.head_size) == (8192, 128)]
            for work in masked:
                whole = next(w for w in plain if w.time == work.time)
                ratio = record.ratio((work, mine), (whole, mine), direction)
                lines.append(_goal(f"{mine}, {direction}, {work.name}, over no documents", ratio, 5))
    return lines


def _goal(what: str, ratio: float | None, least: float) -> str:
    if ratio is None:
        return f"{'not measured':<14}{what}: at least {least}x"
    return f"{'met' if ratio >= least else 'NOT MET':<14}{what}: {ratio:.2f}x of at least {least}x"


def write(record: Record, works: list[Work], names: list[str], folder: Path, about: list[str]) -> None:
    """`attention.json`: every figure; `attention.svg`: the rows without documents, every head a key-value head."""
    results = [
        {
            **asdict(r.work) | {"dtype": str(r.work.dtype).removeprefix("torch.")},
            "contestant": r.contestant,
            "direction": r.direction,
            "milliseconds": r.seconds * 1e3,
            "fastest_milliseconds": min(r.calls) * 1e3,
            "slowest_milliseconds": max(r.calls) * 1e3,
            "calls": len(r.calls),
            "teraflops": r.teraflops,
            "relative_error": r.error,
        }
        for r in record.results
    ]
    whole = {"machine": about, "results": results, "dropped": record.dropped, "goals": goals(record, works)}
    (folder / "attention.json").write_text(json.dumps(whole, indent=1))
    panels: dict[str, dict[str, dict[str, float]]] = {}
    plain = sorted((w for w in works if not w.document and w.heads == w.key_value_heads), key=lambda w: w.time)
    for direction in DIRECTIONS:
        for head_size in sorted({w.head_size for w in plain}):
            panel = panels.setdefault(f"{direction}, head size {head_size}", {})
            for name in names:
                found = [record.find(w, name, direction) for w in plain if w.head_size == head_size]
                if any(found):
                    panel[name] = {str(result.work.time): result.teraflops for result in found if result}
    categories = list(dict.fromkeys(str(w.time) for w in plain))
    write_lines(
        folder / "attention.svg", f"Causal attention by tokens a row, {about[0]}", "TFLOP/s", categories, panels
    )


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("."), help="folder of attention.json and attention.svg")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--milliseconds", type=float, default=60, help="of each contestant in each turn and direction")
    parser.add_argument("--seconds", type=float, default=330, help="after which no further work is begun")
    parser.add_argument("--contestants", nargs="+", metavar="NAME", help="these alone, e.g. triton 'sdpa flash'")
    arguments = parser.parse_args(words)
    arguments.output.mkdir(parents=True, exist_ok=True)

    gpu = torch.cuda.is_available()
    deadline = time.monotonic() + arguments.seconds
    works = works_on_gpu() if gpu else works_on_cpu()
    everybody = [c for c in (ON_GPU if gpu else ON_CPU) if not arguments.contestants or c.name in arguments.contestants]
    about = [accelerator(), machine("torch", "triton", "flash-attn", "flash-attn-3")]
    record = Record()
    left_out = []
    for compiles in (False, True):  # those who compile for long come last, for time may run out
        for work in works:
            contestants = [c for c in everybody if c.compiles == compiles]
            if time.monotonic() > deadline:
                left_out += [f"{c.name} ({work.name})" for c in contestants]
            elif contestants:
                race(work, contestants, record, arguments.turns, arguments.milliseconds / 1e3)
                names = [c.name for c in everybody if any(r.contestant == c.name for r in record.results)]
                write(record, works, names, arguments.output, about)
                print(f"done: {', '.join(c.name for c in contestants)} at {work.name}", flush=True)

    names = [c.name for c in everybody if any(r.contestant == c.name for r in record.results)]
    print("\n".join(about))
    kind = "bf16" if gpu else "fp32; sizes too small to say anything"
    print(
        f"TFLOP/s, {kind}, causal, {works[0].tokens:,} tokens, heads x head size {works[0].heads * works[0].head_size}"
    )
    for direction in DIRECTIONS:
        print(
            "\n".join(table(record, sorted(works, key=lambda w: (w.head_size, w.document, w.time)), direction, names))
        )
    for name, reasons in record.dropped.items():
        for reason, at in reasons.items():
            print(f"dropped: {name}: {reason} ({'everywhere' if len(at) == len(works) else '; '.join(at)})")
    for words_left in left_out:
        print(f"not measured within {arguments.seconds:.0f} s: {words_left}")
    print("\n".join(goals(record, works)), flush=True)


if __name__ == "__main__":
    main()
