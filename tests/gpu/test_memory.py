"""What the kernels read and write: nothing beside their tensors, everything in them, and the same bits every time."""

import pytest
import torch

import kernels
from tests.gpu.cases import Case, Tensors, draw
from tests.gpu.test_attention import triton

pytestmark = pytest.mark.gpu

RED = 4096  # bytes before and behind each tensor; every bit is set, which is NaN in any dtype
CASE = Case(1000, heads=8, groups=2, head_size=80, documents=150, batch=2)
CASES = {
    "documents": CASE,
    "head size 128": Case(4000, heads=8, groups=2, documents=150, batch=2),
    "fp32": Case(999, heads=4, groups=2, head_size=96, dtype=torch.float32),
    "last positions": Case(100, keys=1111, heads=8, groups=2, head_size=64, sink=True),
    "bidirectional": Case(777, heads=8, groups=8, head_size=64, causal=False),
}


class Surrounded:
    """Tensors whose memory lies between red zones."""

    def __init__(self, device):
        self.device, self.buffers = device, []

    def empty(self, shape, dtype):
        """A contiguous tensor that is NaN throughout until somebody writes it."""
        size = torch.Size(shape).numel() * dtype.itemsize
        buffer = torch.full((RED + size + RED,), 255, dtype=torch.uint8, device=self.device)
        self.buffers.append(buffer)
        return buffer[RED : RED + size].view(dtype).view(shape)

    def copy(self, tensor):
        """The same numbers, as a leaf where it was one."""
        surrounded = self.empty(tensor.shape, tensor.dtype)
        surrounded.copy_(tensor.detach())
        return surrounded.requires_grad_(tensor.requires_grad)

    def are_untouched(self):
        """Whether all red zones are still red."""
        return all(bool((buffer[:RED] == 255).all() and (buffer[-RED:] == 255).all()) for buffer in self.buffers)


@pytest.fixture
def surrounded(place, monkeypatch):
    """What the launcher allocates while a test runs, it gets between red zones."""
    memory = Surrounded(place.device)

    def new_empty(self, *size, dtype=None, **_):
        shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        return memory.empty(shape, dtype or self.dtype)

    def empty_like(self, **_):
        return memory.empty(self.shape, self.dtype)

    def new_zeros(self, *size, **more):
        return new_empty(self, *size, **more).zero_()

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "new_empty", new_empty)
        patched.setattr(torch.Tensor, "new_zeros", new_zeros)
        patched.setattr(torch, "empty_like", empty_like)
        yield memory


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_reads_and_writes_its_tensors_alone_and_all_of_them(place, surrounded, case):
    plain = draw(place.size(case), place.device)
    before = len(surrounded.buffers)
    output, lse, gradients = triton(plain, lse_counts=True)
    assert len(surrounded.buffers) - before >= 6  # output, log-sum-exp, delta, three gradients
    assert all(tensor.isfinite().all() for tensor in (output, lse, *gradients))
    options = dict(plain.options)
    if options["document"] is not None:
        options["document"] = kernels.Documents(*map(surrounded.copy, kernels.documents(options["document"])))
    leaves = [surrounded.copy(leaf) for leaf in plain.leaves]
    among_red = Tensors(leaves, surrounded.copy(plain.upstream), surrounded.copy(plain.lse_upstream), options)
    again = triton(among_red, lse_counts=True)
    for got, expected in zip((*again[:2], *again[2]), (output, lse, *gradients), strict=True):
        assert torch.equal(got, expected)
    assert surrounded.are_untouched()


@pytest.mark.parametrize("wider", [0, 1], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("name", ["documents", "head size 128", "fp32"])
def test_rows_beside_a_view_are_not_read(place, name, wider):
    """A slice in time of longer rows, between NaN: the ends of a row are not the ends of memory.

    With heads that are one number wider, no stride is a multiple of 16 bytes, as descriptors want it.
    """
    tensors = draw(place.size(CASES[name]), place.device)
    expected = triton(tensors, lse_counts=True)

    def within(tensor, axis, wider=wider):
        wide = list(tensor.shape)
        wide[axis] += 128
        wide[-1] += wider
        view = torch.full(wide, float("nan"), dtype=tensor.dtype, device=tensor.device)
        view = view.narrow(axis, 64, tensor.shape[axis]).narrow(-1, 0, tensor.shape[-1])
        view.copy_(tensor.detach())
        return view.requires_grad_(tensor.requires_grad)

    leaves = [within(leaf, 1) for leaf in tensors.leaves]
    lse_upstream = within(tensors.lse_upstream, 2, wider=0)
    got = triton(Tensors(leaves, within(tensors.upstream, 1), lse_upstream, tensors.options), lse_counts=True)
    for one, other in zip((*got[:2], *got[2]), (*expected[:2], *expected[2]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)  # other tiles, perhaps, so other roundings
        assert one.isfinite().all()


@pytest.mark.parametrize("head_size", [64, 80, 128])
def test_strides_of_a_fused_projection(place, head_size):
    """q, k and v are parts of one tensor, and their gradients flow back into it; nothing is copied on the way."""
    case = place.size(Case(2000, heads=8, groups=2, head_size=head_size, documents=300, batch=2))
    plain = draw(case, place.device)
    expected = triton(plain, lse_counts=False)
    fused = torch.cat([leaf.detach() for leaf in plain.leaves], dim=2).flatten(2).requires_grad_()

    heads = fused.unflatten(-1, (-1, head_size))
    q, k, v = heads.split([case.heads, case.groups, case.groups], dim=2)
    assert not q.is_contiguous()
    with kernels.use("triton"):
        output = kernels.attention(q, k, v, **plain.options)
    (gradient,) = torch.autograd.grad(output, fused, plain.upstream)
    parts = gradient.unflatten(-1, (-1, head_size)).split([case.heads, case.groups, case.groups], dim=2)
    assert torch.equal(output, expected[0])
    assert all(torch.equal(part, other) for part, other in zip(parts, expected[2], strict=True))


def test_other_layouts_give_the_same(place):
    """[batch, heads, time, head size] in memory, a head size that is not the last, and a gradient without strides."""
    case = place.size(Case(500, heads=4, groups=2, head_size=64, batch=2))
    plain = draw(case, place.device)
    plain.upstream = torch.ones_like(plain.upstream)
    expected = triton(plain, lse_counts=False)
    for order in ((0, 2, 1, 3), (0, 3, 2, 1), (3, 2, 1, 0)):
        back = [order.index(axis) for axis in range(4)]
        leaves = [leaf.detach().permute(order).contiguous().permute(back).requires_grad_() for leaf in plain.leaves]
        upstream = torch.ones((), dtype=case.dtype, device=place.device).expand_as(plain.upstream)
        got = triton(Tensors(leaves, upstream, plain.lse_upstream, plain.options), lse_counts=False)
        for one, other in zip((*got[:2], *got[2]), (*expected[:2], *expected[2]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    "case",
    [
        Case(8192, documents=512),
        Case(4096, heads=64, groups=8, head_size=64, sink=True, window=1000),
        Case(2048, dtype=torch.float32, head_size=64),
        Case(2048, causal=False, head_size=256, heads=8, groups=1),
    ],
    ids=["documents", "sink and window", "fp32", "bidirectional, one key-value head"],
)
def test_every_run_gives_the_same_bits(place, case):
    tensors = draw(place.size(case), place.device)
    first = triton(tensors, lse_counts=True)
    for _ in range(1 if place.tiny else 5):
        again = triton(tensors, lse_counts=True)
        for one, other in zip((*first[:2], *first[2]), (*again[:2], *again[2]), strict=True):
            assert torch.equal(one, other)
