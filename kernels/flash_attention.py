"""FlashAttention in Triton: exact attention whose scores never leave the chip.

Attention is softmax(Q K^T) V. Written out, its scores are [queries, keys] numbers a head, read and written
several times; at 8k tokens the memory traffic costs more than the arithmetic. The way out has three parts:

1. *Tiles.* A program takes a tile of queries and walks over the keys block by block; a block's scores live in
   registers and are gone with the next block (Dao et al. 2022, arXiv:2205.14135).
2. *Online softmax.* The softmax of a row needs its maximum and its sum, which are known only at the end. So both
   are kept as running values, and what was added up under an old maximum is rescaled by exp(old - new) when a
   larger one turns up (Milakov & Gimelshein 2018, arXiv:1805.02867). `_forward_blocks` is this idea.
3. *Recomputation.* Of a row only the logarithm of the sum of exponentials is kept. The backward pass computes the
   scores again and has the probabilities at once: exp(score - log-sum-exp). With D = sum(o x do), a row's scalar,
   the gradient of the scores is p x (dp - D) (Dao 2023, arXiv:2307.08691, section 3). `backward_keys` holds a
   tile of keys and walks over queries, `backward_queries` the other way round. So each number is summed by one
   program in one order: no atomics, and the same bits every time.

On Hopper and Blackwell tiles are fetched by the tensor memory accelerator through descriptors, which hold shape and
strides and fill what lies outside with zeros (Shah et al. 2024, arXiv:2407.08608, section 3, for why); elsewhere,
and for strides that a descriptor cannot hold, through pointers.

What a query sees is one interval of keys: from its document's start or the window's, up to its document's end or
itself. Neither end ever decreases from one query to the next, so the bounds of a tile are those of its first and its
last row. Blocks outside are never visited (the cost follows the documents, not the row), blocks that all rows see
whole need no mask, and only the rest is masked. The masked blocks come first: what only they need is then forgotten,
and its registers are free in the other loop (`python -m kernels.ahead_of_time` counts them).

Shapes: M queries of a tile, N keys of a block, D head size padded to a power of two. `head_size` is the real one.
Scores are in units of log2, for exp2 is what the hardware has.
"""

import triton
import triton.language as tl

from kernels.attention_tiles import (
    LOG2_E,
    block_of_step,
    block_range,
    key_blocks_of_tile,
    keys_of_queries,
    load_tile,
    queries_of_keys,
    query_blocks_of_tile,
    query_tile,
    store_tile,
    tanh,
)

LOWEST = tl.constexpr(-1.0e30)  # the maximum of nothing: finite, so that no infinity is taken from another


# ---------------------------------------------------------------------------------------- forward


