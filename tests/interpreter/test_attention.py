"""The Triton kernels of attention against float64, each number within a derived bound (`tests.kernels.exact`)."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kernels
from kernels.configurations import Configuration
from tests.interpreter.bounds import forbidden
from tests.kernels import exact

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NAMES = ("output", "log-sum-exp", "gradient of q", "gradient of k", "gradient of v", "gradient of the sink")
RANDOM_DOCUMENTS = "random"

FEATURES = {
    "causal": {},
    "bidirectional": {"causal": False},
    "documents": {"document": RANDOM_DOCUMENTS},
    "documents both ways": {"document": RANDOM_DOCUMENTS, "causal": False},
    "window": {"window": 19},
    "window of one": {"window": 1},
    "window within documents": {"window": 11, "document": RANDOM_DOCUMENTS},
    "scale": {"scale": 0.7},
    "soft cap": {"softcap": 1.5},
    "sink": {"sink": True},
    "all at once": {"document": RANDOM_DOCUMENTS, "window": 23, "softcap": 2.0, "sink": True, "scale": 0.3},
}
SHAPES = {  # batch, queries, keys, heads, key-value heads, head size
    "one block": (1, 32, 32, 1, 1, 32),
    "grouped": (1, 45, 45, 4, 2, 16),
    "two rows": (2, 71, 71, 4, 2, 16),
    "multi-query": (1, 45, 45, 3, 1, 32),
    "head size 80": (1, 40, 40, 2, 2, 80),
}


def draw(generator, batch, time, heads, head_size, dtype, *, laid="plain", surroundings=None):
    """Random numbers; unless `laid` plainly, inside a larger tensor of NaN, with which they join `surroundings`."""
    values = torch.randn(batch, time, heads, head_size, generator=generator).to(dtype)
    if laid == "plain":
        return values
    around = torch.full((batch + 1, time + 3, heads + 1, head_size + 8), float("nan"), dtype=dtype)
    if laid == "heads first":
        around = around.transpose(1, 2).contiguous().transpose(1, 2)
    place = around[:batch, 1 : time + 1, :heads, 8:]
    if surroundings is not None:
        surroundings.append((around, place.detach()))
    return place.copy_(values)


def documents(generator, batch, time):
    return (torch.rand(batch, time, generator=generator) < 0.06).cumsum(1).to(torch.int32)


def check(shape, dtype, options, *, laid="plain", lse_matters=True, seed=0):
    """Forward and backward through the dispatch, compared with float64; the largest share of each bound used."""
    batch, queries, keys, heads, groups, head_size = shape
    generator = torch.Generator().manual_seed(seed)
    around = []
    inputs = [
        draw(generator, batch, time, number, head_size, dtype, laid=laid, surroundings=around).detach()
        for time, number in ((queries, heads), (keys, groups), (keys, groups))
    ]
    gradient = draw(generator, batch, queries, heads, head_size, dtype, laid=laid, surroundings=around)
    options = dict(options)
    if options.get("document") == RANDOM_DOCUMENTS:
        options["document"] = documents(generator, batch, keys)
    leaves = [x.requires_grad_() for x in inputs]
    if options.get("sink"):
        options["sink"] = torch.randn(heads, generator=generator, requires_grad=True)
        leaves.append(options["sink"])
    with kernels.use("triton"), forbidden(*around):
        output, lse = kernels.attention(*inputs, return_lse=True, **options)
    lse_gradient = torch.randn(lse.shape, generator=generator) if lse_matters else None
    outputs, upstream = [output], [gradient]
    if lse_matters:
        outputs, upstream = [output, lse], [gradient, lse_gradient.masked_fill(lse == float("-inf"), 0.0)]
        lse_gradient = upstream[1]
    with forbidden(*around):
        gradients = torch.autograd.grad(outputs, leaves, upstream)

    sink = options.pop("sink", None)
    expected = exact.attention(
        *(x.detach() for x in inputs), gradient, lse_gradient, sink=None if sink is None else sink.detach(), **options
    )
    shares = {}
    found = [output, lse, *gradients, None][: len(expected.values)]
    for name, value, wanted, bound in zip(NAMES, found, expected.values, expected.bounds, strict=True):
        if wanted is None:
            continue
        infinite = wanted == float("-inf")
        assert torch.equal(value == float("-inf"), infinite), name
        off = (value.detach().double() - wanted).masked_fill(infinite, 0.0).abs()
        assert not off.isnan().any(), f"NaN in the {name}"
        shares[name] = (off / bound).max().item()
        assert shares[name] <= 1, f"{name}: {shares[name]:.2f} of its bound"
    return shares


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow), torch.bfloat16], ids=str
)
@pytest.mark.parametrize("options", FEATURES.values(), ids=FEATURES.keys())
def test_every_feature_is_the_reference(options, dtype):
    check(SHAPES["grouped"], dtype, options)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_shapes(shape):
    check(shape, torch.float32, {"document": RANDOM_DOCUMENTS})


@pytest.mark.parametrize("head_size", [32, 64, 80, 96, 128, 192, 256])
def test_head_sizes(head_size):
    check((1, 37, 37, 1, 1, head_size), torch.bfloat16, {})


@pytest.mark.parametrize("options", [{}, {"window": 9}, {"causal": False}, {"sink": True}], ids=str)
@pytest.mark.parametrize(("queries", "keys"), [(7, 70), (1, 40), (37, 67), (50, 20)])
def test_queries_at_the_last_positions(queries, keys, options):
    """More queries than keys: the first see nothing, and give zeros."""
    check((1, queries, keys, 2, 1, 16), torch.float32, options)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 65])
def test_lengths_around_the_tiles(length):
    check((1, length, length, 1, 1, 16), torch.float32, {})


@pytest.mark.parametrize("laid", ["within NaN", "heads first"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strides_as_they_come_and_nothing_read_outside(laid, dtype):
    check((1, 37, 37, 2, 1, 24), dtype, {"document": RANDOM_DOCUMENTS}, laid=laid)


SETTINGS = {
    "tall": Configuration(queries=64, keys=16, warps=4, stages=1),
    "wide": Configuration(queries=16, keys=64, warps=4, stages=1),
    "descriptors": Configuration(queries=32, keys=16, warps=4, stages=1, descriptors=True),
    "persistent": Configuration(queries=16, keys=32, warps=4, stages=1, persistent=True),
    "descriptors, persistent": Configuration(queries=16, keys=16, warps=4, stages=1, descriptors=True, persistent=True),
}


@pytest.mark.parametrize("configuration", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("laid", ["plain", "within NaN"])
def test_every_way_of_launching(configuration, laid, monkeypatch):
    from kernels import attention_launch

    monkeypatch.setattr(attention_launch, "choose", lambda *_: configuration)
    check((1, 70, 70, 2, 1, 24), torch.bfloat16, {"document": RANDOM_DOCUMENTS, "window": 31}, laid=laid)
    check((1, 9, 50, 1, 1, 32), torch.float32, {"sink": True, "softcap": 1.0}, laid=laid)


@pytest.mark.parametrize("sign", [-1, 1])
def test_scores_far_from_zero(sign):
    """All near -1024 or 1024: exp of one is 0 or infinite in fp32, unless the running maximum is subtracted first."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 1, 40, 2, 16, generator=generator) * 0.1
    q, k, v = noise[0] + 8, noise[1] + 8 * sign, noise[2]
    with kernels.use("triton"):
        output, lse = kernels.attention(q, k, v, scale=1.0, return_lse=True)
    expected = exact.attention(q, k, v, torch.zeros_like(q), scale=1.0)
    for value, wanted, bound in zip((output, lse), expected.values, expected.bounds, strict=False):
        assert ((value - wanted).abs() <= bound).all()
    assert (output[0, 1:] - v[0, :1]).abs().min() > 0  # more than the first key is seen


