"""Who computes attention in `benchmarks.attention`, on what work, and whether what he computes is right.

Shapes: B batch, T time, H heads, G key-value heads, D head size.
"""

import importlib
import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import kernels

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # of q [B, T, H, D], k and v [B, T, G, D]
DIRECTIONS = ("forward", "backward")

# Of ||got - exact|| / ||exact||: a few roundings of the dtype, while a mask that is off by one gives about 0.5.
TOLERANCE = {torch.bfloat16: 0.03, torch.float16: 0.004, torch.float32: 1e-4}


class UnavailableError(Exception):
    """This contestant cannot do this work here; the message says why."""


@dataclass(frozen=True)
class Work:
    """Causal attention over `tokens` tokens in rows of `time`, in documents of `document` where that is not 0."""

    time: int
    tokens: int
    heads: int
    key_value_heads: int
    head_size: int
    dtype: torch.dtype
    document: int = 0
    uneven: bool = False  # documents of 1 to 2 x `document` instead, drawn at random

    @property
    def batch(self) -> int:
        """Rows."""
        return self.tokens // self.time

    @property
    def name(self) -> str:
        """One line of a table."""
        groups = f"{self.heads}/{self.key_value_heads} heads" if self.heads != self.key_value_heads else ""
        documents = f"documents of {'about ' * self.uneven}{self.document}" if self.document else ""
        return ", ".join(filter(None, (f"rows of {self.time}", f"head size {self.head_size}", groups, documents)))

    def lengths(self) -> list[list[int]]:
        """Tokens of each document of each row; a row without documents is one."""
        draw = random.Random(self.time)
        rows = []
        for _ in range(self.batch):
            row: list[int] = []
            while (left := self.time - sum(row)) > 0:
                length = draw.randint(1, 2 * self.document) if self.uneven else self.document or self.time
                row.append(min(length, left))
            rows.append(row)
        return rows

    def flops(self, direction: str) -> float:
        """As papers count them: 4 D for a pair of query and key, half of all pairs; 2.5 times that backward."""
        pairs = sum(length**2 for row in self.lengths() for length in row) / 2
        return 4 * pairs * self.head_size * self.heads * (1 if direction == "forward" else 2.5)


class Inputs:
    """Random q, k, v and upstream gradient [B, T, heads, D], and the documents, of one work."""

    def __init__(self, work: Work, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(work.time + work.head_size)

        def draw(heads: int) -> Tensor:
            shape = (work.batch, work.time, heads, work.head_size)
            return torch.randn(shape, generator=generator, device=device, dtype=work.dtype)

        self.q, self.upstream = draw(work.heads), draw(work.heads)
        self.k, self.v = draw(work.key_value_heads), draw(work.key_value_heads)
        self.leaves = [tensor.requires_grad_() for tensor in (self.q, self.k, self.v)]
        self.document: Tensor | None = None
        if work.document:
            rows = [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)).int() for row in work.lengths()]
            self.document = torch.stack(rows).to(device)
        self.cumulative = torch.tensor([0, *(n for row in work.lengths() for n in row)], device=device).cumsum(0).int()
        self.longest = max(n for row in work.lengths() for n in row)

    def exact(self) -> tuple[Tensor, ...]:
        """Output and gradients in float64 of the last row's last key-value head and the heads that share it."""
        heads = self.q.shape[2] // self.k.shape[2]
        leaves = [
            t[-1:, :, -n:].detach().double().requires_grad_() for t, n in zip(self.leaves, (heads, 1, 1), strict=True)
        ]
        document = None if self.document is None else self.document[-1:]
        with kernels.use("reference"):
            output = _first(kernels.attention, *leaves, document=document)
        gradients = torch.autograd.grad(output, leaves, self.upstream[-1:, :, -heads:].double())
        return (output.detach(), *gradients)


def relative_error(attention: Attention, inputs: Inputs, exact: tuple[Tensor, ...], backward: bool) -> float:
    """The largest ||got - exact|| / ||exact|| of output and, where there is a backward pass, gradients."""
    leaves = inputs.leaves if backward else [leaf.detach() for leaf in inputs.leaves]
    output = attention(*leaves)
    gradients = torch.autograd.grad(output, leaves, inputs.upstream) if backward else ()
    errors = []
    for tensor, expected in zip((output.detach(), *gradients), exact, strict=False):  # exact has gradients in any case
        here = tensor[-1:, :, -expected.shape[2] :].double()
        errors.append(float((here - expected).norm() / expected.norm()))
    return max(errors, key=lambda error: (error != error, error))  # NaN is the worst


# ---------------------------------------------------------------------------------- contestants


