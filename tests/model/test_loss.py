"""The loss in chunks against the formulas in float64 and torch's cross entropy, and what it holds in memory."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from framework.config import LossConfig
from framework.errors import UserError
from framework.model.loss import CHUNK_LOGITS, chunk_tokens, summed_losses, token_losses
from tests.kernels.memory import peak_bytes
from tests.model.shapes import CONFIGS, random_model, random_tokens

BATCH, TIME, HIDDEN, VOCABULARY = 3, 10, 8, 37
SETTINGS = {
    "plain": {},
    "z-loss": {"z_loss": 0.03},
    "smoothed": {"label_smoothing": 0.2},
    "both": {"z_loss": 0.03, "label_smoothing": 0.2},
}
CHUNKS = {"one chunk": 30, "chunks": 7}  # of the 30 tokens; 7 leaves a rest


def inputs(dtype=torch.float32):
    """Hidden states, weight and labels of which some count for nothing."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(BATCH, TIME, HIDDEN, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(VOCABULARY, (BATCH, TIME), generator=generator)
    labels[0, 3:6] = labels[2, -1] = -100
    return x, weight, labels


def reference(x, weight, labels, z_loss=0.0, label_smoothing=0.0):
    """Objective, likelihood, z-loss and gradients in float64, by the formulas, token by token."""
    x, weight = (t.detach().double().requires_grad_() for t in (x, weight))
    objective = likelihood = z = 0.0
    for row in range(BATCH):
        for time in range(TIME):
            if labels[row, time] == -100:
                continue
            logits = weight @ x[row, time]
            log_z = logits.exp().sum().log()
            log_p = logits - log_z
            target = torch.full((VOCABULARY,), label_smoothing / VOCABULARY, dtype=torch.float64)
            target[labels[row, time]] += 1 - label_smoothing
            objective = objective - (target * log_p).sum() + z_loss * log_z**2
            likelihood = likelihood - log_p[labels[row, time]]
            z = z + z_loss * log_z**2
    objective.backward()
    return [float(torch.as_tensor(loss).detach()) for loss in (objective, likelihood, z)], x.grad, weight.grad


@pytest.mark.parametrize("size", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_losses_and_gradients_are_those_of_the_formulas(settings, size):
    x, weight, labels = inputs()
    losses, x_gradient, weight_gradient = reference(x, weight, labels, **settings)
    found = summed_losses(x, weight, labels, LossConfig(**settings, chunk_tokens=size))
    assert [loss.item() for loss in found] == pytest.approx(losses, rel=1e-5)
    assert [loss.requires_grad for loss in found] == [True, False, False]
    (found[0] * 0.25).backward()
    torch.testing.assert_close(x.grad.double(), 0.25 * x_gradient, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weight.grad.double(), 0.25 * weight_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_default_is_to_the_last_bit_what_torch_gives_for_whole_logits(smoothing):
    x, weight, labels = inputs()
    objective, likelihood, _ = summed_losses(x, weight, labels, LossConfig(label_smoothing=smoothing))
    gradients = torch.autograd.grad(objective, (x, weight))
    entropy = partial(F.cross_entropy, F.linear(x, weight).flatten(0, 1), labels.flatten(), reduction="sum")
    expected = entropy(label_smoothing=smoothing)
    assert (objective.item(), likelihood.item()) == (expected.item(), entropy().item())
    for gradient, other in zip(gradients, torch.autograd.grad(expected, (x, weight)), strict=True):
        assert torch.equal(gradient, other)


@pytest.mark.parametrize("size", CHUNKS.values(), ids=CHUNKS)
def test_losses_of_tokens_are_those_of_torch(size):
    x, weight, labels = inputs()
    expected = F.cross_entropy(F.linear(x, weight).flatten(0, 1), labels.flatten(), reduction="none")
    found = token_losses(x, weight, labels, LossConfig(chunk_tokens=size, z_loss=1.0))
    torch.testing.assert_close(found.flatten(), expected.detach())
    assert not found.requires_grad


@pytest.mark.parametrize("size", CHUNKS.values(), ids=CHUNKS)
def test_low_precision_weights_have_an_fp32_loss(size):
    x, weight, labels = inputs(torch.bfloat16)
    losses, x_gradient, weight_gradient = reference(x, weight, labels)
    objective, likelihood, _ = summed_losses(x, weight, labels, LossConfig(chunk_tokens=size))
    assert objective.dtype == likelihood.dtype == torch.float32
    assert likelihood.item() == pytest.approx(losses[1], rel=1e-2)
    objective.backward()
    for gradient, expected in ((x.grad, x_gradient), (weight.grad, weight_gradient)):
        assert gradient.dtype == torch.bfloat16
        torch.testing.assert_close(gradient.double(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("size", CHUNKS.values(), ids=CHUNKS)
def test_without_any_label_everything_is_zero(size):
    x, weight, labels = inputs()
    losses = summed_losses(x, weight, torch.full_like(labels, -100), LossConfig(chunk_tokens=size, z_loss=0.1))
    losses[0].backward()
    assert [loss.item() for loss in losses] == [0.0, 0.0, 0.0]
    assert not x.grad.any()
    assert not weight.grad.any()


@pytest.mark.parametrize("name", ["llama", "gpt2"])  # tied and not
def test_a_model_learns_the_same_from_chunks(name):
    config = CONFIGS[name]
    tokens, gradients = random_tokens(config, 2, 20), []
    for size in (0, 7):
        model = random_model(config).double()
        head = partial(summed_losses, labels_BT=tokens, config=LossConfig(chunk_tokens=size))
        model(tokens, head=head)[0].backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_logits_of_a_large_vocabulary_never_stand_in_memory_whole():
    tokens, vocabulary, hidden = 32, 128_000, 2
    x = torch.randn(2, tokens // 2, hidden).requires_grad_()
    weight = torch.randn(vocabulary, hidden).requires_grad_()
    labels = torch.randint(vocabulary, (2, tokens // 2))

    def step(size):
        config = LossConfig(chunk_tokens=size, z_loss=1e-4, label_smoothing=0.1)
        summed_losses(x, weight, labels, config)[0].backward()
        token_losses(x, weight, labels, config)

    of_all = 4 * tokens * vocabulary
    assert peak_bytes(partial(step, tokens)) > of_all
    assert peak_bytes(partial(step, 8)) < of_all


def test_by_default_a_chunk_has_a_bounded_number_of_logits():
    assert chunk_tokens(LossConfig(), 128_000) * 128_000 <= CHUNK_LOGITS
    assert chunk_tokens(LossConfig(), 4096) == 16_384
    assert chunk_tokens(LossConfig(), 2 * CHUNK_LOGITS) == 1
    assert chunk_tokens(LossConfig(chunk_tokens=5), 128_000) == 5


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"z_loss": -1.0}, "loss.z_loss: is -1.0; "),
        ({"label_smoothing": 1.0}, "loss.label_smoothing: is 1.0; "),
        ({"chunk_tokens": -1}, "loss.chunk_tokens: is -1; "),
    ],
)
def test_bad_settings_are_named(settings, field):
    with pytest.raises(UserError, match=f"^{field}"):
        LossConfig(**settings).check()
