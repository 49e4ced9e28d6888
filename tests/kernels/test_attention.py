"""Every implementation of attention against a float64 loop over single queries, forward and backward."""

import itertools

import pytest
import torch

import kernels

NAMES = ("reference", "sdpa")


def loop(q, k, v, *, causal=True, document=None, window=0, scale=None, softcap=0.0, sink=None):
    """Output and log-sum-exp, one query at a time, keys picked by an if: slow, and hard to get wrong."""
    batch, query_time, heads, head_size = q.shape
    key_time, groups = k.shape[1], k.shape[2]
    scale = head_size**-0.5 if scale is None else scale
    out = torch.zeros_like(q)
    lse = torch.full((batch, heads, query_time), float("-inf"), dtype=q.dtype)
    for b, t, h in itertools.product(range(batch), range(query_time), range(heads)):
        here, g = t + key_time - query_time, h * groups // heads
        seen = [
            s
            for s in range(key_time)
            if (not causal or s <= here)
            and (not window or s > here - window)
            and (document is None or document[b, s] == document[b, t])
        ]
        scores = [q[b, t, h] @ k[b, s, g] * scale for s in seen]
        if softcap:
            scores = [softcap * torch.tanh(score / softcap) for score in scores]
        values = [v[b, s, g] for s in seen]
        if sink is not None:
            scores, values = [*scores, sink[h]], [*values, torch.zeros_like(v[b, 0, g])]
        if scores:
            out[b, t, h] = (torch.stack(scores).softmax(0)[:, None] * torch.stack(values)).sum(0)
            lse[b, h, t] = torch.stack(scores).logsumexp(0)
    return out, lse


def tensors(query_time, key_time, heads, groups, head_size=8, batch=2):
    generator = torch.Generator().manual_seed(query_time + 31 * key_time)

    def draw(time, number):
        return torch.randn(batch, time, number, head_size, generator=generator, dtype=torch.float64)

    return draw(query_time, heads), draw(key_time, groups), draw(key_time, groups)


DOCUMENT = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 2, 3, 3], [5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]], dtype=torch.int32)
SINK = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
CASES = {
    "causal": ((11, 11, 4, 4), {}),
    "bidirectional": ((7, 7, 2, 2), {"causal": False}),
    "one token": ((1, 1, 2, 1), {}),
    "grouped queries": ((11, 11, 6, 2), {}),
    "multi-query": ((9, 9, 4, 1), {}),
    "documents": ((11, 11, 4, 2), {"document": DOCUMENT}),
    "documents both ways": ((11, 11, 4, 2), {"document": DOCUMENT, "causal": False}),
    "window": ((11, 11, 2, 2), {"window": 3}),
    "window of one": ((11, 11, 2, 2), {"window": 1}),
    "window beyond the sequence": ((11, 11, 2, 2), {"window": 40}),
    "window and documents": ((11, 11, 4, 2), {"window": 4, "document": DOCUMENT}),
    "last positions": ((3, 11, 4, 2), {}),
    "last positions, window": ((3, 11, 4, 2), {"window": 5}),
    "decoding": ((1, 11, 4, 2), {}),
    "decoding, window": ((1, 11, 4, 2), {"window": 4}),
    "queries before every key": ((5, 3, 2, 2), {}),
    "scale": ((11, 11, 2, 2), {"scale": 0.7}),
    "soft cap": ((11, 11, 4, 2), {"softcap": 0.5, "document": DOCUMENT, "window": 6}),
    "sink": ((11, 11, 4, 2), {"sink": SINK, "document": DOCUMENT}),
    "sink, queries before every key": ((5, 3, 4, 2), {"sink": SINK}),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "options"), CASES.values(), ids=CASES.keys())
def test_equals_the_loop_forward_and_backward(name, shape, options):
    exact = [tensor.requires_grad_() for tensor in tensors(*shape)]
    expected, _ = loop(*exact, **options)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected_gradients = torch.autograd.grad(expected, exact, upstream, allow_unused=True)

    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        inputs = [tensor.detach().to(dtype).requires_grad_() for tensor in exact]
        with kernels.use(name):
            output = kernels.attention(*inputs, **options)
        assert output.dtype == dtype
        gradients = torch.autograd.grad(output, inputs, upstream.to(dtype))
        torch.testing.assert_close(output.double(), expected, rtol=0, atol=tolerance)
        for gradient, exact_gradient in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(gradient.double(), exact_gradient, rtol=0, atol=4 * tolerance)