@triton.jit
def forward(
    q, k, v, output, log_sum_exp, sink, mask, q_strides, k_strides, v_strides, output_strides,
    heads, scale, softcap, tiles,
    GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    CAUSAL: tl.constexpr, DOCUMENTS: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, SINK: tl.constexpr,
    DESCRIPTORS: tl.constexpr, PERSISTENT: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp, a tile of queries at a time; a persistent program takes every so-manieth tile."""
    if PERSISTENT:
        for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0)):
            _forward_tile(
                tile, q, k, v, output, log_sum_exp, sink, mask, q_strides, k_strides, v_strides, output_strides,
                heads, scale, softcap, GROUP, HEAD_SIZE, D, M, N, CAUSAL, DOCUMENTS, WINDOW, SOFTCAP, SINK, DESCRIPTORS,
            )  # fmt: skip
    else:
        _forward_tile(
            tl.program_id(0), q, k, v, output, log_sum_exp, sink, mask, q_strides, k_strides, v_strides, output_strides,
            heads, scale, softcap, GROUP, HEAD_SIZE, D, M, N, CAUSAL, DOCUMENTS, WINDOW, SOFTCAP, SINK, DESCRIPTORS,
        )  # fmt: skip


@triton.jit
def _forward_tile(
    tile, q, k, v, output, log_sum_exp, sink, mask, q_strides, k_strides, v_strides, output_strides,
    heads, scale, softcap,
    GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    CAUSAL: tl.constexpr, DOCUMENTS: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, SINK: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    _, _, query_time, key_time, _ = mask
    batch, head, m0 = query_tile(tile, heads, query_time, M)
    q_MD = load_tile(q, q_strides, batch, head, m0, query_time, M, D, HEAD_SIZE, DESCRIPTORS)
    rows_M = m0 + tl.arange(0, M)
    low_M, high_M = keys_of_queries(mask, batch, rows_M, CAUSAL, DOCUMENTS, WINDOW)
    start, unmasked, behind, total = key_blocks_of_tile(mask, batch, m0, M, N, CAUSAL, DOCUMENTS, WINDOW)

    factor = scale * LOG2_E
    if SOFTCAP:
        factor = softcap * LOG2_E
    squeeze = scale / softcap if SOFTCAP else scale

    maximum_M = tl.full([M], LOWEST, tl.float32)
    sum_M = tl.zeros([M], tl.float32)
    acc_MD = tl.zeros([M, D], tl.float32)
    kv_head = head // GROUP
    acc_MD, sum_M, maximum_M = _forward_blocks(
        acc_MD, sum_M, maximum_M, q_MD, k, v, k_strides, v_strides, batch, kv_head, key_time, low_M, high_M,
        start, unmasked, behind, total, factor, squeeze, N, D, HEAD_SIZE, SOFTCAP, DESCRIPTORS, True,
    )  # fmt: skip
    acc_MD, sum_M, maximum_M = _forward_blocks(
        acc_MD, sum_M, maximum_M, q_MD, k, v, k_strides, v_strides, batch, kv_head, key_time, low_M, high_M,
        start, unmasked, behind, total, factor, squeeze, N, D, HEAD_SIZE, SOFTCAP, DESCRIPTORS, False,
    )  # fmt: skip

    if SINK:  # a key without a value: it takes its share of the softmax and gives nothing
        sink_score = tl.load(sink + head) * LOG2_E
        new_maximum_M = tl.maximum(maximum_M, sink_score)
        rescale_M = tl.exp2(maximum_M - new_maximum_M)
        sum_M = sum_M * rescale_M + tl.exp2(sink_score - new_maximum_M)
        acc_MD *= rescale_M[:, None]
        maximum_M = new_maximum_M
    sees_M = sum_M > 0.0
    acc_MD /= tl.where(sees_M, sum_M, 1.0)[:, None]
    lse_M = tl.where(sees_M, (maximum_M + tl.log2(sum_M)) / LOG2_E, float("-inf"))
    tl.store(log_sum_exp + (batch * heads + head) * query_time + rows_M, lse_M, mask=rows_M < query_time)
    store_tile(output, output_strides, batch, head, m0, query_time, acc_MD, M, D, HEAD_SIZE)


@triton.jit
def _forward_blocks(
    acc_MD, sum_M, maximum_M, q_MD, k, v, k_strides, v_strides, batch, kv_head, key_time, low_M, high_M,
    start, unmasked, behind, total, factor, squeeze,
    N: tl.constexpr, D: tl.constexpr, HEAD_SIZE: tl.constexpr, SOFTCAP: tl.constexpr, DESCRIPTORS: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """The online softmax over the blocks that need no mask, or over those before and behind them that do."""
    first, last = block_range(unmasked, behind, total, MASKED)
    for step in tl.range(first, last):
        n0 = start + block_of_step(step, unmasked, behind, MASKED) * N
        k_ND = load_tile(k, k_strides, batch, kv_head, n0, key_time, N, D, HEAD_SIZE, DESCRIPTORS)
        scores_MN = tl.dot(q_MD, k_ND.T, input_precision="ieee")
        if SOFTCAP:
            scores_MN = tanh(scores_MN * squeeze)
        if MASKED:
            keys_N = n0 + tl.arange(0, N)
            seen_MN = (keys_N[None, :] >= low_M[:, None]) & (keys_N[None, :] < high_M[:, None])
            scores_MN = tl.where(seen_MN, scores_MN, float("-inf"))
        new_maximum_M = tl.maximum(maximum_M, tl.max(scores_MN, 1) * factor)
        p_MN = tl.exp2(scores_MN * factor - new_maximum_M[:, None])
        rescale_M = tl.exp2(maximum_M - new_maximum_M)
        sum_M = sum_M * rescale_M + tl.sum(p_MN, 1)
        acc_MD *= rescale_M[:, None]
        v_ND = load_tile(v, v_strides, batch, kv_head, n0, key_time, N, D, HEAD_SIZE, DESCRIPTORS)
        acc_MD = tl.dot(p_MN.to(v_ND.dtype), v_ND, acc_MD, input_precision="ieee")
        maximum_M = new_maximum_M
    return acc_MD, sum_M, maximum_M


# --------------------------------------------------------------------------------------- backward


@triton.jit
def backward_delta(
    output, gradient, lse_gradient, delta, output_strides, gradient_strides, lse_gradient_strides, heads, query_time,
    HEAD_SIZE: tl.constexpr, D: tl.constexpr, M: tl.constexpr, LSE_GRADIENT: tl.constexpr,
):  # fmt: skip
    """Row sums of output x gradient, less the gradient of log-sum-exp: what each row's score gradients share.

    The gradient of a score is p x (dp - sum(o x do)) through the output and p x dlse through log-sum-exp.
    """
    batch, head, m0 = query_tile(tl.program_id(0), heads, query_time, M)
    rows_M = m0 + tl.arange(0, M)
    output_MD = load_tile(output, output_strides, batch, head, m0, query_time, M, D, HEAD_SIZE, False).to(tl.float32)
    gradient_MD = load_tile(gradient, gradient_strides, batch, head, m0, query_time, M, D, HEAD_SIZE, False)
    delta_M = tl.sum(output_MD * gradient_MD.to(tl.float32), 1)
    if LSE_GRADIENT:
        offsets_M = rows_M * lse_gradient_strides[2]
        base = lse_gradient + batch * lse_gradient_strides[0] + head * lse_gradient_strides[1]
        delta_M -= tl.load(base + offsets_M, mask=rows_M < query_time, other=0.0)
    tl.store(delta + (batch * heads + head) * query_time + rows_M, delta_M, mask=rows_M < query_time)


@triton.jit
def backward_keys(
    q, k, v, gradient, k_gradient, v_gradient, log_sum_exp, delta, mask,
    q_strides, k_strides, v_strides, gradient_strides, kv_gradient_strides, heads, scale, softcap,
    GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    CAUSAL: tl.constexpr, DOCUMENTS: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of keys and values, from all queries of all heads that share them."""
    _, _, query_time, key_time, _ = mask
    tiles = tl.cdiv(key_time, N)
    n0 = tl.program_id(0) % tiles * N  # under a causal mask the first keys meet the most queries: heavy tiles first
    kv_heads = heads // GROUP
    kv_head = tl.program_id(0) // tiles % kv_heads
    batch = (tl.program_id(0) // tiles // kv_heads).to(tl.int64)
    k_ND = load_tile(k, k_strides, batch, kv_head, n0, key_time, N, D, HEAD_SIZE, DESCRIPTORS)
    v_ND = load_tile(v, v_strides, batch, kv_head, n0, key_time, N, D, HEAD_SIZE, DESCRIPTORS)
    low_N, high_N = queries_of_keys(mask, batch, n0 + tl.arange(0, N), CAUSAL, DOCUMENTS, WINDOW)
    start, unmasked, behind, total = query_blocks_of_tile(mask, batch, n0, N, M, CAUSAL, DOCUMENTS, WINDOW)

    k_gradient_ND = tl.zeros([N, D], tl.float32)
    v_gradient_ND = tl.zeros([N, D], tl.float32)
    k_gradient_ND, v_gradient_ND = _backward_query_blocks(
        k_gradient_ND, v_gradient_ND, k_ND, v_ND, q, gradient, log_sum_exp, delta, q_strides, gradient_strides,
        batch, kv_head, heads, query_time, low_N, high_N, start, unmasked, behind, total, scale, softcap,
        GROUP, M, D, HEAD_SIZE, SOFTCAP, DESCRIPTORS, True,
    )  # fmt: skip
    k_gradient_ND, v_gradient_ND = _backward_query_blocks(
        k_gradient_ND, v_gradient_ND, k_ND, v_ND, q, gradient, log_sum_exp, delta, q_strides, gradient_strides,
        batch, kv_head, heads, query_time, low_N, high_N, start, unmasked, behind, total, scale, softcap,
        GROUP, M, D, HEAD_SIZE, SOFTCAP, DESCRIPTORS, False,
    )  # fmt: skip
    store_tile(k_gradient, kv_gradient_strides, batch, kv_head, n0, key_time, k_gradient_ND * scale, N, D, HEAD_SIZE)
    store_tile(v_gradient, kv_gradient_strides, batch, kv_head, n0, key_time, v_gradient_ND, N, D, HEAD_SIZE)


@triton.jit
def _backward_query_blocks(
    k_gradient_ND, v_gradient_ND, k_ND, v_ND, q, gradient, log_sum_exp, delta, q_strides, gradient_strides,
    batch, kv_head, heads, query_time, low_N, high_N, start, unmasked, behind, total, scale, softcap,
    GROUP: tl.constexpr, M: tl.constexpr, D: tl.constexpr, HEAD_SIZE: tl.constexpr, SOFTCAP: tl.constexpr,
    DESCRIPTORS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One loop over heads and blocks together: with one loop in the other the compiler runs out of registers."""
    first, last = block_range(unmasked, behind, total, MASKED)
    blocks = last - first
    row_scalars = (batch * heads + kv_head * GROUP) * query_time
    log_sum_exp += row_scalars
    delta += row_scalars
    for turn in tl.range(0, blocks * GROUP):
        head_of_group = turn // blocks
        head = kv_head * GROUP + head_of_group
        m0 = start + block_of_step(first + turn % blocks, unmasked, behind, MASKED) * M
        rows_M = m0 + tl.arange(0, M)
        of_rows_M = head_of_group * query_time + rows_M
        q_MD = load_tile(q, q_strides, batch, head, m0, query_time, M, D, HEAD_SIZE, DESCRIPTORS)
        lse_M = tl.load(log_sum_exp + of_rows_M, mask=rows_M < query_time, other=0.0) * LOG2_E
        scores_NM = tl.dot(k_ND, q_MD.T, input_precision="ieee")
        if SOFTCAP:
            capped_NM = tanh(scores_NM * (scale / softcap))
            p_NM = tl.exp2(capped_NM * (softcap * LOG2_E) - lse_M[None, :])
        else:
            p_NM = tl.exp2(scores_NM * (scale * LOG2_E) - lse_M[None, :])
        if MASKED:
            seen_NM = (rows_M[None, :] >= low_N[:, None]) & (rows_M[None, :] < high_N[:, None])
            p_NM = tl.where(seen_NM, p_NM, 0.0)
        weight_NM = p_NM
        if SOFTCAP:
            weight_NM = p_NM * (1.0 - capped_NM * capped_NM)
        gradient_MD = load_tile(gradient, gradient_strides, batch, head, m0, query_time, M, D, HEAD_SIZE, DESCRIPTORS)
        v_gradient_ND = tl.dot(p_NM.to(gradient_MD.dtype), gradient_MD, v_gradient_ND, input_precision="ieee")
        p_gradient_NM = tl.dot(v_ND, gradient_MD.T, input_precision="ieee")
        delta_M = tl.load(delta + of_rows_M, mask=rows_M < query_time, other=0.0)
        score_gradient_NM = weight_NM * (p_gradient_NM - delta_M[None, :])
        k_gradient_ND = tl.dot(score_gradient_NM.to(q_MD.dtype), q_MD, k_gradient_ND, input_precision="ieee")
    return k_gradient_ND, v_gradient_ND


@triton.jit
def backward_queries(
    q, k, v, gradient, q_gradient, log_sum_exp, delta, mask,
    q_strides, k_strides, v_strides, gradient_strides, q_gradient_strides, heads, scale, softcap,
    GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    CAUSAL: tl.constexpr, DOCUMENTS: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Gradient of a tile of queries, from all keys that they see."""
    _, _, query_time, key_time, _ = mask
    batch, head, m0 = query_tile(tl.program_id(0), heads, query_time, M)
    rows_M = m0 + tl.arange(0, M)
    low_M, high_M = keys_of_queries(mask, batch, rows_M, CAUSAL, DOCUMENTS, WINDOW)
    start, unmasked, behind, total = key_blocks_of_tile(mask, batch, m0, M, N, CAUSAL, DOCUMENTS, WINDOW)
    q_MD = load_tile(q, q_strides, batch, head, m0, query_time, M, D, HEAD_SIZE, DESCRIPTORS)
    gradient_MD = load_tile(gradient, gradient_strides, batch, head, m0, query_time, M, D, HEAD_SIZE, DESCRIPTORS)
    row_scalars = (batch * heads + head) * query_time
    lse_M = tl.load(log_sum_exp + row_scalars + rows_M, mask=rows_M < query_time, other=0.0) * LOG2_E
    delta_M = tl.load(delta + row_scalars + rows_M, mask=rows_M < query_time, other=0.0)

    q_gradient_MD = tl.zeros([M, D], tl.float32)
    q_gradient_MD = _backward_key_blocks(
        q_gradient_MD, q_MD, gradient_MD, lse_M, delta_M, k, v, k_strides, v_strides, batch, head // GROUP, key_time,
        low_M, high_M, start, unmasked, behind, total, scale, softcap, N, D, HEAD_SIZE, SOFTCAP, DESCRIPTORS, True,
    )  # fmt: skip
    q_gradient_MD = _backward_key_blocks(
        q_gradient_MD, q_MD, gradient_MD, lse_M, delta_M, k, v, k_strides, v_strides, batch, head // GROUP, key_time,
        low_M, high_M, start, unmasked, behind, total, scale, softcap, N, D, HEAD_SIZE, SOFTCAP, DESCRIPTORS, False,
    )  # fmt: skip
    store_tile(q_gradient, q_gradient_strides, batch, head, m0, query_time, q_gradient_MD * scale, M, D, HEAD_SIZE)


@triton.jit
def _backward_key_blocks(
    q_gradient_MD, q_MD, gradient_MD, lse_M, delta_M, k, v, k_strides, v_strides, batch, kv_head, key_time,
    low_M, high_M, start, unmasked, behind, total, scale, softcap,
    N: tl.constexpr, D: tl.constexpr, HEAD_SIZE: tl.constexpr, SOFTCAP: tl.constexpr, DESCRIPTORS: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    first, last = block_range(unmasked, behind, total, MASKED)
    for step in tl.range(first, last):
        n0 = start + block_of_step(step, unmasked, behind, MASKED) * N
        k_ND = load_tile(k, k_strides, batch, kv_head, n0, key_time, N, D, HEAD_SIZE, DESCRIPTORS)
        v_ND = load_tile(v, v_strides, batch, kv_head, n0, key_time, N, D, HEAD_SIZE, DESCRIPTORS)
        scores_MN = tl.dot(q_MD, k_ND.T, input_precision="ieee")
        if SOFTCAP:
            capped_MN = tanh(scores_MN * (scale / softcap))
            p_MN = tl.exp2(capped_MN * (softcap * LOG2_E) - lse_M[:, None])
        else:
            p_MN = tl.exp2(scores_MN * (scale * LOG2_E) - lse_M[:, None])
        if MASKED:
            keys_N = n0 + tl.arange(0, N)
            seen_MN = (keys_N[None, :] >= low_M[:, None]) & (keys_N[None, :] < high_M[:, None])
            p_MN = tl.where(seen_MN, p_MN, 0.0)
        weight_MN = p_MN
        if SOFTCAP:
            weight_MN = p_MN * (1.0 - capped_MN * capped_MN)
        p_gradient_MN = tl.dot(gradient_MD, v_ND.T, input_precision="ieee")
        score_gradient_MN = weight_MN * (p_gradient_MN - delta_M[:, None])
        q_gradient_MD = tl.dot(score_gradient_MN.to(k_ND.dtype), k_ND, q_gradient_MD, input_precision="ieee")
    return q_gradient_MD
