"""Attention by torch's `scaled_dot_product_attention`: whatever backend torch finds for the machine."""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kernels import reference


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    document: Tensor | None,
    window: int,
    scale: float,
) -> Tensor:
    """`kernels.attention`; a mask is built only where a flag of torch's does not say the same."""
    query_time, key_time = q.shape[1], k.shape[1]
    window = 0 if window >= key_time else window
    if query_time == 1 and window:  # one token decoded: its window is the end of the cache
        k, v, window = k[:, -window:], v[:, -window:], 0

    sees_all = document is None and not window and (not causal or query_time == 1)
    if sees_all and query_time == 1:
        return decoding_attention(q, k, v, None, scale=scale)
    is_triangle = document is None and not window and causal and query_time == key_time
    mask = None
    if not (sees_all or is_triangle):
        mask = reference.visible_keys(
            query_time, key_time, causal=causal, document=document, window=window, device=q.device
        )
    output = scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=is_triangle and not sees_all,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return output.transpose(1, 2)


def decoding_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, scale: float | None = None) -> Tensor:
    """Attention of one query a row to those of its keys that it sees: [batch, 1, heads, head size].

    q: [batch, 1, heads, head size]; k, v: [batch, key time, key-value heads, head size], as in `kernels.attention`.
    visible: bool [batch, key time]; each row sees a key at least. None: it sees all.
    scale: of the scores; None: 1 / sqrt(head size).

    The query heads that share a key-value head stand where the time of the queries would, so no key is copied.
    """
    batch, _, heads, size = q.shape
    queries = q.reshape(batch, k.shape[2], heads // k.shape[2], size)
    output = scaled_dot_product_attention(
        queries,
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=None if visible is None else visible[:, None, None, :],
        scale=scale,
    )
    return output.reshape(batch, 1, heads, size)
