"""What the loss over a large vocabulary takes, in memory and time, beside others', on the same tensors.

    python -m benchmarks.cross_entropy --output FOLDER

Forward and backward together of the mean cross-entropy of x weight^T: how long a step takes, and on a GPU how much
memory beyond what there was before, at the most (the gradients, which everybody has to make, included and told). On a
GPU: bf16, 8,192 tokens, hidden size 4096 with a vocabulary of 128,256 (Llama 3 8B), and 2048 with 32,000 and 128,256.
On a CPU it runs at tiny sizes in fp32, to see that it runs; its figures say nothing of a GPU (with TRITON_INTERPRET=1
the Triton kernel runs too).

- triton: ours. chunks: ours by torch, as it is elsewhere than on a GPU.
- torch: `F.linear` and `F.cross_entropy`, in fp32 as a trainer has it. compile: the same by torch.compile.
- torch linear: `F.linear_cross_entropy` with torch's own choice of chunks, where torch has it (2.13 does).
- liger: `LigerFusedLinearCrossEntropyFunction`, where liger-kernel is installed.

First everybody's loss and gradients are compared with float64; whoever is wrong or cannot do it is dropped, with the
reason. Then they take turns; the median of all calls counts. Ratios are the other's over ours: above 1 we take less.
"""

import argparse
import importlib
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from benchmarks import timing
from benchmarks.machine import accelerator, machine

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # x [N, C], weight [V, C], labels [N]: their mean, differentiable
# Relative error of loss and gradients that rounding may make: of logits and their gradients in bf16; of sums in fp32.
TOLERANCE = {torch.bfloat16: 0.02, torch.float32: 1e-4}


@dataclass(frozen=True)
class Work:
    """Sizes."""

    tokens: int
    hidden: int
    vocabulary: int
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """Of its line in the table."""
        return f"{self.tokens:,} x {self.hidden:,}, vocabulary {self.vocabulary:,}"


@dataclass
class Result:
    """Of one contestant at one work."""

    work: Work
    contestant: str
    error: float  # relative, against float64
    mebibytes: float | None  # at the most beyond what there was; None on a CPU
    calls: list[float] = field(default_factory=list)  # seconds

    @property
    def seconds(self) -> float:
        """Of the median call."""
        return statistics.median(self.calls)


