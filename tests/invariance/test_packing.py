"""Documents packed into rows, or each in a padded row of its own: the same loss and the same gradients."""

import pytest
import torch

import kernels
from framework.config import LossConfig
from framework.model.loss import IGNORED_LABEL, summed_losses
from tests.model.shapes import CONFIGS, random_model

LENGTHS = (9, 14, 7, 20, 1, 9)  # two rows of thirty tokens
ROW = 30


def losses_and_gradients(model, tokens, labels, document):
    model.zero_grad()
    objective, *_ = model(tokens, document, head=lambda x, weight: summed_losses(x, weight, labels, LossConfig()))
    objective.backward()
    return objective.detach(), [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("attention", ["sdpa", "reference"])
@pytest.mark.parametrize("name", CONFIGS)
def test_packing_is_padding(name, attention):
    model = random_model(CONFIGS[name]).double()
    generator = torch.Generator().manual_seed(0)
    packed, labels = torch.randint(96, (2, 2, ROW), generator=generator)
    document = torch.repeat_interleave(torch.arange(6), torch.tensor(LENGTHS)).view(2, ROW)
    alone = torch.zeros(6, max(LENGTHS), dtype=torch.int64)
    alone_labels = torch.full_like(alone, IGNORED_LABEL)
    for number, length in enumerate(LENGTHS):
        alone[number, :length] = packed[document == number]
        alone_labels[number, :length] = labels[document == number]
    # an encoder would see the padding: it is a document of its own
    alone_document = (alone_labels == IGNORED_LABEL).int()
    with kernels.use(attention):
        loss, gradients = losses_and_gradients(model, packed, labels, document.int())
        expected, expected_gradients = losses_and_gradients(model, alone, alone_labels, alone_document)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)  # the model is in float64, the loss in fp32
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
