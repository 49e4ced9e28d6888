"""Cross-entropy of a linear projection in Triton: no kernel writes a logit but the label's.

`statistics` walks over a segment of the vocabulary and keeps, of each token, the running maximum and the running sum
of exponentials (online softmax: Milakov & Gimelshein 2018, arXiv:1805.02867), so that a tile of logits can be
forgotten once it was seen. `gradient` makes the same tile of logits again and, the whole log-sum-exp now being known,
turns it into the gradient of the objective by the logits. That this is cheaper than keeping logits of a large
vocabulary is the observation of Cut Cross-Entropy (arXiv:2411.09009); unlike there, nothing is left out because it
is small, no atomic addition is used, and no program waits for another: results are the same in every run.

Shapes: N tokens, C hidden size, V vocabulary, S segments of the vocabulary, W columns (entries of the vocabulary) of
the chunk whose gradient is asked for. A tile is `TOKENS` x `COLUMNS` logits, made from `CHANNELS` of C at a time.
Offsets to the beginning of a tile are 64 bits wide, those within a tile 32.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
NO_LABEL = tl.constexpr(-100)
GROUP = tl.constexpr(16)  # blocks of tokens that meet the same weights at about the same time, in the L2 cache


@triton.jit
def statistics(
    x,
    weight,
    log_sums_SN,  # natural log-sum-exp of each token over each segment
    totals_SN,  # sum of the logits likewise; written where SMOOTHED
    tokens,
    vocabulary,
    hidden,
    x_stride,
    weight_stride,
    segment,  # columns of a segment, a multiple of COLUMNS
    SMOOTHED: tl.constexpr,
    WHOLE: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    PRECISION: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """What the loss needs to know of all logits, for one block of tokens and one segment of the vocabulary."""
    block, number = _place(tl.cdiv(tokens, TOKENS), tl.cdiv(vocabulary, segment))
    token = block * TOKENS + tl.arange(0, TOKENS)
    maximum = tl.full([TOKENS], float("-inf"), tl.float32)
    exponentials = tl.zeros([TOKENS], tl.float32)
    total = tl.zeros([TOKENS], tl.float32)
    first = number * segment
    end = tl.minimum(first + segment, vocabulary)
    for start in range(first, end, COLUMNS):
        logits = _logits(
            x, weight, block * TOKENS, start, tokens, vocabulary, hidden, x_stride, weight_stride,
            WHOLE, DESCRIPTORS, PRECISION, TOKENS, COLUMNS, CHANNELS,
        )  # fmt: skip
        column = start + tl.arange(0, COLUMNS)
        inside = (column < end)[None, :]
        if SMOOTHED:
            total += tl.sum(tl.where(inside, logits, 0.0), 1)
        logits = tl.where(inside, logits, float("-inf"))
        higher = tl.maximum(maximum, tl.max(logits, 1))
        kept = exponentials * tl.exp2((maximum - higher) * LOG2_E)
        exponentials = kept + tl.sum(tl.exp2((logits - higher[:, None]) * LOG2_E), 1)
        maximum = higher

    exists = token < tokens
    place = tl.cast(number, tl.int64) * tokens + token
    tl.store(log_sums_SN + place, maximum + tl.log(exponentials), mask=exists)
    if SMOOTHED:
        tl.store(totals_SN + place, total, mask=exists)


@triton.jit
def label_logits(
    x,
    weight,
    labels_N,
    logits_N,  # NaN where the label is no entry of the vocabulary
    tokens,
    vocabulary,
    hidden,
    x_stride,
    weight_stride,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The logit of each token's label. By itself: in `statistics` it would take every logit a comparison, an addition
    and registers of which there are none left."""
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    label = tl.load(labels_N + token, mask=token < tokens, other=NO_LABEL)
    known = (label >= 0) & (label < vocabulary)
    channel = tl.arange(0, CHANNELS)
    x_places = x + token.to(tl.int64)[:, None] * x_stride + channel[None, :]
    weight_places = weight + label[:, None] * weight_stride + channel[None, :]
    sums = tl.zeros([ROWS, CHANNELS], tl.float32)
    for start in range(0, hidden, CHANNELS):
        inside = known[:, None] & (channel < hidden - start)[None, :]
        x_tile = tl.load(x_places + start, mask=inside, other=0.0)
        weight_tile = tl.load(weight_places + start, mask=inside, other=0.0)
        sums += x_tile.to(tl.float32) * weight_tile.to(tl.float32)
    tl.store(logits_N + token, tl.where(known, tl.sum(sums, 1), float("nan")), mask=token < tokens)