@dataclass(frozen=True)
class Contestant:
    """`build` gives the attention of one work, or raises UnavailableError."""

    name: str
    build: Callable[[Work, Inputs], Attention]
    compiles: bool = False  # for many seconds, anew for each work
    backward: bool = True


def ours(name: str, _work: Work, inputs: Inputs) -> Attention:
    """Loam's, the implementation of that name; the bounds of documents lie ready, as they do in every layer."""
    documents = None if inputs.document is None else kernels.documents(inputs.document)

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with kernels.use(name):
            return _first(kernels.attention, q, k, v, document=documents)

    try:
        kernels.use(name).__exit__(None, None, None)
    except ValueError as error:
        raise UnavailableError(str(error)) from error
    return attention


def sdpa(backend: SDPBackend, work: Work, _inputs: Inputs) -> Attention:
    """Torch's `scaled_dot_product_attention` by one backend, which takes no documents but as a mask of T x T."""
    if work.document:
        raise UnavailableError("takes no documents")

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel([backend]):
            grouped = work.heads != work.key_value_heads
            q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
            return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped).transpose(1, 2)

    return attention


def flex(work: Work, inputs: Inputs) -> Attention:
    """Torch's FlexAttention, compiled for this shape alone; the time of making its block mask is not counted."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    document = inputs.document

    def causal(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query >= key

    def within_documents(b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert document is not None
        return (query >= key) & (document[b, query] == document[b, key])

    torch.compiler.reset()  # or it would soon count as recompiled too often, and run uncompiled
    mask = create_block_mask(
        causal if document is None else within_documents,
        None if document is None else work.batch,
        None,
        work.time,
        work.time,
        device=inputs.q.device,
    )
    compiled = torch.compile(flex_attention, dynamic=False)
    grouped = work.heads != work.key_value_heads

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        output = compiled(q, k, v, block_mask=mask, enable_gqa=grouped)
        assert isinstance(output, Tensor)
        return output.transpose(1, 2)

    return attention


def varlen(work: Work, inputs: Inputs) -> Attention:
    """`torch.nn.attention.varlen`, over all rows' documents laid end to end."""
    try:
        varlen_attn = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    except ImportError as error:
        raise UnavailableError(str(error)) from error
    accepted = inspect.signature(varlen_attn).parameters
    options: dict[str, object] = {"window_size": (-1, 0)} if "window_size" in accepted else {"is_causal": True}
    if work.heads != work.key_value_heads and "enable_gqa" in accepted:
        options["enable_gqa"] = True
    return partial(_end_to_end, partial(varlen_attn, **options), inputs)


def flash_attn(package: str, work: Work, inputs: Inputs) -> Attention:
    """Tri Dao's package: `flash_attn` is FlashAttention 2, `flash_attn_interface` 3."""
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UnavailableError(str(error)) from error
    if work.document:
        return partial(_end_to_end, partial(module.flash_attn_varlen_func, causal=True), inputs)
    return partial(_first, partial(module.flash_attn_func, causal=True))


def _first(function: Callable[..., object], *arguments: object, **options: object) -> Tensor:
    """The output alone, of a function that may add the log-sum-exp."""
    output = function(*arguments, **options)
    first = output[0] if isinstance(output, tuple) else output
    assert isinstance(first, Tensor)
    return first


def _end_to_end(function: Callable[..., object], inputs: Inputs, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A function of tokens [rows x T, heads, D] and cumulative lengths."""
    flat = (tensor.flatten(0, 1) for tensor in (q, k, v))
    cumulative, longest = inputs.cumulative, inputs.longest
    return _first(function, *flat, cumulative, cumulative, longest, longest).view_as(q)


OURS = ("triton", "hopper")
ON_GPU = [
    *(Contestant(name, partial(ours, name)) for name in OURS),
    Contestant("sdpa flash", partial(sdpa, SDPBackend.FLASH_ATTENTION)),
    Contestant("sdpa cudnn", partial(sdpa, SDPBackend.CUDNN_ATTENTION)),
    Contestant("varlen", varlen),
    Contestant("flash-attn 2", partial(flash_attn, "flash_attn")),
    Contestant("flash-attn 3", partial(flash_attn, "flash_attn_interface")),
    Contestant("flex", flex, compiles=True),
]
ON_CPU = [
    Contestant("triton", partial(ours, "triton")),  # where TRITON_INTERPRET=1 was set
    Contestant("reference", partial(ours, "reference")),
    Contestant("sdpa flash", partial(sdpa, SDPBackend.FLASH_ATTENTION)),
    Contestant("flex", flex, compiles=True, backward=False),  # torch has none on CPUs
]
