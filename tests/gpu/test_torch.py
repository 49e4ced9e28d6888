"""The operator among what torch does with operators: compilation, graphs, checkpointing, streams, fakes."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import kernels
from tests.gpu.cases import Case, draw
from tests.gpu.test_attention import triton

pytestmark = pytest.mark.gpu

CASE = Case(2048, heads=8, groups=2, documents=300, batch=2)


@pytest.fixture(autouse=True)
def _triton_in_force(place):
    with kernels.use("triton"):
        yield


@pytest.fixture
def on_gpu(place):
    if place.tiny:
        pytest.skip("graphs and streams are a GPU's")


def gradients_of(function, tensors):
    """Of q, k and v."""
    return torch.autograd.grad(function(*tensors.leaves[:3]), tensors.leaves[:3], tensors.upstream)


@pytest.mark.parametrize("case", [CASE, Case(512, heads=4, groups=4, head_size=80, dtype=torch.float16, sink=True)])
def test_opcheck(place, case):
    """What the fake implementation, autograd and the schema say, holds."""
    case = place.size(case)
    tensors = draw(case, place.device)
    document = tensors.options["document"]
    bounds = (None, None) if document is None else kernels.documents(document)
    arguments = (*tensors.leaves[:3], *bounds, tensors.sink, True, 0, case.head_size**-0.5, 0.0)
    torch.library.opcheck(torch.ops.loam.attention.default, arguments)


def test_compiles_into_one_graph(place):
    """Around it other operators are fused; the numbers stay within their rounding."""
    tensors = draw(place.size(CASE), place.device)

    def function(q, k, v):
        return kernels.attention(q * 1.5, k, v, document=tensors.options["document"]).sigmoid()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager" if place.tiny else "inductor")
    expected, got = function(*tensors.leaves), compiled(*tensors.leaves)
    tolerance = 4 * torch.finfo(expected.dtype).eps
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    for one, other in zip(gradients_of(compiled, tensors), gradients_of(function, tensors), strict=True):
        assert float((one - other).norm() / other.norm()) < tolerance


def test_gradients_are_the_same_under_activation_checkpointing(place):
    tensors = draw(place.size(CASE), place.device)

    def function(q, k, v):
        return kernels.attention(q, k, v, document=tensors.options["document"])

    expected = gradients_of(function, tensors)
    for reentrant in (False, True):
        leaves = [leaf.detach().requires_grad_() for leaf in tensors.leaves]
        checkpoint(function, *leaves, use_reentrant=reentrant).backward(tensors.upstream)
        assert all(torch.equal(leaf.grad, other) for leaf, other in zip(leaves, expected, strict=True))


def test_a_captured_graph_computes_anew(place, on_gpu):
    """Forward and backward captured once, and replayed on other numbers and other documents."""
    still, other = draw(CASE, place.device), draw(CASE, place.device, seed=1)
    expected = triton(other, lse_counts=True)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles and reserves, which a capture may not
        triton(still, lse_counts=True)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = triton(still, lse_counts=True)
    with torch.no_grad():
        for here, there in zip(still.leaves, other.leaves, strict=True):
            here.copy_(there)
        still.upstream.copy_(other.upstream)
        still.lse_upstream.copy_(other.lse_upstream)
        still.options["document"].copy_(other.options["document"])
    graph.replay()
    torch.cuda.synchronize()
    for one, another in zip((*captured[:2], *captured[2]), (*expected[:2], *expected[2]), strict=True):
        assert torch.equal(one, another)


def test_several_streams_at_once(place, on_gpu):
    """Each computes its own, forward and backward, on the stream that is current where it was called."""
    work = [draw(CASE, place.device, seed) for seed in range(4)]
    expected = [triton(tensors, lse_counts=True) for tensors in work]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in work]
    got = []
    for stream, tensors in zip(streams, work, strict=True):
        with torch.cuda.stream(stream):
            torch.cuda._sleep(10**6)  # so that what is queued on the wrong stream comes too early
            got.append(triton(tensors, lse_counts=True))
    torch.cuda.synchronize()
    for one, other in zip(got, expected, strict=True):
        pairs = zip((*one[:2], *one[2]), (*other[:2], *other[2]), strict=True)
        assert all(torch.equal(here, there) for here, there in pairs)


def test_autocast(place):
    """Inputs in fp32 are cast, and their gradients come in fp32."""
    case = place.size(Case(512, heads=4, groups=2, head_size=64, dtype=torch.float32))
    tensors = draw(case, place.device)
    low = torch.bfloat16
    with torch.autocast(place.device.type, low):
        output = kernels.attention(*tensors.leaves[:3])
    assert output.dtype == low
    gradients = torch.autograd.grad(output, tensors.leaves, tensors.upstream.to(low))
    cast = [leaf.detach().to(low).requires_grad_() for leaf in tensors.leaves]
    same = kernels.attention(*cast)
    assert torch.equal(output, same)
    for gradient, expected in zip(gradients, torch.autograd.grad(same, cast, tensors.upstream.to(low)), strict=True):
        assert gradient.dtype == torch.float32
        assert torch.equal(gradient, expected.float())
