"""What the kernels of attention share: which tile is whose, what it sees, and how it is fetched and stored.

A query sees one interval of keys, a key is seen by one interval of queries, and neither end of either ever decreases
along a row; so the bounds of a tile are those of its first and its last row.

`mask` is the tuple (first, end, query time, key time, window); first and end, int32 [batch, time] or None, are where
the document of each token begins and ends. Queries stand at the last positions: i at `key time - query time + i`.

Shapes: M queries of a tile, N keys of a block, D head size padded to a power of two.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)

# -------------------------------------------------------------------------------- tiles in memory


@triton.jit
def query_tile(tile, heads, query_time, M: tl.constexpr):
    """Batch row, head and first query of a tile: the last queries first, for a causal mask gives them the most keys."""
    tiles = tl.cdiv(query_time, M)
    head = tile // tiles % heads
    batch = (tile // tiles // heads).to(tl.int64)
    return batch, head, (tiles - 1 - tile % tiles) * M


@triton.jit
def load_tile(
    source, strides, batch, head, first, time,
    ROWS: tl.constexpr, D: tl.constexpr, HEAD_SIZE: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """[ROWS, D] of a [batch, time, heads, head size] tensor, or of its descriptor; zeros beyond its ends."""
    if DESCRIPTORS:
        tile_RD = source.load([batch.to(tl.int32), head, first, 0]).reshape(ROWS, D)
    else:
        pointers, inside = _tile_pointers(source, strides, batch, head, first, time, ROWS, D, HEAD_SIZE)
        tile_RD = tl.load(pointers, mask=inside, other=0.0)
    return tile_RD


@triton.jit
def store_tile(
    target, strides, batch, head, first, time, tile_RD, ROWS: tl.constexpr, D: tl.constexpr, HEAD_SIZE: tl.constexpr
):
    """The part of [ROWS, D] that lies in the tensor, in its dtype."""
    pointers, inside = _tile_pointers(target, strides, batch, head, first, time, ROWS, D, HEAD_SIZE)
    tl.store(pointers, tile_RD.to(target.dtype.element_ty), mask=inside)


@triton.jit
def _tile_pointers(
    base, strides, batch, head, first, time, ROWS: tl.constexpr, D: tl.constexpr, HEAD_SIZE: tl.constexpr
):
    rows_R = tl.arange(0, ROWS)
    columns_D = tl.arange(0, D)
    # A tensor may hold more than 2^31 numbers, a tile never does.
    corner = base + batch * strides[0] + first.to(tl.int64) * strides[1] + head.to(tl.int64) * strides[2]
    pointers = corner + rows_R[:, None] * strides[1] + columns_D[None, :] * strides[3]
    inside = (first + rows_R < time)[:, None]
    if HEAD_SIZE != D:
        inside = inside & (columns_D < HEAD_SIZE)[None, :]
    return pointers, inside


# ---------------------------------------------------------------------------------- what is seen


@triton.jit
def keys_of_queries(mask, batch, queries, CAUSAL: tl.constexpr, DOCUMENTS: tl.constexpr, WINDOW: tl.constexpr):
    """The interval [low, high) of keys that each query sees; queries beyond the end count as the last one."""
    first, end, query_time, key_time, window = mask
    position = tl.minimum(queries, query_time - 1) + (key_time - query_time)
    low = position * 0
    high = low + key_time
    if DOCUMENTS:
        low = tl.load(first + batch * key_time + position)
        high = tl.load(end + batch * key_time + position)
    if WINDOW:
        low = tl.maximum(low, position - window + 1)
    if CAUSAL:
        high = tl.minimum(high, position + 1)
    return low, high


@triton.jit
def queries_of_keys(mask, batch, keys, CAUSAL: tl.constexpr, DOCUMENTS: tl.constexpr, WINDOW: tl.constexpr):
    """The interval [low, high) of queries that see each key; keys beyond the end count as the last one."""
    first, end, query_time, key_time, window = mask
    key = tl.minimum(keys, key_time - 1)
    ahead = key_time - query_time  # the position of the first query
    low = key * 0 + ahead
    high = key * 0 + key_time
    if DOCUMENTS:
        low = tl.load(first + batch * key_time + key)
        high = tl.load(end + batch * key_time + key)
    if CAUSAL:
        low = tl.maximum(low, key)
    if WINDOW:
        high = tl.minimum(high, key + window)
    return tl.maximum(low - ahead, 0), tl.maximum(high - ahead, 0)


@triton.jit
def key_blocks_of_tile(
    mask, batch, m0, M: tl.constexpr, N: tl.constexpr,
    CAUSAL: tl.constexpr, DOCUMENTS: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Where the blocks of keys of a tile of queries start, and the counts that `_blocks` gives."""
    last = tl.minimum(m0 + M, mask[2]) - 1
    start, full_end = keys_of_queries(mask, batch, m0, CAUSAL, DOCUMENTS, WINDOW)
    full_start, stop = keys_of_queries(mask, batch, last, CAUSAL, DOCUMENTS, WINDOW)
    return _blocks(start, full_start, full_end, stop, N)


@triton.jit
def query_blocks_of_tile(
    mask, batch, n0, N: tl.constexpr, M: tl.constexpr,
    CAUSAL: tl.constexpr, DOCUMENTS: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Where the blocks of queries of a tile of keys start, and the counts that `_blocks` gives."""
    last = tl.minimum(n0 + N, mask[3]) - 1
    start, full_end = queries_of_keys(mask, batch, n0, CAUSAL, DOCUMENTS, WINDOW)
    full_start, stop = queries_of_keys(mask, batch, last, CAUSAL, DOCUMENTS, WINDOW)
    return _blocks(start, full_start, full_end, stop, N=M)


@triton.jit
def _blocks(start, full_start, full_end, stop, N: tl.constexpr):
    """Blocks of N from `start` to `stop`: start, how many before the unmasked ones, the first behind them, and all.

    Unmasked are those that lie wholly in [full start, full end), which every row of the tile sees.
    """
    start = tl.maximum(start, 0)
    total = tl.cdiv(tl.maximum(stop - start, 0), N)
    unmasked = tl.minimum(tl.cdiv(tl.maximum(full_start - start, 0), N), total)
    behind = tl.maximum(tl.minimum(tl.maximum(full_end - start, 0) // N, total), unmasked)
    return start, unmasked, behind, total


@triton.jit
def block_range(unmasked, behind, total, MASKED: tl.constexpr):
    """Steps over the unmasked blocks, or over all the others: one loop for those before and those behind."""
    if MASKED:
        first, last = unmasked * 0, total - (behind - unmasked)
    else:
        first, last = unmasked, behind
    return first, last


@triton.jit
def block_of_step(step, unmasked, behind, MASKED: tl.constexpr):
    """The block that a step of `block_range` takes."""
    block = step
    if MASKED:
        block += tl.where(step < unmasked, 0, behind - unmasked)
    return block


# ------------------------------------------------------------------------------------- arithmetic


@triton.jit
def tanh(x):
    """Hyperbolic tangent within 1e-7; exp2 saturates at both ends, and so does this."""
    return 1.0 - 2.0 / (1.0 + tl.exp2(x * (2.0 * LOG2_E)))