@pytest.mark.parametrize("window", [70, 2**31 - 1, 2**31, 2**40])
def test_a_window_beyond_everything_is_none(window):
    found = []
    for size in (0, window):
        generator = torch.Generator().manual_seed(0)
        q, k, v = (draw(generator, 1, 40, 1, 16, torch.float32).requires_grad_() for _ in range(3))
        with kernels.use("triton"):
            output = kernels.attention(q, k, v, window=size)
        found.append([output, *torch.autograd.grad(output.square().sum(), (q, k, v))])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    "lay", [lambda x: x.repeat_interleave(2)[::2], lambda x: x[:1].expand(4)], ids=["strided", "expanded"]
)
def test_a_sink_of_any_stride(lay):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (draw(generator, 1, 20, 4, 16, torch.float32) for _ in range(3))
    sink = torch.randn(4, generator=generator)
    with kernels.use("triton"):
        assert torch.equal(
            kernels.attention(q, k, v, sink=lay(sink)), kernels.attention(q, k, v, sink=lay(sink).clone().contiguous())
        )


def test_only_the_output_or_only_the_log_sum_exp_is_used():
    check(SHAPES["grouped"], torch.float32, {}, lse_matters=False)
    q, k, v = (torch.randn(1, 20, 2, 16, requires_grad=True) for _ in range(3))
    results = []
    for name in ("triton", "reference"):
        with kernels.use(name):
            _, lse = kernels.attention(q, k, v, return_lse=True)
        results.append(torch.autograd.grad(lse.square().sum(), (q, k, v), allow_unused=True))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(q) if other is None else other, rtol=1e-5, atol=1e-6)


