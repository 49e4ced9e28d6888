"""Loam's kernels: one call, several implementations of the same mathematics.

`attention`, `linear_cross_entropy` and `label_log_probabilities` check their input once and hand it to the
implementation in force; `use` chooses another.
`kernels.reference` says what every implementation has to compute.
"""

import importlib.util
import os
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor

from kernels import attention_op, cross_entropy, reference, sdpa
from kernels.documents import Documents, documents, documents_of
from kernels.sdpa import decoding_attention

__all__ = [
    "Documents",
    "attention",
    "decoding_attention",
    "documents",
    "documents_of",
    "label_log_probabilities",
    "linear_cross_entropy",
    "use",
]

IMPLEMENTATIONS = ("auto", "reference", "sdpa", "triton", "hopper")
TRITON_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
TRITON_HEAD_SIZE = 256  # at most
# Triton reads it when a kernel is defined: then kernels run in its interpreter, on tensors of the CPU.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
HAS_TRITON = importlib.util.find_spec("triton") is not None
INSTEAD = "or take kernels.use('sdpa')"
_in_force = "auto"


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    document: Tensor | Documents | None = None,
    window: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    sink: Tensor | None = None,
    return_lse: bool = False,
) -> Any:
    """Scaled dot-product attention; returns a tensor [batch, query time, heads, head size] in the dtype of `q`.

    q: [batch, query time, heads, head size]; k, v: [batch, key time, key-value heads, head size], where the
    key-value heads divide the heads (grouped-query attention, arXiv:2305.13245). Query and key time may
    differ: the queries then stand at the last positions, as they do when decoding with a cache.

    causal: a query sees no key after its own position.
    document: int32 [batch, time], equal numbers in contiguous runs, or what `documents` made of them; attention
        never crosses from one to another. Queries and keys must then be equally many. `documents_of` makes the
        numbers of cumulative lengths.
    window: keys that a query sees, itself included; 0: all. Causal attention only.
    scale: factor on the scores, above 0; None: 1 / sqrt(head size).
    softcap: scores become softcap x tanh(score / softcap) (arXiv:2408.00118); 0: as they are.
    sink: fp32 [heads], a further score of each row whose value is zero (arXiv:2508.10925; "attention sink").
    return_lse: return (output, log-sum-exp), the latter the logarithm of the sum of the exponentials of each row's
        scores, the sink's included: [batch, heads, query time], fp32 (fp64 of fp64), differentiable.

    A query that sees no key gives zeros; its log-sum-exp is -inf, or the sink. Under autocast, q, k and v are cast.
    Raises ValueError for shapes or options that do not go together, and for what the implementation in force does
    not support.
    """
    if _autocasts(q):
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    _check(q, k, v, causal, document, window, softcap, sink)
    if isinstance(document, Tensor):
        document = documents(document)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    chosen = _choose(q)
    if chosen in ("triton", "hopper"):
        output, lse = _triton(q, k, v, causal, document, window, scale, softcap, sink, chosen == "hopper")
        return (output, lse) if return_lse else output
    number = None if document is None else document.first_BT
    if chosen == "sdpa" and not (softcap or return_lse or sink is not None):  # torch's call has no place for these
        return sdpa.attention(q, k, v, causal=causal, document=number, window=window, scale=scale)
    output, lse = reference.attention(
        q, k, v, causal=causal, document=number, window=window, scale=scale, softcap=softcap, sink=sink
    )
    return (output, lse) if return_lse else output


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    chunk_logits: int = 2**26,
) -> tuple[Tensor, Tensor, Tensor]:
    """What to minimise, plain negative log likelihood, and z-loss, of logits that never stand in memory whole.

    x: [tokens, hidden size]; weight: [vocabulary, hidden size]; labels: int64 [tokens], -100 where none counts. The
    logits are x weight^T.

    Returns three fp32 numbers, sums over the labels that count, in nats. The first has gradients: likelihood, smoothed
    by `label_smoothing` (arXiv:1512.00567), plus z-loss, which is `z_loss` times the squared logarithm of the softmax's
    denominator (PaLM, arXiv:2204.02311, section 5). The other two are for the record.

    chunk_logits: logits that may stand in memory at a time (2^26 in fp32: 256 MiB). Where torch computes and there are
        no more of them than that, they are made whole, and all is as torch's own functions have it to the last bit.

    Under autocast x and weight are cast. "sdpa" and "reference" of `use` mean torch here, the second with all logits at
    once. A label that is no entry of the vocabulary gives NaN, or torch's error. Raises ValueError for shapes, dtypes
    or options that do not go together, and for what the implementation in force does not support.
    """
    cross_entropy.check(x, weight, labels, z_loss, label_smoothing, chunk_logits)
    labels = labels.contiguous()
    chosen, options = _choose(x), {"z_loss": z_loss, "label_smoothing": label_smoothing}
    if chosen == "reference" or (chosen == "sdpa" and len(x) * len(weight) <= chunk_logits):
        return reference.linear_cross_entropy(x, weight, labels, **options)
    x, weight, triton = _in_chunks(x, weight, chosen)
    return cross_entropy.linear_cross_entropy(x, weight, labels, **options, chunk_logits=chunk_logits, triton=triton)


def label_log_probabilities(x: Tensor, weight: Tensor, labels: Tensor, *, chunk_logits: int = 2**26) -> Tensor:
    """Log-probability of each label by logits that never stand in memory whole: fp32 [tokens], in nats, with gradients.

    What `linear_cross_entropy` would add up; for losses that are made of it otherwise. 0, without gradient, where the
    label is -100. See there for arguments, dtypes and errors; "reference" of `use` means torch with all logits at once.
    """
    cross_entropy.check(x, weight, labels, 0.0, 0.0, chunk_logits)
    labels = labels.contiguous()
    chosen = _choose(x)
    if chosen == "reference":
        return reference.label_log_probabilities(x, weight, labels)
    x, weight, triton = _in_chunks(x, weight, chosen)
    return cross_entropy.label_log_probabilities(x, weight, labels, chunk_logits=chunk_logits, triton=triton)


