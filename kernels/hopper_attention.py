"""FlashAttention's forward pass for Hopper (sm_90), written in Gluon: the warps of a program do different work.

**Never run on a GPU, and so unmeasured.** What was proved without one: it compiles ahead of time with no spilled
register and the overlaps described below in the machine code, and an emulator runs this very source against float64
under random schedules (tests/kernels/test_hopper_attention.py says what each of the two can see). It is therefore not
the default; `benchmarks/attention.py` compares it.

The mathematics is that of kernels/flash_attention.py, where it is explained: tiles of queries, blocks of keys, online
softmax. What differs is who does what, after FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608, sections 3.1 and
3.2). On Hopper the tensor cores take their operands from shared memory, work while the warps go on, and are so fast
that a program which multiplies and then exponentiates leaves them idle about half of the time. So:

1. *A producer warp* does nothing but tell the tensor memory accelerator which tiles to fetch. It runs ahead, into
   rings of STAGES tiles of keys and of values, and has given its registers to the others.
2. *Two consumers*, a warp group (four warps) with 64 queries each, share those keys and values. They take turns in
   handing matrix products to the tensor cores, so that one's softmax runs while the other's products do.
3. *Within a consumer* the scores of the next block are asked for before the values of this one are multiplied, and
   the softmax of the next block runs while that second product is under way.
4. *A program stays* and takes tile after tile: while the consumers finish one, the producer fetches the next.

Synchronisation is by mbarriers in shared memory: one that has seen its number of arrivals (and of bytes) completes a
phase, and `wait` returns once the phase of the parity it names is over. Each tile has a barrier `full` (the accelerator
arrives with the last byte) and one `empty` (each consumer arrives when it has read). Use number i of a ring is of
tile i % STAGES and of parity i // STAGES % 2; an empty barrier is awaited with the parity before, which a new one
lets pass.

Shapes: M queries of a consumer, N keys of a block, D head size, B batch, Q query time, K key time, H heads, G key-value
heads. Scores are in units of log2, for exp2 is what the hardware has.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

fetch = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # renamed in Triton 3.9
put = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global

# Of a thread. At launch the three warp groups of a program (three warps of the producer's idle) fill the 65,536 of a
# multiprocessor; then the producer keeps the least that there is, and the consumers share the rest.
REGISTERS_AT_LAUNCH = 168
CONSUMER_REGISTERS, PRODUCER_REGISTERS = gl.constexpr(240), gl.constexpr(24)
CONSUMERS = gl.constexpr(2)
M = gl.constexpr(64)  # rows of a warp group's matrix instruction
LOG2_E = gl.constexpr(1.4426950408889634)
LOWEST = gl.constexpr(-1.0e30)  # the maximum of nothing: finite, so that no infinity is taken from another


# ------------------------------------------------------------------------------------- the program


@gluon.jit
def forward_kernel(
    q, k, v, output, log_sum_exp, sink, mask, scores, schedule,
    STAGES: gl.constexpr, GROUP: gl.constexpr, CAUSAL: gl.constexpr, DOCUMENTS: gl.constexpr, WINDOW: gl.constexpr,
    SOFTCAP: gl.constexpr, SINK: gl.constexpr,
):  # fmt: skip
    """Attention of every so-manieth tile of queries.

    q, k, v, output: descriptors, in tiles [1, 1, rows, D]; log_sum_exp [B, H, Q]; sink [H] or None.
    mask: first and end of the documents or None, step from one batch row to the next in them, Q, K, window.
    scores: what they are multiplied with, and inside the soft cap's tanh.
    schedule: H, heads of a party (see `_query_tile`), tiles of queries of a head, and of all.
    """
    tiles = _tiles(q, CONSUMERS), _tiles(k, STAGES), _tiles(v, STAGES), _tiles(output, CONSUMERS)
    q_barriers = _barriers(CONSUMERS, 1), _barriers(CONSUMERS, 1)
    k_barriers = _barriers(STAGES, 1), _barriers(STAGES, CONSUMERS)
    v_barriers = _barriers(STAGES, 1), _barriers(STAGES, CONSUMERS)
    barriers = q_barriers, k_barriers, v_barriers, _barriers(CONSUMERS, 1)
    fence_async_shared()  # the accelerator sees the barriers as they were made
    gl.warp_specialize(
        [
            (_consume, (0, output, log_sum_exp, sink, tiles, barriers, mask, scores, schedule,
                        STAGES, CAUSAL, DOCUMENTS, WINDOW, SOFTCAP, SINK)),
            (_consume, (1, output, log_sum_exp, sink, tiles, barriers, mask, scores, schedule,
                        STAGES, CAUSAL, DOCUMENTS, WINDOW, SOFTCAP, SINK)),
            (_produce, (q, k, v, tiles, barriers, mask, schedule, STAGES, GROUP, CAUSAL, DOCUMENTS, WINDOW)),
        ],
        [4, 1],
        [CONSUMER_REGISTERS, PRODUCER_REGISTERS],
    )  # fmt: skip


@gluon.jit
def _tiles(descriptor, NUMBER: gl.constexpr):
    shape: gl.constexpr = [NUMBER] + descriptor.block_type.shape  # noqa: RUF005, Triton knows no starred lists
    return gl.allocate_shared_memory(descriptor.dtype, shape, descriptor.layout)


@gluon.jit
def _barriers(NUMBER: gl.constexpr, ARRIVALS: gl.constexpr):
    barriers = gl.allocate_shared_memory(gl.int64, [NUMBER, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(NUMBER):
        mbarrier.init(barriers.index(i), count=ARRIVALS)
    return barriers


@gluon.jit
def _produce(
    q, k, v, tiles, barriers, mask, schedule,
    STAGES: gl.constexpr, GROUP: gl.constexpr, CAUSAL: gl.constexpr, DOCUMENTS: gl.constexpr, WINDOW: gl.constexpr,
):  # fmt: skip
    """Fetches what the consumers will read, in their order: keys, queries, and values a block behind the keys."""
    q_tiles, k_tiles, v_tiles, _ = tiles
    q_barriers, k_barriers, v_barriers, _ = barriers
    q_full, q_empty = q_barriers
    N: gl.constexpr = k.block_type.shape[2]
    use = 0
    for turn in range(_turns(schedule)):
        batch, head, m0 = _query_tile(turn, schedule)
        start, blocks = _key_blocks(mask, batch, m0, N, CAUSAL, DOCUMENTS, WINDOW)
        n0 = start + (blocks - 1) * N
        for block in range(blocks):
            _fetch_block(k, [batch, head // GROUP, n0, 0], k_tiles, k_barriers, use + block, STAGES)
            if block == 0:
                for who in gl.static_range(CONSUMERS):
                    mbarrier.wait(q_empty.index(who), turn & 1 ^ 1)
                    mbarrier.expect(q_full.index(who), q.block_type.nbytes)
                    fetch(q, [batch, head, m0 + who * M, 0], q_full.index(who), q_tiles.index(who))
            else:
                _fetch_block(v, [batch, head // GROUP, n0 + N, 0], v_tiles, v_barriers, use + block - 1, STAGES)
            n0 -= N
        use += blocks
        _fetch_block(v, [batch, head // GROUP, start, 0], v_tiles, v_barriers, use - 1, STAGES)


@gluon.jit
def _fetch_block(descriptor, corner, ring, barriers, use, STAGES: gl.constexpr):
    full, empty = barriers
    stage = use % STAGES
    mbarrier.wait(empty.index(stage), use // STAGES & 1 ^ 1)
    mbarrier.expect(full.index(stage), descriptor.block_type.nbytes)
    fetch(descriptor, corner, full.index(stage), ring.index(stage))


@gluon.jit
def _consume(
    WHO: gl.constexpr, output, log_sum_exp, sink, tiles, barriers, mask, scores, schedule,
    STAGES: gl.constexpr, CAUSAL: gl.constexpr, DOCUMENTS: gl.constexpr, WINDOW: gl.constexpr, SOFTCAP: gl.constexpr,
    SINK: gl.constexpr,
):  # fmt: skip
    """Attention of this consumer's half of each tile of queries."""
    N: gl.constexpr = tiles[1].shape[3]
    D: gl.constexpr = tiles[1].shape[4]
    staging = tiles[3].index(WHO)
    use = 0
    for turn in range(_turns(schedule)):
        batch, head, m0 = _query_tile(turn, schedule)
        start, blocks = _key_blocks(mask, batch, m0, N, CAUSAL, DOCUMENTS, WINDOW)
        m0 += WHO * M
        acc_MD, sum_M, maximum_M = _attend(
            WHO, tiles, barriers, mask, scores, batch, m0, start, blocks, turn, use,
            STAGES, CAUSAL, DOCUMENTS, WINDOW, SOFTCAP,
        )  # fmt: skip
        use += blocks

        if SINK:  # a key without a value: it takes its share of the softmax and gives nothing
            sink_score = gl.load(sink + head) * LOG2_E
            new_maximum_M = gl.maximum(maximum_M, sink_score)
            rescale_M = gl.exp2(maximum_M - new_maximum_M)
            sum_M = sum_M * rescale_M + gl.exp2(sink_score - new_maximum_M)
            acc_MD = acc_MD * _column(rescale_M, D)
            maximum_M = new_maximum_M
        sees_M = sum_M > 0.0
        acc_MD = acc_MD * _column(1.0 / gl.where(sees_M, sum_M, 1.0), D)
        tma.store_wait(0)  # the tile before has left the staging tile
        staging.reshape([M, D]).store(acc_MD.to(output.dtype))
        fence_async_shared()
        put(output, [batch, head, m0, 0], staging)

        heads, _, _, _ = schedule
        _, _, _, query_time, _, _ = mask
        rows_M = m0 + gl.arange(0, M, layout=gl.SliceLayout(1, _accumulator(N)))
        lse_M = gl.where(sees_M, (maximum_M + gl.log2(sum_M)) / LOG2_E, float("-inf"))
        row_of_head = (batch.to(gl.int64) * heads + head) * query_time
        gl.store(log_sum_exp + row_of_head + rows_M, lse_M, mask=rows_M < query_time)
    tma.store_wait(0)