@pytest.mark.parametrize(("shape", "options"), CASES.values(), ids=CASES.keys())
def test_log_sum_exp_and_its_gradients(shape, options):
    q, k, v = (tensor.requires_grad_() for tensor in tensors(*shape))
    leaves = [q, k]
    if "sink" in options:
        options = {**options, "sink": SINK.clone().requires_grad_()}
        leaves.append(options["sink"])
    found = []
    for _, lse in (loop(q, k, v, **options), kernels.attention(q, k, v, return_lse=True, **options)):
        finite = lse.masked_fill(lse == float("-inf"), 0.0)
        found.append([lse, *torch.autograd.grad(finite.sin().sum(), leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 31, 64, 65, 129])
def test_odd_sizes(length):
    q, k, v = tensors(length, length, 6, 3, head_size=24, batch=3)
    document = (torch.arange(length) // 17).int().expand(3, -1)
    with kernels.use("reference"):
        expected = kernels.attention(q, k, v, document=document, window=40)
    output = kernels.attention(q.float(), k.float(), v.float(), document=document, window=40)
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=2e-6)


def test_use_lasts_for_the_with_statement_or_until_the_next():
    before = kernels._in_force
    with kernels.use("reference"):
        assert kernels._in_force == "reference"
        with kernels.use("sdpa"):
            assert kernels._in_force == "sdpa"
        assert kernels._in_force == "reference"
    assert kernels._in_force == before
    kernels.use("reference")
    assert kernels._in_force == "reference"
    kernels.use(before)


@pytest.mark.skipif(kernels.INTERPRETED, reason="the interpreter takes tensors of the CPU")
def test_the_kernels_need_a_gpu():
    for name in ("triton", "hopper"):
        with kernels.use(name), pytest.raises(ValueError, match="tensors on a GPU, got cpu"):
            kernels.attention(*tensors(4, 4, 2, 2))


def test_documents_and_their_numbers_are_the_same():
    q, k, v = tensors(11, 11, 4, 2)
    made = kernels.documents(DOCUMENT)
    assert made.first_BT.tolist()[0] == [0, 0, 0, 3, 3, 3, 3, 3, 8, 9, 9]
    assert made.end_BT.tolist()[0] == [3, 3, 3, 8, 8, 8, 8, 8, 9, 11, 11]
    assert torch.equal(kernels.attention(q, k, v, document=made), kernels.attention(q, k, v, document=DOCUMENT))
    strided = kernels.Documents(*(tensor.T.contiguous().T for tensor in made))
    assert torch.equal(kernels.attention(q, k, v, document=strided), kernels.attention(q, k, v, document=DOCUMENT))


def test_each_run_is_a_document_whatever_its_number():
    q, k, v = tensors(11, 11, 4, 2)
    again = torch.tensor([[7, 7, 7, -1, -1, -1, -1, -1, 2**33 + 7, 7, 7], [5] * 11])
    assert torch.equal(kernels.attention(q, k, v, document=again), kernels.attention(q, k, v, document=DOCUMENT))


def test_unknown_name_lists_those_that_exist():
    with pytest.raises(ValueError, match=r"reference \| sdpa"):
        kernels.use("flash")


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 4, 3, 2), {}, "divide"),
        ((3, 11, 2, 2), {"document": DOCUMENT[:, :3]}, "document"),
        ((11, 11, 2, 2), {"document": DOCUMENT[:1]}, "document"),
        ((4, 4, 2, 2), {"window": -1}, "window"),
        ((4, 4, 2, 2), {"window": 2, "causal": False}, "causal"),
        ((4, 4, 2, 2), {"softcap": -1.0}, "softcap"),
        ((4, 4, 2, 2), {"sink": SINK}, "sink"),
        ((4, 4, 4, 2), {"sink": SINK.to("meta")}, "one device"),
        ((4, 4, 2, 2), {"softcap": float("nan")}, "softcap"),
        ((11, 11, 2, 2), {"document": DOCUMENT.float()}, "integers"),
        ((11, 11, 2, 2), {"document": kernels.Documents(DOCUMENT, DOCUMENT[:, :5])}, "document"),
        ((4, 4, 2, 0), {}, "divide"),
    ],
)
def test_what_does_not_go_together_is_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        kernels.attention(*tensors(*shape), **options)


def test_shapes_and_dtypes_must_agree():
    q, k, v = tensors(4, 4, 2, 2)
    for wrong in ((q[0], k, v), (q, k, v[:, :2]), (q[..., :4], k, v), (q.float(), k, v), (q[:1], k, v)):
        with pytest.raises(ValueError, match="q"):
            kernels.attention(*wrong)
