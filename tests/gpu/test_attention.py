"""The Triton kernels at real sizes against float64, and beside torch's own attention in the same dtype.

Bounds. u is the dtype's unit roundoff (2^-8 for bf16, 2^-11 for fp16, 2^-24 for fp32), which one rounding to nearest
changes a number by at most, relatively; so n roundings in a row change the norm of a tensor by at most n u.

- Output: probabilities are rounded before they are multiplied with v, and the output once more: 2 u.
- Gradients: the output that delta is made of, p, the gradient of the scores, and the result: 4 u.
- What is left in fp32 hardly counts in half precision, but it is all there is in fp32: scores of up to 2^3 in units of
  log2 rounded to 2^-24, and exp2 of the hardware within 2^-22: 2^3 x 2^-24 + 2^-22, taken twice, once forward and once
  backward, 1.5 x 2^-20; sums of 8k terms add a part of that. ROUNDED_SCORES is 2^-19. tanh is good to 2^-23 of 1 and
  multiplied by the soft cap.
- Any 32 rows of a head: twice the bound of the whole, so that a single row that is wrong (about 0.2 of them) is seen.
- Beside torch's attention: at most twice its error, plus u and what scores in fp32 cost. It may do more in fp32.
- Log-sum-exp is fp32 throughout: products of D numbers, each rounded to 2^-24 of scores up to 2^4.
"""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import kernels
from tests.gpu import exact
from tests.gpu.cases import CASES, draw

pytestmark = pytest.mark.gpu

# without cuDNN, which refuses some masks of odd sizes
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
ROUNDED_SCORES = 2.0**-19
BLOCK = 32  # rows
# Root mean square that a gradient is taken to have at least. It has ten times that and more, except where each query
# sees a single key: there q's and k's are the difference of equal numbers of about 1, nothing but rounding.
CANCELLED = 1e-3


def unit_roundoff(dtype):
    return torch.finfo(dtype).eps / 2


def error(got, expected, least):
    """||got - expected|| / ||expected||, of the whole tensor."""
    return float((got.double() - expected).norm() / expected.norm().clamp_min(least * expected.numel() ** 0.5))


def worst_block(got, expected, least):
    """The same of the worst 32 rows of a head; where hardly anything is expected, of a tenth of what is usual."""

    def norms(tensor):
        padded = F.pad(tensor, (0, 0, 0, 0, 0, -tensor.shape[1] % BLOCK))
        return padded.unflatten(1, (-1, BLOCK)).norm(dim=(2, 4))

    usual = 0.1 * norms(expected).square().mean().sqrt() + least * (BLOCK * expected.shape[3]) ** 0.5
    return float((norms(got.double() - expected) / norms(expected).clamp_min(usual)).max())


def triton(tensors, lse_counts):
    """Output, log-sum-exp and gradients of ours."""
    with kernels.use("triton"):
        output, lse = kernels.attention(*tensors.leaves[:3], sink=tensors.sink, return_lse=True, **tensors.options)
    upstream = [tensors.upstream, tensors.lse_upstream] if lse_counts else [tensors.upstream]
    gradients = torch.autograd.grad([output, lse][: len(upstream)], tensors.leaves, upstream)
    return output.detach(), lse.detach(), gradients


def torchs(tensors):
    """Output and gradients of `scaled_dot_product_attention` in the same dtype, row by row: it wants the whole mask.

    Keys and values are repeated for their heads, and the gradients of these summed in float64, to its advantage.
    """
    q, k, v = (leaf.detach() for leaf in tensors.leaves[:3])
    shared = q.shape[2] // k.shape[2]
    rows = []
    for row in range(len(q)):
        leaves = [x[row].transpose(0, 1)[None] for x in (q, *(x.repeat_interleave(shared, 2) for x in (k, v)))]
        leaves = [leaf.contiguous().requires_grad_() for leaf in leaves]
        triangle = tensors.options["causal"] and tensors.options["document"] is None and not tensors.options["window"]
        triangle = triangle and q.shape[1] == k.shape[1]
        with sdpa_kernel(BACKENDS):
            output = F.scaled_dot_product_attention(
                *leaves,
                attn_mask=None if triangle else exact.written_mask(tensors.leaves, tensors.options, row),
                is_causal=triangle,
                scale=tensors.options["scale"],
            )
        gradients = torch.autograd.grad(output, leaves, tensors.upstream[row].transpose(0, 1)[None])
        q_gradient, *key_gradients = (x[0].transpose(0, 1).double() for x in (gradients))
        summed = [x.unflatten(1, (-1, shared)).sum(2) for x in key_gradients]
        rows.append((output.detach()[0].transpose(0, 1), q_gradient, *summed))
    return [torch.stack(tensors) for tensors in zip(*rows, strict=True)]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_float64_as_nearly_as_torchs_own_does(place, case):
    case = place.size(case)
    tensors = draw(case, place.device)
    lse_counts = case.sink or case.softcap > 0  # what torch's own attention has no place for anyway
    output, lse, gradients = triton(tensors, lse_counts)
    expected = exact.attention(
        tensors.leaves, tensors.upstream, tensors.lse_upstream if lse_counts else None, **tensors.options
    )

    u = unit_roundoff(case.dtype)
    in_scores = ROUNDED_SCORES + case.softcap * 2.0**-22
    least = CANCELLED * (1 if case.scale is None else case.scale * case.head_size**0.5)
    names = ("output", "q's gradient", "k's gradient", "v's gradient", "sink's gradient")
    ours = dict(zip(names, (output, *gradients), strict=False))
    wanted = dict(zip(names, (expected.output, *expected.gradients), strict=False))
    for name, got in ours.items():
        assert got.isfinite().all(), name
        bound = (2 if name == "output" else 4) * u + in_scores
        assert error(got, wanted[name], least) <= bound, name
        if name != "sink's gradient":
            assert worst_block(got, wanted[name], least) <= 2 * bound, name
    seen = expected.lse > float("-inf")
    assert torch.equal(lse == float("-inf"), ~seen)
    torch.testing.assert_close(
        lse[seen].double(), expected.lse[seen], rtol=0, atol=case.head_size * 2.0**-20 + case.softcap * 2.0**-22
    )

    if not lse_counts and bool(seen.all()):
        for name, other in zip(names, torchs(tensors), strict=False):
            theirs = error(other, wanted[name], least)
            assert error(ours[name], wanted[name], least) <= 2 * theirs + u + in_scores, name


@pytest.mark.parametrize("name", ["queries before every key", "queries before every key, sink"])
def test_a_query_that_sees_nothing_gives_zeros(place, name):
    case = place.size(CASES[name])
    tensors = draw(case, place.device)
    output, lse, gradients = triton(tensors, lse_counts=case.sink)
    blind = case.queries - case.key_time
    assert blind > 0
    assert not output[:, :blind].any()
    assert not gradients[0][:, :blind].any()
    assert output[:, blind:].any(dim=-1).all()
    expected = tensors.sink.detach()[:, None] if case.sink else torch.tensor(float("-inf"), device=place.device)
    torch.testing.assert_close(
        lse[..., :blind], expected.expand_as(lse[0, :, :blind])[None].expand_as(lse[..., :blind])
    )
    assert all(gradient.isfinite().all() for gradient in gradients)