@triton.jit
def gradient(
    x,
    weight,
    labels_N,
    log_sums_N,  # natural log-sum-exp of each token over the whole vocabulary
    upstream,  # the gradient of whatever is minimised by the summed objective
    gradient_NW,
    tokens,
    vocabulary,
    hidden,
    x_stride,
    weight_stride,
    gradient_stride,
    first,  # of the columns of this chunk
    end,
    z_factor,  # twice the factor on the z-loss
    sharp,  # probability that the label keeps of itself
    spread,  # and that smoothing gives to each entry of the vocabulary
    WHOLE: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    PRECISION: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Gradient by one tile of logits: softmax x (1 + 2 z log-sum-exp) - target, times upstream; 0 without a label."""
    block, number = _place(tl.cdiv(tokens, TOKENS), tl.cdiv(end - first, COLUMNS))
    start = first + number * COLUMNS
    logits = _logits(
        x, weight, block * TOKENS, start, tokens, vocabulary, hidden, x_stride, weight_stride,
        WHOLE, DESCRIPTORS, PRECISION, TOKENS, COLUMNS, CHANNELS,
    )  # fmt: skip
    row = tl.arange(0, TOKENS)
    token = block * TOKENS + row
    exists = token < tokens
    label = tl.load(labels_N + token, mask=exists, other=NO_LABEL)
    log_sum = tl.load(log_sums_N + token, mask=exists, other=0.0)
    weighting = tl.where(label == NO_LABEL, 0.0, tl.load(upstream))

    softmax = tl.exp2((logits - log_sum[:, None]) * LOG2_E)
    column = start + tl.arange(0, COLUMNS)
    target = tl.where(column[None, :] == label[:, None], sharp + spread, spread)
    by_logit = (softmax * (1.0 + z_factor * log_sum)[:, None] - target) * weighting[:, None]

    corner = gradient_NW + tl.cast(block * TOKENS, tl.int64) * gradient_stride + number * COLUMNS
    places = row[:, None] * gradient_stride + tl.arange(0, COLUMNS)[None, :]
    inside = exists[:, None] & (column < end)[None, :]
    tl.store(corner + places, by_logit.to(gradient_NW.dtype.element_ty), mask=inside)


@triton.jit
def _place(blocks, parts):
    """Which block of tokens and which part of the vocabulary a program has: parts in turn, for `GROUP` blocks."""
    program = tl.program_id(0)
    group = program // (GROUP * parts)
    size = tl.minimum(blocks - group * GROUP, GROUP)
    within = program % (GROUP * parts)
    return group * GROUP + within % size, within // size


@triton.jit
def _logits(
    x,
    weight,
    first_token,
    first_column,
    tokens,
    vocabulary,
    hidden,
    x_stride,
    weight_stride,
    WHOLE: tl.constexpr,  # CHANNELS divides the hidden size
    DESCRIPTORS: tl.constexpr,  # x and weight are tensor descriptors, else pointers
    PRECISION: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A tile [TOKENS, COLUMNS] of x weight^T in fp32; what lies beyond the last token or column is of no meaning."""
    logits = tl.zeros([TOKENS, COLUMNS], tl.float32)
    if DESCRIPTORS:
        for start in range(0, hidden, CHANNELS):
            x_tile = x.load([first_token, start])
            weight_tile = weight.load([first_column, start])
            logits = tl.dot(x_tile, weight_tile.T, logits, input_precision=PRECISION)
    else:
        # Beyond the end the last row is read again: no mask on rows, which would slow every load down.
        row = tl.minimum(tl.arange(0, TOKENS), tokens - 1 - first_token)
        column = tl.minimum(tl.arange(0, COLUMNS), vocabulary - 1 - first_column)
        channel = tl.arange(0, CHANNELS)
        x_corner = x + tl.cast(first_token, tl.int64) * x_stride
        weight_corner = weight + tl.cast(first_column, tl.int64) * weight_stride
        x_places = x_corner + row[:, None] * x_stride + channel[None, :]
        weight_places = weight_corner + column[None, :] * weight_stride + channel[:, None]
        for start in range(0, hidden, CHANNELS):
            if WHOLE:
                x_tile = tl.load(x_places)
                weight_tile = tl.load(weight_places)
            else:
                left = hidden - start
                x_tile = tl.load(x_places, mask=channel[None, :] < left, other=0.0)
                weight_tile = tl.load(weight_places, mask=channel[:, None] < left, other=0.0)
            logits = tl.dot(x_tile, weight_tile, logits, input_precision=PRECISION)
            x_places += CHANNELS
            weight_places += CHANNELS
    return logits
