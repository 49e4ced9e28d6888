"""Loam's kernels: one call, several implementations of the same mathematics.

`attention` checks its input once and hands it to the implementation in force; `use` chooses another.
`kernels.reference` says what every implementation has to compute.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from torch import Tensor

from kernels import reference, sdpa

__all__ = ["attention", "use"]

_implementations: dict[str, Callable[..., Tensor]] = {"reference": reference.attention, "sdpa": sdpa.attention}
_in_force = "sdpa"


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    document: Tensor | None = None,
    window: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention; returns [batch, query time, heads, head size] in the dtype of `q`.

    q: [batch, query time, heads, head size]; k, v: [batch, key time, key-value heads, head size], where the
    key-value heads divide the heads (grouped-query attention, arXiv:2305.13245). Query and key time may
    differ: the queries then stand at the last positions, as they do when decoding with a cache.

    causal: a query sees no key after its own position.
    document: int32 [batch, time], equal numbers in contiguous runs; attention never crosses from one to
        another. Queries and keys must then be equally many.
    window: keys that a query sees, itself included; 0: all. Causal attention only.
    scale: factor on the scores; None: 1 / sqrt(head size).
    softcap: scores become softcap x tanh(score / softcap) (arXiv:2408.00118); 0: as they are.

    A query that sees no key gives zeros. Raises ValueError for shapes or options that do not go together.
    """
    _check(q, k, v, causal, document, window, softcap)
    if scale is None:
        scale = q.shape[-1] ** -0.5
    implementation = _implementations[_in_force]
    return implementation(q, k, v, causal=causal, document=document, window=window, scale=scale, softcap=softcap)


def use(name: str) -> AbstractContextManager[object]:
    """Put the named implementation in force: from now on, or, in a `with` statement, until its end.

    Raises ValueError, naming those that exist, for an unknown one.
    """
    global _in_force
    if name not in _implementations:
        raise ValueError(f"unknown attention implementation {name!r}; choose {' | '.join(_implementations)}")
    restore = ExitStack()
    restore.callback(_put_in_force, _in_force)
    _in_force = name
    return restore


def _put_in_force(name: str) -> None:
    global _in_force
    _in_force = name


def _check(q: Tensor, k: Tensor, v: Tensor, causal: bool, document: Tensor | None, window: int, softcap: float) -> None:
    if q.dim() != 4 or k.dim() != 4:
        raise ValueError(f"q, k and v must be [batch, time, heads, head size]; got {_shapes(q, k, v)}")
    if k.shape != v.shape:
        raise ValueError(f"k and v must have one shape; got {_shapes(q, k, v)}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q and k must agree in batch and head size; got {_shapes(q, k, v)}")
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"{k.shape[2]} key-value heads must divide the {q.shape[2]} heads")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v must have one dtype; got {q.dtype}, {k.dtype}, {v.dtype}")
    if document is not None and (q.shape[1] != k.shape[1] or document.shape != q.shape[:2]):
        raise ValueError(
            f"document {list(document.shape)} must be [batch, time], as many queries as keys; got {_shapes(q, k, v)}"
        )
    if window < 0 or (window and not causal):
        raise ValueError(f"window={window} with causal={causal}; it must be at least 0, and 0 unless causal")
    if softcap < 0:
        raise ValueError(f"softcap={softcap}; it must be at least 0")


def _shapes(q: Tensor, k: Tensor, v: Tensor) -> str:
    return f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