class Inputs:
    """Tensors of a work, and what comes of them in float64."""

    def __init__(self, work: Work, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(0)

        def draw(rows: int, scale: float) -> Tensor:
            whole = torch.randn(rows, work.hidden, generator=generator, device=device, dtype=torch.float32)
            return (whole * scale).to(work.dtype).requires_grad_()

        self.x, self.weight = draw(work.tokens, 1.0), draw(work.vocabulary, 2 * work.hidden**-0.5)
        self.labels = torch.randint(work.vocabulary, (work.tokens,), generator=generator, device=device)

    def step(self, loss: Loss) -> tuple[Tensor, ...]:
        """Loss and both gradients."""
        value = loss(self.x, self.weight, self.labels)
        return value.detach(), *torch.autograd.grad(value, (self.x, self.weight))

    def error(self, found: tuple[Tensor, ...], rows: int = 256) -> float:
        """The largest relative error among the loss, the gradient of x, and that of the weight's first `rows` rows.

        In float64, `rows` tokens at a time, that it fits.
        """
        weight = self.weight.detach().double()
        loss = torch.zeros((), dtype=torch.float64, device=weight.device)
        x_off, x_size = torch.zeros_like(loss), torch.zeros_like(loss)
        weight_gradient = torch.zeros_like(weight[:rows])
        for start in range(0, len(self.x), rows):
            x, labels = self.x[start : start + rows].detach().double(), self.labels[start : start + rows]
            logits = x @ weight.T
            loss += F.cross_entropy(logits, labels, reduction="sum")
            by_logits = torch.softmax(logits, 1)
            by_logits[torch.arange(len(x), device=x.device), labels] -= 1
            x_gradient = by_logits @ weight / len(self.x)
            x_off += (found[1][start : start + rows].double() - x_gradient).square().sum()
            x_size += x_gradient.square().sum()
            weight_gradient += by_logits[:, :rows].T @ x / len(self.x)
        loss /= len(self.x)
        weight_off = (found[2][:rows].double() - weight_gradient).norm() / weight_gradient.norm()
        return max(float((found[0].double() - loss).abs() / loss), float((x_off / x_size).sqrt()), float(weight_off))


# ---------------------------------------------------------------------------------- contestants


def ours(implementation: str, chunk_logits: int) -> Loss:
    """`kernels.linear_cross_entropy`."""

    def loss(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        with kernels.use(implementation):
            return kernels.linear_cross_entropy(x, weight, labels, chunk_logits=chunk_logits)[0] / len(x)

    return loss


def plain(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """With all logits, in fp32."""
    return F.cross_entropy(F.linear(x, weight).float(), labels)


def torch_linear() -> Loss:
    """With torch's own options for chunks."""
    function, options = F.linear_cross_entropy, torch.nn.LinearCrossEntropyOptions()
    return lambda x, weight, labels: function(x, weight, labels, options=options)


def liger() -> Loss:
    """Liger-Kernel's, which computes the gradients in its forward."""
    module = importlib.import_module("liger_kernel.ops.fused_linear_cross_entropy")
    apply = module.LigerFusedLinearCrossEntropyFunction.apply

    def loss(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        made = apply(x, weight, labels)
        return made[0] if isinstance(made, tuple) else made

    return loss


def contestants(work: Work) -> dict[str, Callable[[], Loss]]:
    """Those that may be here; who is not fails to build, which is told."""
    gpu = torch.cuda.is_available()
    chunk_logits = 2**26 if gpu else work.tokens * work.vocabulary // 4
    return {
        "triton": lambda: ours("triton", chunk_logits),
        "chunks": lambda: ours("sdpa", chunk_logits),
        "torch": lambda: plain,
        "compile": lambda: torch.compile(plain, dynamic=False),
        "torch linear": torch_linear,
        "liger": liger,
    }


# -------------------------------------------------------------------------------------- running


def race(work: Work, turns: int, seconds: float, dropped: dict[str, dict[str, list[str]]]) -> list[Result]:
    """Check every contestant, then time those that are right, in turns of about `seconds` each."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = Inputs(work, device)
    running: list[tuple[Result, Loss]] = []
    for name, build in contestants(work).items():
        try:
            loss = build()
            error = inputs.error(inputs.step(loss))
            if not error < TOLERANCE[work.dtype]:
                raise ValueError(f"is wrong: relative error {error:.2g}")
            running.append((Result(work, name, error, peak_mebibytes(inputs, loss)), loss))
        except Exception as reason:  # whatever a contestant fails of is a finding, and the others go on
            said = str(reason).strip().splitlines() or [type(reason).__name__]
            dropped.setdefault(name, {}).setdefault(said[0][:150], []).append(work.name)
    for _ in range(turns):
        for result, loss in running:
            result.calls += timing.sample(partial(_itself, loss), inputs.step, device, seconds)
    return [result for result, _ in running]


def _itself(loss: Loss) -> Loss:
    return loss


def peak_mebibytes(inputs: Inputs, loss: Loss) -> float | None:
    """What a step takes at the most beyond its inputs, once everything is compiled."""
    if not inputs.x.is_cuda:
        return None
    inputs.step(loss)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    inputs.step(loss)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def table(work: Work, results: list[Result]) -> list[str]:
    """A line a contestant: memory and time, and their ratios to ours."""
    gradients = work.dtype.itemsize * (work.vocabulary + work.tokens) * work.hidden / 2**20
    lines = [f"{work.name}; the gradients themselves {gradients:,.0f} MiB"]
    mine = next((result for result in results if result.contestant == "triton"), None)
    for result in results:
        memory = "-" if result.mebibytes is None else f"{result.mebibytes:,.0f} MiB"
        line = f"  {result.contestant:<14}{memory:>12}{result.seconds * 1e3:10.2f} ms   error {result.error:.1e}"
        if mine and result is not mine:
            line += f"   {result.seconds / mine.seconds:5.2f}x of ours in time"
            if mine.mebibytes and result.mebibytes:
                line += f", {result.mebibytes / mine.mebibytes:5.2f}x in memory"
        lines.append(line)
    return lines


def main(words: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("."), help="folder of cross_entropy.json")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--milliseconds", type=float, default=400, help="of each contestant in each turn")
    arguments = parser.parse_args(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    sizes = [(64, 32, 1000)]
    dtype = torch.float32
    if torch.cuda.is_available():
        sizes, dtype = [(8192, 4096, 128_256), (8192, 2048, 32_000), (8192, 2048, 128_256)], torch.bfloat16
    about = [accelerator(), machine("torch", "triton", "liger-kernel")]
    kind = "bf16" if torch.cuda.is_available() else "fp32; sizes too small to say anything"
    print("\n".join([*about, f"{kind}, forward and backward, tokens x hidden size"]), flush=True)
    results: list[Result] = []
    dropped: dict[str, dict[str, list[str]]] = {}
    for size in sizes:
        work = Work(*size, dtype)
        found = race(work, arguments.turns, arguments.milliseconds / 1e3, dropped)
        results += found
        print("\n".join(table(work, found)), flush=True)
        rows = [
            {
                **asdict(r.work) | {"dtype": str(r.work.dtype).removeprefix("torch.")},
                "contestant": r.contestant,
                "milliseconds": r.seconds * 1e3,
                "calls": len(r.calls),
                "mebibytes": r.mebibytes,
                "relative_error": r.error,
            }
            for r in results
        ]
        whole = {"machine": about, "results": rows, "dropped": dropped}
        (arguments.output / "cross_entropy.json").write_text(json.dumps(whole, indent=1))
    for name, reasons in dropped.items():
        for reason, at in reasons.items():
            print(f"dropped: {name}: {reason} ({'everywhere' if len(at) == len(sizes) else '; '.join(at)})")


if __name__ == "__main__":
    main()