@gluon.jit
def _attend(
    WHO: gl.constexpr, tiles, barriers, mask, scores, batch, m0, start, blocks, turn, use,
    STAGES: gl.constexpr, CAUSAL: gl.constexpr, DOCUMENTS: gl.constexpr, WINDOW: gl.constexpr, SOFTCAP: gl.constexpr,
):  # fmt: skip
    """Unnormalised output, sum and maximum of M queries over all blocks, from the last to the first."""
    q_tiles, k_tiles, v_tiles, _ = tiles
    q_barriers, k_barriers, v_barriers, turns = barriers
    q_full, q_empty = q_barriers
    k_full, k_empty = k_barriers
    v_full, v_empty = v_barriers
    N: gl.constexpr = k_tiles.shape[3]
    D: gl.constexpr = k_tiles.shape[4]
    ROWS: gl.constexpr = gl.SliceLayout(1, _accumulator(N))
    P_DTYPE: gl.constexpr = v_tiles.dtype

    bounds = _bounds(mask, batch, m0, N, CAUSAL, DOCUMENTS, WINDOW)
    sum_M = gl.zeros([M], gl.float32, ROWS)
    maximum_M = gl.full([M], LOWEST, gl.float32, ROWS)
    acc_MD = gl.zeros([M, D], gl.float32, _accumulator(D))
    unused_MN = gl.zeros([M, N], gl.float32, _accumulator(N))

    q_MD = q_tiles.index(WHO).reshape([M, D])
    n0 = start + (blocks - 1) * N
    mbarrier.wait(q_full.index(WHO), turn & 1)
    mbarrier.wait(k_full.index(use % STAGES), use // STAGES & 1)
    k_DN = k_tiles.index(use % STAGES).reshape([N, D]).permute((1, 0))
    s_MN = warpgroup_mma(q_MD, k_DN, unused_MN, use_acc=False, is_async=True)
    s_MN = warpgroup_mma_wait(0, deps=(s_MN,))
    mbarrier.arrive(k_empty.index(use % STAGES))
    p_MN, sum_M, maximum_M, _ = _softmax(s_MN, sum_M, maximum_M, n0, bounds, scores, SOFTCAP, P_DTYPE, D)

    last = use + blocks - 1
    mbarrier.wait(k_full.index((use + 1) % STAGES), (use + 1) // STAGES & 1, pred=use < last)
    for block in range(use, last):  # the keys are those of block + 1
        n0 -= N
        k_stage = (block + 1) % STAGES
        v_stage = block % STAGES
        # A turn for each block but a tile's first; consumer 0 begins, so it waits for the other's turn before.
        mbarrier.wait(turns.index(WHO), (block - turn) & 1 ^ (1 - WHO))
        k_DN = k_tiles.index(k_stage).reshape([N, D]).permute((1, 0))
        s_MN = warpgroup_mma(q_MD, k_DN, unused_MN, use_acc=False, is_async=True)
        mbarrier.wait(v_full.index(v_stage), block // STAGES & 1)
        v_ND = v_tiles.index(v_stage).reshape([N, D])
        acc_MD = warpgroup_mma(p_MN, v_ND, acc_MD, is_async=True)
        mbarrier.arrive(turns.index(1 - WHO))

        s_MN, acc_MD = warpgroup_mma_wait(1, deps=(s_MN, acc_MD))  # the scores; the other product goes on
        mbarrier.arrive(k_empty.index(k_stage))
        new_p_MN, sum_M, maximum_M, rescale_M = _softmax(
            s_MN, sum_M, maximum_M, n0, bounds, scores, SOFTCAP, P_DTYPE, D
        )
        # Here and not where the keys are read: this compiles to a loop, and the assembler moves nothing across it.
        # Without one it waits for the product before the softmax, and nothing overlaps.
        mbarrier.wait(k_full.index((block + 2) % STAGES), (block + 2) // STAGES & 1, pred=block + 1 < last)
        acc_MD, p_MN = warpgroup_mma_wait(0, deps=(acc_MD, p_MN))
        mbarrier.arrive(v_empty.index(v_stage))
        acc_MD = acc_MD * _column(rescale_M, D)
        p_MN = new_p_MN

    mbarrier.arrive(q_empty.index(WHO))
    mbarrier.wait(v_full.index(last % STAGES), last // STAGES & 1)
    v_ND = v_tiles.index(last % STAGES).reshape([N, D])
    acc_MD = warpgroup_mma(p_MN, v_ND, acc_MD, is_async=True)
    acc_MD, p_MN = warpgroup_mma_wait(0, deps=(acc_MD, p_MN))
    mbarrier.arrive(v_empty.index(last % STAGES))
    return acc_MD, sum_M, maximum_M


@gluon.jit
def _softmax(s_MN, sum_M, maximum_M, n0, bounds, scores, SOFTCAP: gl.constexpr, P_DTYPE: gl.constexpr, D: gl.constexpr):
    """Probabilities of a block under the new maximum, the new sum and maximum, and what the old ones shrink by."""
    low_M, high_M, full_start, full_end = bounds
    factor, squeeze = scores
    factor = factor * LOG2_E
    N: gl.constexpr = s_MN.shape[1]
    if SOFTCAP:
        s_MN = 1.0 - 2.0 / (1.0 + gl.exp2(s_MN * (squeeze * 2.0 * LOG2_E)))  # tanh; exp2 saturates, and so does this
    if (n0 < full_start) | (n0 + N > full_end):  # some row does not see the whole block
        keys_N = n0 + gl.arange(0, N, layout=gl.SliceLayout(0, _accumulator(N)))
        seen_MN = (keys_N[None, :] >= low_M[:, None]) & (keys_N[None, :] < high_M[:, None])
        s_MN = gl.where(seen_MN, s_MN, float("-inf"))
    new_maximum_M = gl.maximum(maximum_M, gl.max(s_MN, 1) * factor)
    p_MN = gl.exp2(s_MN * factor - new_maximum_M[:, None])
    rescale_M = gl.exp2(maximum_M - new_maximum_M)
    sum_M = sum_M * rescale_M + gl.sum(p_MN, 1)
    p_MN = gl.convert_layout(p_MN.to(P_DTYPE), gl.DotOperandLayout(0, _accumulator(D), k_width=2))
    return p_MN, sum_M, new_maximum_M, rescale_M


@gluon.constexpr_function
def _accumulator(columns):
    """How a warp group holds what its matrix instruction gives: whole rows with four threads, so no row is shared."""
    return gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, columns, 16])


@gluon.jit
def _column(x_M, D: gl.constexpr):
    return gl.convert_layout(x_M, gl.SliceLayout(1, _accumulator(D)))[:, None]


# ------------------------------------------------------------------------- which tile, which keys


@gluon.jit
def _turns(schedule):
    """How many tiles this program takes."""
    _, _, _, tiles = schedule
    programs = gl.num_programs(0)
    return (tiles + programs - 1 - _place(tiles // programs)) // programs


@gluon.jit
def _place(turn):
    """The program's place in a turn: forth and back, so that who had the heaviest tile gets the lightest next."""
    pid = gl.program_id(0)
    return pid + (turn & 1) * (gl.num_programs(0) - 1 - 2 * pid)


@gluon.jit
def _query_tile(turn, schedule):
    """Batch row, head and first query of a turn's tile.

    Heads go in parties whose keys and values stay in the second-level cache; in a party the last queries go first,
    for a causal mask gives them the most keys: heavy tiles first leave the programs no long last one.
    """
    heads, party, query_tiles, tiles = schedule
    tile = turn * gl.num_programs(0) + _place(turn)
    first = tile // (party * query_tiles) * party
    size = gl.minimum(party, tiles // query_tiles - first)
    within = tile % (party * query_tiles)
    head = first + within % size
    return head // heads, head % heads, (query_tiles - 1 - within // size) * (CONSUMERS * M)


@gluon.jit
def _key_blocks(mask, batch, m0, N: gl.constexpr, CAUSAL: gl.constexpr, DOCUMENTS: gl.constexpr, WINDOW: gl.constexpr):
    """First key of a tile of queries and its number of blocks; one, wholly masked, where it sees nothing."""
    start, _ = _keys_of_queries(mask, batch, m0, CAUSAL, DOCUMENTS, WINDOW)
    _, stop = _keys_of_queries(mask, batch, m0 + CONSUMERS * M - 1, CAUSAL, DOCUMENTS, WINDOW)
    return start, gl.cdiv(gl.maximum(stop - start, 1), N)


@gluon.jit
def _bounds(mask, batch, m0, N: gl.constexpr, CAUSAL: gl.constexpr, DOCUMENTS: gl.constexpr, WINDOW: gl.constexpr):
    """The interval of keys that each of M queries sees, and the one that all of them see."""
    rows_M = m0 + gl.arange(0, M, layout=gl.SliceLayout(1, _accumulator(N)))
    low_M, high_M = _keys_of_queries(mask, batch, rows_M, CAUSAL, DOCUMENTS, WINDOW)
    _, full_end = _keys_of_queries(mask, batch, m0, CAUSAL, DOCUMENTS, WINDOW)
    full_start, _ = _keys_of_queries(mask, batch, m0 + M - 1, CAUSAL, DOCUMENTS, WINDOW)
    return low_M, high_M, full_start, full_end


@gluon.jit
def _keys_of_queries(mask, batch, queries, CAUSAL: gl.constexpr, DOCUMENTS: gl.constexpr, WINDOW: gl.constexpr):
    """The interval [low, high) of keys that each query sees; queries beyond the end count as the last one.

    Neither bound ever decreases along a row, so those of a tile are those of its first and its last query.
    """
    first, end, document_stride, query_time, key_time, window = mask
    position = gl.minimum(queries, query_time - 1) + (key_time - query_time)
    low = position * 0
    high = low + key_time
    if DOCUMENTS:
        low = gl.load(first + batch * document_stride + position)
        high = gl.load(end + batch * document_stride + position)
    if WINDOW:
        low = gl.maximum(low, position - window + 1)
    if CAUSAL:
        high = gl.minimum(high, position + 1)
    return low, high
