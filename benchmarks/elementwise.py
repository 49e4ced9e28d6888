"""What a kernel of our own could win on the parts of a block that are neither a matrix product nor attention.

    python -m benchmarks.elementwise --output FOLDER

RMSNorm with the residual added before it, rotary positions with and without QK-norm, and SwiGLU: forward and backward
by plain torch, torch.compile and, where it is installed, Liger-Kernel, beside the floor: what must be read and written
once each way, at the speed of a large copy, measured here. And a whole block of the model with torch's attention,
forward and backward, compiled and not, with the share of it that each part has. What a perfect kernel of ours could
take off the block is the time of the best there is less the floor; we write one only where that is more than 10 % of
the block's step.

On a GPU: bf16, 8,192 tokens, hidden size 4096, 32 heads and 8 key-value heads of 128, 14,336 intermediate, as Llama 3
8B. On a CPU it runs at tiny sizes, to see that it runs. Shapes: T tokens, C hidden size, H heads, D head size.
"""

import argparse
import importlib
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from benchmarks import timing
from benchmarks.machine import accelerator, machine
from framework.config import ModelConfig
from framework.model.transformer import Block, rotary_angles, rotate

WORTH = 0.10  # of the block's step
Function = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Part:
    """One of the things that are fused, how often a block has it, and how much it must move."""

    name: str
    count: int
    function: Function
    inputs: list[Tensor]
    moved: int  # numbers read and written, forward and backward; weights are not worth counting
    liger: Callable[[], Function]


def shape() -> ModelConfig:
    """Of a block."""
    if torch.cuda.is_available():
        return ModelConfig(
            vocabulary_size=1024,
            hidden_size=4096,
            heads=32,
            key_value_heads=8,
            head_size=128,
            intermediate_size=14336,
            maximum_positions=8192,
            layers=1,
        )
    return ModelConfig(vocabulary_size=64, hidden_size=64, heads=4, key_value_heads=2, maximum_positions=64, layers=1)


def parts(config: ModelConfig, tokens: int, device: torch.device, dtype: torch.dtype) -> list[Part]:
    """All of them, as the model has them."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, device=device, dtype=dtype)

    epsilon = config.norm_epsilon
    cosine, sine = rotary_angles(config, torch.arange(tokens, device=device)[None])
    q_THD, k_TGD = (draw(1, tokens, n, config.head_size) for n in (config.heads, config.key_value_heads))

    def norm(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        total = x + residual
        return F.rms_norm(total, weight.shape, weight, epsilon), total

    def turn(q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
        return rotate(q, (cosine, sine)), rotate(k, (cosine, sine))

    def norm_and_turn(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor) -> tuple[Tensor, ...]:
        return turn(F.rms_norm(q, q_weight.shape, q_weight, epsilon), F.rms_norm(k, k_weight.shape, k_weight, epsilon))

    def swiglu(gate: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        return (F.silu(gate) * up,)

    hidden = [draw(1, tokens, config.hidden_size) for _ in range(2)]
    wide = [draw(1, tokens, config.intermediate_size) for _ in range(2)]
    head_weights = [draw(config.head_size) for _ in range(2)]
    x, g = hidden[0].numel(), wide[0].numel()
    qk = q_THD.numel() + k_TGD.numel()
    # Forward and backward. Norm: x, residual in, norm, sum out; sum and two upstreams in, one gradient for both out.
    # Rotary: in, out; in, out. With norms: in, out; what came in, upstream in, out. SwiGLU: 2 in, 1 out; 3 in, 2 out.
    return [
        Part("RMSNorm + residual", 2, norm, [*hidden, draw(config.hidden_size)], 8 * x, lambda: _liger_norm(epsilon)),
        Part("rotary", 1, turn, [q_THD, k_TGD], 4 * qk, lambda: _liger_rotary(cosine, sine)),
        Part("QK-norm + rotary", 1, norm_and_turn, [q_THD, k_TGD, *head_weights], 5 * qk, _liger_has_none),
        Part("SwiGLU", 1, swiglu, wide, 8 * g, _liger_swiglu),
    ]


def _liger_norm(epsilon: float) -> Function:
    apply = importlib.import_module("liger_kernel.ops.fused_add_rms_norm").LigerFusedAddRMSNormFunction.apply
    return lambda x, residual, weight: apply(x, residual, weight, epsilon)


def _liger_rotary(cosine: Tensor, sine: Tensor) -> Function:
    apply = importlib.import_module("liger_kernel.ops.rope").LigerRopeFunction.apply
    both = [torch.cat((angle, angle), dim=-1)[:, :, 0] for angle in (cosine, sine)]  # [1, T, D]

    def turn(q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
        q, k = apply(q.transpose(1, 2), k.transpose(1, 2), *(angle.to(q.dtype) for angle in both))
        return q.transpose(1, 2), k.transpose(1, 2)

    return turn


def _liger_swiglu() -> Function:
    apply = importlib.import_module("liger_kernel.ops.swiglu").LigerSiLUMulFunction.apply
    return lambda gate, up: (apply(gate, up),)


def _liger_has_none() -> Function:
    raise ImportError("Liger-Kernel has none")


# ---------------------------------------------------------------------------------- timing


def step_seconds(function: Function, inputs: list[Tensor], seconds: float) -> float:
    """Median of forward and backward together; on copies, for Liger's backward writes over what it was given."""
    device = inputs[0].device
    upstream = [torch.randn_like(output) for output in function(*inputs)]

    def forward_time() -> list[float]:
        def prepare() -> list[Tensor]:
            return [tensor.clone().requires_grad_() for tensor in inputs]

        def call(leaves: list[Tensor]) -> object:
            return function(*leaves)

        timing.warm(prepare, call, device)
        return timing.sample(prepare, call, device, seconds)

    def backward_time() -> list[float]:
        def prepare() -> tuple[list[Tensor], tuple[Tensor, ...], list[Tensor]]:
            leaves = [tensor.clone().requires_grad_() for tensor in inputs]
            return leaves, function(*leaves), [gradient.clone() for gradient in upstream]

        def call(state: tuple[list[Tensor], tuple[Tensor, ...], list[Tensor]]) -> object:
            leaves, outputs, gradients = state
            return torch.autograd.grad(outputs, leaves, gradients)

        timing.warm(prepare, call, device)
        return timing.sample(prepare, call, device, seconds)

    return statistics.median(forward_time()) + statistics.median(backward_time())


