"""What attention is tried on: shapes, options, and tensors drawn for them."""

from dataclasses import dataclass

import torch

import kernels


@dataclass(frozen=True)
class Case:
    """One call of `kernels.attention`; defaults are a layer of a large model."""

    queries: int
    keys: int = 0  # 0: as many as queries
    batch: int = 1
    heads: int = 32
    groups: int = 8
    head_size: int = 128
    dtype: torch.dtype = torch.bfloat16
    causal: bool = True
    documents: int = 0  # tokens of one on average, lengths drawn from 1 to twice that; 0: none
    cumulative: bool = False  # documents told by cumulative lengths, across the ends of rows
    window: int = 0
    scale: float | None = None
    softcap: float = 0.0
    sink: bool = False

    @property
    def key_time(self) -> int:
        return self.keys or self.queries


@dataclass
class Tensors:
    """Of a case: leaves of autograd, gradients of output and log-sum-exp, and the options that are the same for all."""

    leaves: list[torch.Tensor]  # q, k, v, and the sink where there is one
    upstream: torch.Tensor
    lse_upstream: torch.Tensor
    options: dict

    @property
    def sink(self) -> torch.Tensor | None:
        return self.leaves[3] if len(self.leaves) == 4 else None


def draw(case: Case, device: torch.device, seed: int = 0) -> Tensors:
    """Normal random numbers; queries are twice as large, so that some rows attend to a few keys alone."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int, dtype: torch.dtype = case.dtype) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(dtype)

    q = 2 * normal(case.batch, case.queries, case.heads, case.head_size)
    k, v = (normal(case.batch, case.key_time, case.groups, case.head_size) for _ in range(2))
    upstream = normal(*q.shape)
    lse_upstream = normal(case.batch, case.heads, case.queries, dtype=torch.float32)
    leaves = [q, k, v, *([normal(case.heads, dtype=torch.float32)] if case.sink else [])]
    options = {
        "causal": case.causal,
        "window": case.window,
        "scale": case.scale,
        "softcap": case.softcap,
        "document": _documents(case, device, seed),
    }
    return Tensors([leaf.requires_grad_() for leaf in leaves], upstream, lse_upstream, options)


def _documents(case: Case, device: torch.device, seed: int) -> torch.Tensor | None:
    if not case.documents:
        return None
    generator = torch.Generator().manual_seed(seed)
    tokens = case.batch * case.queries
    lengths = torch.randint(1, 2 * case.documents + 1, (tokens,), generator=generator)  # far more than are needed
    ends = lengths.cumsum(0)
    cumulative = torch.cat([torch.zeros(1, dtype=torch.int64), ends[ends < tokens], torch.tensor([tokens])])
    if case.cumulative:
        return kernels.documents_of(cumulative.int().to(device), case.batch, case.queries)
    number = torch.bucketize(torch.arange(tokens), cumulative[1:], right=True)
    return number.view(case.batch, case.queries).int().to(device)


HALF, SINGLE = (torch.bfloat16, torch.float16), (torch.float32,)
CASES = {
    f"head size {size}, {str(dtype).removeprefix('torch.')}": Case(
        2048, head_size=size, dtype=dtype, heads=32 if size <= 128 else 16, groups=8 if size <= 128 else 4
    )
    for size in (32, 64, 80, 96, 128, 192, 256)
    for dtype in HALF + SINGLE
}
CASES |= {
    "8k": Case(8192),
    "8k, head size 64, fp16": Case(8192, head_size=64, dtype=torch.float16),
    "8k, bidirectional": Case(8192, causal=False, heads=8, groups=2),
    "8k, documents": Case(8192, documents=512),
    "8k, documents, head size 64": Case(8192, documents=512, head_size=64),
    "bidirectional, head size 80": Case(2048, causal=False, head_size=80),
    "documents of a few tokens": Case(2048, documents=4, batch=2),
    "documents both ways": Case(4096, documents=300, causal=False, batch=2),
    "documents by cumulative lengths": Case(2048, documents=700, cumulative=True, batch=3),
    "documents, fp32": Case(1024, documents=100, head_size=64, dtype=torch.float32),
    "documents and window": Case(4096, documents=900, window=300, head_size=64),
    "window": Case(8192, window=1024),
    "window of one": Case(1024, window=1),
    "window beyond the row": Case(1024, window=5000),
    "soft cap": Case(2048, softcap=30.0),
    "soft cap, fp32": Case(1024, softcap=5.0, head_size=64, dtype=torch.float32),
    "sink": Case(2048, sink=True),
    "as gpt-oss": Case(4096, sink=True, window=128, head_size=64, heads=64, groups=8),
    "as Gemma 2": Case(4096, softcap=50.0, window=2048, head_size=256, heads=8, groups=4, documents=1500),
    "everything": Case(3001, documents=400, window=333, softcap=20.0, sink=True, head_size=96, batch=2, scale=0.2),
    "every head its own keys": Case(2048, heads=16, groups=16),
    "one key-value head": Case(2048, heads=32, groups=1),
    "seven heads to one": Case(1024, heads=28, groups=4),
    "one token": Case(1, batch=3),
    "17 tokens": Case(17, batch=3),
    "1000 tokens": Case(1000, batch=3, head_size=64),
    "4097 tokens": Case(4097),
    "4095 tokens, bidirectional": Case(4095, causal=False, head_size=64, heads=8, groups=2),
    "decoding": Case(1, keys=4099, batch=8),
    "last 100 positions": Case(100, keys=4099, batch=2),
    "last positions, window": Case(1024, keys=4099, window=700),
    "last positions, bidirectional": Case(1000, keys=3000, causal=False),
    "scale": Case(2048, scale=0.02, head_size=64),
    "queries before every key": Case(3000, keys=1500, head_size=64),
    "queries before every key, sink": Case(3000, keys=1500, head_size=64, sink=True),
}
