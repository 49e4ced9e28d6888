"""Linear cross-entropy by torch in chunks: against float64 within derived bounds, its memory, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import cross_entropy
from tests.kernels.exact_cross_entropy import linear_cross_entropy, share_of_bound
from tests.kernels.memory import peak_bytes

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
OPTIONS = {
    "plain": {},
    "z-loss": {"z_loss": 0.03},
    "smoothed": {"label_smoothing": 0.2},
    "both": {"z_loss": 0.03, "label_smoothing": 0.2},
}
UPSTREAM = 0.25


def problem(tokens, hidden, vocabulary, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, hidden, generator=generator).to(dtype).requires_grad_()
    weight = (3 * hidden**-0.5 * torch.randn(vocabulary, hidden, generator=generator)).to(dtype).requires_grad_()
    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    labels[::5] = -100
    return x, weight, labels


def check(x, weight, labels, chunk_logits, **options):
    losses = kernels.linear_cross_entropy(x, weight, labels, chunk_logits=chunk_logits, **options)
    gradients = torch.autograd.grad(losses[0] * UPSTREAM, (x, weight))
    assert [loss.dtype for loss in losses] == [torch.float32] * 3
    assert [loss.requires_grad for loss in losses] == [True, False, False]
    assert [gradient.dtype for gradient in gradients] == [x.dtype, weight.dtype]
    exact = linear_cross_entropy(x, weight, labels, UPSTREAM, **options)
    assert share_of_bound([*losses, *gradients], exact) <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_losses_and_gradients_are_within_their_bounds(options, dtype):
    check(*problem(37, 23, 331, dtype), 37 * 50, **options)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(1, 30), st.integers(1, 40), st.integers(1, 90), st.sampled_from(DTYPES),
    st.sampled_from(list(OPTIONS)), st.integers(1, 500),
)  # fmt: skip
def test_odd_sizes_and_chunks(tokens, hidden, vocabulary, dtype, options, chunk_logits):
    chunk_logits = min(chunk_logits, tokens * vocabulary - 1) or 1  # at the number of logits it is torch's own
    if tokens * vocabulary > 1 or dtype == torch.float32:
        check(*problem(tokens, hidden, vocabulary, dtype), chunk_logits, **OPTIONS[options])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_float64_is_computed_in_float64(options):
    x, weight, labels = problem(11, 7, 40, torch.float64)
    z_loss, smoothing = (options.get(name, 0.0) for name in ("z_loss", "label_smoothing"))
    logits = x @ weight.T
    squares = logits.logsumexp(1).square()[labels != -100]
    expected = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing) + z_loss * squares.sum()
    objective, *_, log_sum = cross_entropy.forward(x, weight, labels, z_loss, smoothing, 50, False)
    assert log_sum.dtype == torch.float64
    assert objective.item() == expected.float().item()
    for one, other in zip(*(torch.autograd.grad(o, (x, weight)) for o in (objective, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_reference_and_few_logits_are_torchs_own_to_the_last_bit():
    x, weight, labels = problem(37, 23, 331)
    expected = F.cross_entropy(F.linear(x, weight), labels, reduction="sum", label_smoothing=0.2)
    objective, *_ = kernels.linear_cross_entropy(x, weight, labels, label_smoothing=0.2, chunk_logits=37 * 331)
    with kernels.use("reference"):
        other, *_ = kernels.linear_cross_entropy(x, weight, labels, label_smoothing=0.2, chunk_logits=1)
    assert objective.item() == other.item() == expected.item()
    gradients = [torch.autograd.grad(loss, (x, weight)) for loss in (objective, other, expected)]
    for one, two, three in zip(*gradients, strict=True):
        assert torch.equal(one, three)
        assert torch.equal(two, three)


def test_without_any_label_and_without_any_token_everything_is_zero():
    for tokens in (20, 0):
        x, weight, labels = problem(tokens, 16, 70)
        losses = kernels.linear_cross_entropy(
            x, weight, torch.full_like(labels, -100), **OPTIONS["both"], chunk_logits=90
        )
        gradients = torch.autograd.grad(losses[0], (x, weight))
        assert [loss.item() for loss in losses] == [0.0, 0.0, 0.0]
        assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("label", [70, -1])
def test_a_label_that_is_no_entry_makes_the_loss_no_number(label):
    x, weight, labels = problem(20, 16, 70)
    labels[3] = label
    assert kernels.linear_cross_entropy(x, weight, labels, chunk_logits=90)[0].isnan()


def test_only_the_gradient_of_the_weight_grows_with_the_vocabulary():
    tokens, hidden, chunk_logits = 256, 4, 2**15
    beyond = []
    for vocabulary in (2**11, 2**15):
        x, weight, labels = problem(tokens, hidden, vocabulary)

        def step(x=x, weight=weight, labels=labels):
            losses = kernels.linear_cross_entropy(x, weight, labels, **OPTIONS["both"], chunk_logits=chunk_logits)
            losses[0].backward()

        beyond.append(peak_bytes(step) - weight.nbytes)
    small, large = beyond
    assert large <= small + 1024  # the logits of all would be 32 MiB more
    assert small < 4 * (4 * chunk_logits) + 40 * tokens * hidden


def test_the_peak_is_of_what_stands_at_a_time():
    def compute():
        for _ in range(3):
            torch.empty(1000, dtype=torch.float64)

    assert peak_bytes(compute) == 8000


def test_the_operations_are_what_torch_expects_of_one():
    x, weight, labels = problem(20, 16, 70)
    assert set(torch.library.opcheck(cross_entropy.forward, (x, weight, labels, 0.03, 0.2, 90, False)).values()) == {
        "SUCCESS"
    }
    *_, log_sum = cross_entropy.forward(x, weight, labels, 0.03, 0.2, 90, False)
    arguments = (torch.tensor(0.5), x.detach(), weight.detach(), labels, log_sum.detach(), 0.03, 0.2, 90, False)
    assert set(torch.library.opcheck(cross_entropy.backward, arguments).values()) == {"SUCCESS"}


def test_autocast_is_followed():
    x, weight, labels = problem(20, 16, 70)
    expected = kernels.linear_cross_entropy(x.bfloat16(), weight.bfloat16(), labels, chunk_logits=90)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = kernels.linear_cross_entropy(x, weight, labels, chunk_logits=90)
        gradients = torch.autograd.grad(found[0], (x, weight))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    for gradient, other in zip(gradients, torch.autograd.grad(expected[0], (x, weight)), strict=True):
        assert torch.equal(gradient, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4, 7)}, r"go together; got x \[4, 7\]"),
        ({"x": torch.zeros(2, 2, 8)}, "go together"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, "go together"),
        ({"weight": torch.zeros(0, 8)}, "must have an entry"),
        ({"labels": torch.zeros(4, dtype=torch.int32)}, "int64; got torch.int32"),
        ({"weight": torch.zeros(9, 8, dtype=torch.int64)}, "floating point"),
        ({"weight": torch.zeros(9, 8, dtype=torch.float64)}, "one dtype; got torch.float32 and torch.float64"),
        ({"weight": torch.zeros(9, 8, device="meta")}, "one device; got cpu, meta"),
        ({"z_loss": -1.0}, "z_loss=-1.0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"chunk_logits": 0}, "chunk_logits=0"),
    ],
)
def test_what_does_not_go_together_is_refused(change, message):
    fitting = {"x": torch.zeros(4, 8), "weight": torch.zeros(9, 8), "labels": torch.zeros(4, dtype=torch.int64)}
    with pytest.raises(ValueError, match=message):
        kernels.linear_cross_entropy(**{**fitting, "chunk_logits": 20, **change})


def test_triton_asks_for_a_gpu():
    if kernels.INTERPRETED:
        pytest.skip("the interpreter takes tensors of the CPU")
    with kernels.use("triton"), pytest.raises(ValueError, match="need tensors on a GPU, got cpu"):
        kernels.linear_cross_entropy(*problem(4, 8, 9))