def part_seconds(part: Part, seconds: float) -> dict[str, float]:
    """By contestant; whoever is not there, or wrong, is told and left out."""
    contestants: dict[str, Callable[[], Function]] = {
        "torch": lambda: part.function,
        "compile": lambda: torch.compile(part.function, dynamic=False),
        "liger": part.liger,
    }
    exact = part.function(*(tensor.float() for tensor in part.inputs))
    taken = {}
    for name, build in contestants.items():
        try:
            function = build()
            got = function(*(tensor.clone() for tensor in part.inputs))
            error = max(float((g - e).norm() / e.norm()) for g, e in zip(got, exact, strict=False))
            if not error < 0.02:  # a few roundings of bf16
                raise ValueError(f"is wrong: relative error {error:.2g}")
            taken[name] = step_seconds(function, part.inputs, seconds)
        except Exception as reason:  # whatever a contestant fails of is a finding, and the others go on
            print(f"dropped: {name} at {part.name}: {(str(reason).strip().splitlines() or [repr(reason)])[0][:150]}")
    return taken


def block_seconds(config: ModelConfig, tokens: int, device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """The quicker of a block as it is and compiled, forward and backward, of one row of all tokens."""
    torch.manual_seed(0)
    block = Block(config, 0).to(device, dtype)
    x_BTC = torch.randn(1, tokens, config.hidden_size, device=device, dtype=dtype)
    rotation = rotary_angles(config, torch.arange(tokens, device=device)[None])
    parameters = list(block.parameters())

    def step_of(run: Callable[..., Tensor]) -> float:
        def step(x: Tensor) -> object:
            return torch.autograd.grad(run(x, rotation, None, None), [x, *parameters], x.detach())

        def fresh() -> Tensor:
            return x_BTC.clone().requires_grad_()

        timing.warm(fresh, step, device)
        return statistics.median(timing.sample(fresh, step, device, seconds))

    with kernels.use("sdpa"):
        taken = {"torch": step_of(block), "compile": step_of(torch.compile(block, dynamic=False))}
    print("a block's step: " + ", ".join(f"{name} {value * 1e3:.3f} ms" for name, value in taken.items()))
    return min(taken.values())


def copy_speed(device: torch.device) -> float:
    """Bytes a second, read and written ones, of a copy far larger than any cache."""
    source = torch.empty((4 << 30) if device.type == "cuda" else (64 << 20), dtype=torch.int8, device=device)
    target = torch.empty_like(source)

    def nothing() -> None:
        return None

    timing.warm(nothing, lambda _: target.copy_(source), device)
    return 2 * source.numel() / statistics.median(timing.sample(nothing, lambda _: target.copy_(source), device, 0.2))


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("."), help="folder of elementwise.json")
    parser.add_argument("--milliseconds", type=float, default=200, help="of each contestant and direction")
    arguments = parser.parse_args(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    gpu, seconds = torch.cuda.is_available(), arguments.milliseconds / 1e3
    device, dtype = (torch.device("cuda"), torch.bfloat16) if gpu else (torch.device("cpu"), torch.float32)
    config, tokens = shape(), 8192 if gpu else 64
    about = [accelerator(), machine("torch", "triton", "liger-kernel")]
    print("\n".join(about))

    speed = copy_speed(device)
    print(f"copy: {speed / 1e12:.3g} TB/s; {tokens:,} tokens, hidden size {config.hidden_size}, {dtype}")
    block = block_seconds(config, tokens, device, dtype, seconds)
    rows = []
    for part in parts(config, tokens, device, dtype):
        taken = part_seconds(part, seconds)
        floor = part.moved * dtype.itemsize / speed
        best = min(taken.values())
        winnable = part.count * max(best - floor, 0.0) / block
        rows.append({"part": part.name, "count": part.count, "seconds": taken, "floor": floor, "winnable": winnable})
        times = "  ".join(f"{name} {value * 1e3:8.3f} ms" for name, value in taken.items())
        share = part.count * best / block
        print(f"{part.count} x {part.name:<20}{times}  floor {floor * 1e3:8.3f} ms  {share:6.1%} of the block")
        verdict = "worth trying a kernel" if winnable > WORTH else "no kernel of ours"
        verdict = verdict if gpu else "sizes too small to say anything"
        print(f"    a perfect kernel would take {winnable:.1%} off the block's step: {verdict}", flush=True)
    result = {"machine": about, "copy_bytes_per_second": speed, "block_seconds": block, "parts": rows}
    (arguments.output / "elementwise.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