@st.composite
def problems(choose):
    groups, group = choose(st.integers(1, 3)), choose(st.integers(1, 3))
    keys = choose(st.integers(1, 90))
    documented = choose(st.booleans())
    queries = keys if documented else choose(st.integers(1, 90))
    causal = choose(st.booleans())
    options = {
        "causal": causal,
        "window": choose(st.integers(0, 100)) if causal else 0,
        "softcap": choose(st.sampled_from([0.0, 0.5, 30.0])),
        "scale": choose(st.sampled_from([None, 0.05, 1.0])),
    }
    if documented:
        options["document"] = RANDOM_DOCUMENTS
    if choose(st.booleans()):
        options["sink"] = True
    shape = (choose(st.integers(1, 2)), queries, keys, groups * group, groups, choose(st.integers(1, 70)))
    laid = choose(st.sampled_from(["plain", "within NaN", "heads first"]))
    return shape, choose(st.sampled_from(DTYPES)), options, laid, choose(st.integers(0, 10**6))


quietly = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@settings(quietly, max_examples=5)
@given(problems())
@pytest.mark.slow
def test_odd_problems(problem):
    shape, dtype, options, laid, seed = problem
    check(shape, dtype, options, laid=laid, seed=seed)


@pytest.mark.slow
@settings(quietly, max_examples=200, derandomize=False)
@given(problems())
def test_many_odd_problems(problem):
    shape, dtype, options, laid, seed = problem
    check(shape, dtype, options, laid=laid, seed=seed)


def test_the_bounds_are_not_loose():
    """A good part of them is used, so that an error of one digit would show; log-sum-exp's counts on the worst case."""
    shares = check((1, 71, 71, 4, 2, 64), torch.bfloat16, {})
    assert all(shares[name] > 0.1 for name in ("output", *NAMES[2:5])), shares


def test_twice_the_same_bits():
    results = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(5)
        q, k, v = (draw(generator, 1, 50, 2, 32, torch.bfloat16).requires_grad_() for _ in range(3))
        with kernels.use("triton"):
            output = kernels.attention(q, k, v)
        results.append([output, *torch.autograd.grad(output.float().square().sum(), (q, k, v))])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_nothing_is_written_outside(monkeypatch):
    """Every tensor that is made for the kernels stands between sentinels, and is made of them until it is written."""
    sentinel, fence, made = 12345.0, 4096, {}
    new_empty = torch.Tensor.new_empty

    def guarded(self, *size, **options):
        shape = torch.Size(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
        whole = new_empty(self, shape.numel() + 2 * fence, **options).fill_(sentinel)
        part = whole[fence : fence + shape.numel()].view(shape)
        made[part.data_ptr()] = whole
        return part

    from kernels import attention_launch

    q, k, v, gradient = (torch.randn(2, 37, 2, 24) for _ in range(4))
    options = {"causal": True, "window": 0, "scale": 0.2, "softcap": 0.0}
    monkeypatch.setattr(torch.Tensor, "new_empty", guarded)
    output, lse = attention_launch.forward(q, k, v, None, None, None, **options)
    gradients = attention_launch.backward(gradient, None, q, k, v, output, lse, None, None, **options)
    monkeypatch.undo()
    for tensor in (output, lse, *gradients):
        whole = made[tensor.data_ptr()]
        assert (whole[:fence] == sentinel).all()
        assert (whole[-fence:] == sentinel).all()
        assert not (tensor == sentinel).any(), "a number was never written"
        assert tensor.isfinite().all()


@pytest.mark.parametrize(("batch", "queries", "keys"), [(0, 5, 5), (1, 0, 0), (1, 0, 5)])
def test_an_empty_batch_and_no_queries(batch, queries, keys):
    q = torch.randn(batch, queries, 2, 16, requires_grad=True)
    k, v = (torch.randn(batch, keys, 2, 16, requires_grad=True) for _ in range(2))
    with kernels.use("triton"):
        output = kernels.attention(q, k, v)
    assert output.shape == q.shape
    for gradient, leaf in zip(torch.autograd.grad(output.sum(), (q, k, v)), (q, k, v), strict=True):
        assert torch.equal(gradient, torch.zeros_like(leaf))


def test_documents_by_their_cumulative_lengths():
    lengths = [5, 13, 2, 20, 1, 39]
    cumulative = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    numbers = kernels.documents_of(cumulative, rows=2, time=40)
    assert numbers.dtype == torch.int32
    assert numbers.flatten().tolist() == sorted(numbers.flatten().tolist())
    assert [int((numbers == n).sum()) for n in numbers.unique()] == lengths
    q, k, v = (torch.randn(2, 40, 2, 16) for _ in range(3))
    with kernels.use("triton"):
        output = kernels.attention(q, k, v, document=numbers)
        alone = kernels.attention(q[:1, 5:18], k[:1, 5:18], v[:1, 5:18])
    torch.testing.assert_close(output[:1, 5:18], alone, rtol=0, atol=1e-6)