def _in_chunks(x: Tensor, weight: Tensor, chosen: str) -> tuple[Tensor, Tensor, bool]:
    """What cross-entropy in chunks takes, and whether it is Triton that computes it."""
    if _autocasts(x):
        x, weight = (tensor.to(torch.get_autocast_dtype(x.device.type)) for tensor in (x, weight))
    if x.dtype != weight.dtype:
        raise ValueError(f"x and weight must have one dtype; got {x.dtype} and {weight.dtype}")
    triton = chosen in ("triton", "hopper")
    if triton:
        _check_triton(x)
    return x, weight, triton


def use(name: str) -> AbstractContextManager[object]:
    """Put the named implementation in force in this process: from now on, or, in a `with` statement, until its end.

    auto: triton for tensors on a GPU, sdpa for others. reference: written out in torch. sdpa: torch's own functions,
    as `scaled_dot_product_attention`, and the reference for what they lack. triton: kernels of our own, on a GPU or in
    Triton's interpreter (TRITON_INTERPRET=1). hopper: the same, but attention's forward pass by a kernel for compute
    capability 9.0, head sizes 64 and 128, bf16 and fp16, which was never run on a GPU. Raises ValueError, naming those
    that exist, for an unknown one.
    """
    global _in_force
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"unknown implementation {name!r}; choose {' | '.join(IMPLEMENTATIONS)}")
    restore = ExitStack()
    restore.callback(_put_in_force, _in_force)
    _in_force = name
    return restore


def _put_in_force(name: str) -> None:
    global _in_force
    _in_force = name


def _choose(q: Tensor) -> str:
    if _in_force == "auto":
        return "triton" if q.is_cuda and HAS_TRITON else "sdpa"
    return _in_force


def _triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    document: Documents | None,
    window: int,
    scale: float,
    softcap: float,
    sink: Tensor | None,
    hopper: bool,
) -> tuple[Tensor, Tensor]:
    _check_triton(q)
    if q.shape[3] > TRITON_HEAD_SIZE:
        raise ValueError(f"the Triton kernels take head sizes up to {TRITON_HEAD_SIZE}, got {q.shape[3]}; {INSTEAD}")
    if not scale > 0:
        raise ValueError(f"scale={scale}; the Triton kernels take one above 0, {INSTEAD}")
    first, end = (None, None) if document is None else (tensor.int().contiguous() for tensor in document)
    sink = None if sink is None else sink.float().contiguous()
    window = 0 if window >= k.shape[1] else window
    return attention_op.attention(q, k, v, first, end, sink, causal, window, scale, softcap, hopper)


def _autocasts(q: Tensor) -> bool:
    # torch 2.11 compiles no call of is_autocast_available, which would be the way to ask
    return q.device.type != "meta" and torch.is_autocast_enabled(q.device.type)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    document: Tensor | Documents | None,
    window: int,
    softcap: float,
    sink: Tensor | None,
) -> None:
    if q.dim() != 4 or k.dim() != 4:
        raise ValueError(f"q, k and v must be [batch, time, heads, head size]; got {_shapes(q, k, v)}")
    if k.shape != v.shape:
        raise ValueError(f"k and v must have one shape; got {_shapes(q, k, v)}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q and k must agree in batch and head size; got {_shapes(q, k, v)}")
    if not k.shape[2] or not q.shape[3] or q.shape[2] % k.shape[2]:
        raise ValueError(f"{k.shape[2]} key-value heads must divide the {q.shape[2]} heads")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v must have one dtype; got {q.dtype}, {k.dtype}, {v.dtype}")
    tensors: tuple[Tensor, ...] = ()
    if document is not None:
        tensors = (document,) if isinstance(document, Tensor) else document
        if q.shape[1] != k.shape[1] or any(tensor.shape != q.shape[:2] for tensor in tensors):
            raise ValueError(
                f"document {', '.join(str(list(tensor.shape)) for tensor in tensors)} must be [batch, time], as many "
                f"queries as keys; got {_shapes(q, k, v)}"
            )
    if window < 0 or (window and not causal):
        raise ValueError(f"window={window} with causal={causal}; it must be at least 0, and 0 unless causal")
    if not softcap >= 0:
        raise ValueError(f"softcap={softcap}; it must be at least 0")
    if sink is not None and sink.shape != q.shape[2:3]:
        raise ValueError(f"sink {list(sink.shape)} must be [heads]; got {_shapes(q, k, v)}")
    documents_and_sink = (*tensors, *(() if sink is None else (sink,)))
    devices = {tensor.device for tensor in (q, k, v, *documents_and_sink)}
    if len(devices) > 1:
        raise ValueError(f"q, k, v, document and sink must be on one device; got {', '.join(map(str, devices))}")


def _check_triton(tensor: Tensor) -> None:
    if not HAS_TRITON:
        raise ValueError(f"Triton is not installed; pip install 'loam[triton]', {INSTEAD}")
    if not tensor.is_cuda and not INTERPRETED:
        raise ValueError(f"the Triton kernels need tensors on a GPU, got {tensor.device}; move them, {INSTEAD}")
    if tensor.dtype not in TRITON_DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in TRITON_DTYPES)
        raise ValueError(f"the Triton kernels take {names}, got {tensor.dtype}; convert, {INSTEAD}")


def _shapes(q: Tensor, k: Tensor, v: Tensor) -> str:
    return f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
