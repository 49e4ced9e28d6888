"""Linear cross-entropy by the Triton kernels at real sizes: against float64, in memory, and from run to run.

Bounds, in the norm of a whole tensor, in units u of the dtype (2^-8 for bf16, 2^-11 for fp16): the gradient of the
logits is rounded once, and the gradients of x and weight once more: 2 u, and as much again for what cuBLAS may round
between parts of a sum. In fp32 logits of up to 2^4 are rounded to 2^-24 of their size, and exp2 of the hardware is
within 2^-22: 2^-19 is more than both. Losses are fp32 sums of fp32 numbers: 2^-19 too.
"""

import pytest
import torch
import torch.nn.functional as F

import kernels

pytestmark = pytest.mark.gpu

UNIT = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-21}
SINGLE = 2.0**-19
OPTIONS = {"z_loss": 1e-3, "label_smoothing": 0.1}
SHAPES = {  # tokens, hidden size, vocabulary
    "aligned": (4096, 1024, 32_000),
    "large vocabulary": (1000, 512, 128_256),
    "nothing divides": (777, 97, 50_257),
}


def problem(place, shape, dtype, seed=0):
    tokens, hidden, vocabulary = (place.length(size) for size in shape)
    generator = torch.Generator(place.device).manual_seed(seed)

    def draw(rows, scale):
        values = torch.randn(rows, hidden, generator=generator, device=place.device)
        return (scale * values).to(dtype).requires_grad_()

    x, weight = draw(tokens, 1.0), draw(vocabulary, 2 * hidden**-0.5)
    labels = torch.randint(vocabulary, (tokens,), generator=generator, device=place.device)
    labels[::7] = -100
    return x, weight, labels


def step(x, weight, labels, **options):
    with kernels.use("triton"):
        losses = kernels.linear_cross_entropy(x, weight, labels, **options)
    return [*(loss.detach() for loss in losses), *torch.autograd.grad(losses[0] * 0.25, (x, weight))]


def exact(x, weight, labels, rows=512):
    """In float64, `rows` tokens at a time, that the logits fit."""
    w = weight.detach().double()
    sums, x_gradients, weight_gradient = [], [], torch.zeros_like(w)
    for x_part, label in zip(x.detach().double().split(rows), labels.split(rows), strict=True):
        leaf = x_part.requires_grad_()
        logits = leaf @ w.T
        z = OPTIONS["z_loss"] * logits.logsumexp(1).square().where(label != -100, 0.0).sum()
        smooth = F.cross_entropy(logits, label, reduction="sum", label_smoothing=OPTIONS["label_smoothing"])
        (by_logits,) = torch.autograd.grad(0.25 * (smooth + z), logits)
        sums.append(torch.stack([smooth + z, F.cross_entropy(logits, label, reduction="sum"), z]).detach())
        x_gradients.append(by_logits @ w)
        weight_gradient += by_logits.T @ x_part.detach()
    return [*torch.stack(sums).sum(0), torch.cat(x_gradients), weight_gradient]


@pytest.mark.parametrize("dtype", UNIT)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_losses_and_gradients_are_those_of_float64(place, shape, dtype):
    inputs = problem(place, shape, dtype)
    for number, (found, expected) in enumerate(zip(step(*inputs, **OPTIONS), exact(*inputs), strict=True)):
        error = float((found.double() - expected).norm() / expected.norm())
        assert error <= (SINGLE if number < 3 else 4 * UNIT[dtype])


def test_every_run_gives_the_same_bits(place):
    inputs = problem(place, SHAPES["nothing divides"], torch.bfloat16)
    first = step(*inputs, **OPTIONS)
    for _ in range(3):
        assert all(torch.equal(one, other) for one, other in zip(step(*inputs, **OPTIONS), first, strict=True))


def test_the_peak_does_not_grow_with_the_vocabulary_but_for_the_gradient_of_the_weight(place):
    if place.tiny:
        pytest.skip("a CPU has no such record; tests/kernels has one of its allocator")
    beyond = []
    for vocabulary in (16_384, 131_072):
        x, weight, labels = problem(place, (4096, 256, vocabulary), torch.bfloat16)
        step(x, weight, labels)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(x, weight, labels, chunk_logits=2**24)
        torch.cuda.synchronize()
        beyond.append(torch.cuda.max_memory_allocated() - before - weight.nbytes)
    small, large = beyond
    assert large <= small + 2**20  # the logits of all would be 1 GiB
    assert small < 2**26


def test_a_weight_of_more_than_2_to_the_31_numbers(place):
    if place.tiny:
        pytest.skip("tests/interpreter has one with rows far apart")
    x, weight, labels = problem(place, (64, 16_512, 131_072), torch.bfloat16)  # 4.3 GB
    labels[0] = len(weight) - 1
    found = step(x, weight, labels)
    last = slice(-256, None)
    logits = x.detach().double() @ weight.detach()[last].double().T
    target = (labels[:, None] == torch.arange(len(weight), device=x.device)[last]).double()
    log_z = torch.cat([(x.detach() @ part.T).double() for part in weight.detach().split(8192)], 1).logsumexp(1)
    by_logits = 0.25 * ((logits - log_z[:, None]).exp() - target) * (labels != -100)[:, None]
    expected = by_logits.T @ x.detach().double()
    assert float((found[-1][last].double() - expected).norm() / expected.norm()) < 2.0**-6


def test_it_is_captured_in_a_graph(place):
    if place.tiny:
        pytest.skip("a CPU has no graphs")
    x, weight, labels = problem(place, SHAPES["nothing divides"], torch.bfloat16)
    expected = step(x, weight, labels)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(x, weight, labels)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step(x, weight, labels)
    graph.replay()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
