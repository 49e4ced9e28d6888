"""Training with the Triton kernels beside training with torch's own attention: one loss, but for bf16's rounding.

What bf16's rounding does is measured, not guessed: the same training is run with torch's attention by another backend,
whose roundings are others, and with the rows of each batch in another order. The losses of such a pair of runs drift
apart; so far may those of Triton and torch drift, times three, for a run is one draw of what chance may do.

A training forgives small errors and learns around them; for those there is `test_attention`. This one sees what the
parts do together: a mask or a gradient that is not what the model was told it is.
"""

import math
import statistics

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import kernels

pytestmark = pytest.mark.gpu

STEPS, VOCABULARY, LAG = 200, 64, 5
SIMILAR = 3  # times the drift of two runs that differ by rounding alone


def model_for(place):
    from framework.config import ModelConfig  # neither needs Hydra or DeepSpeed
    from framework.model.transformer import Transformer, initialize

    # as many key-value heads as heads: torch has two backends for that with a mask, and one for grouped queries
    large = {"hidden_size": 512, "layers": 4, "heads": 8, "head_size": 64}
    tiny = {"hidden_size": 32, "layers": 1, "heads": 2, "head_size": 16}
    config = ModelConfig(vocabulary_size=VOCABULARY, maximum_positions=1024, **(tiny if place.tiny else large))
    model = Transformer(config)
    initialize(model, config, seed=0)
    return model.to(place.device)


def batches(place, steps):
    """Rows of documents; a token is one of two that may follow that LAG places before, which attention has to find."""
    generator = torch.Generator().manual_seed(0)
    following = torch.randint(VOCABULARY, (VOCABULARY, 2), generator=generator)
    rows, time = (2, 32) if place.tiny else (8, 1024)
    for _ in range(steps):
        choices = torch.randint(2, (time + 1 - LAG, rows), generator=generator)
        tokens = list(torch.randint(VOCABULARY, (LAG, rows), generator=generator))
        for choice in choices:
            tokens.append(following[tokens[-LAG], choice])
        row = torch.stack(tokens, dim=1)
        document = (torch.rand(rows, time, generator=generator) < 8 / time).cumsum(1).int()
        yield row.to(place.device), document.to(place.device)


def losses(place, steps, attention, order=None):
    """Of a run from the same seed on the same batches, with the rows in that order."""
    model = model_for(place)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    found = []
    for step, (tokens, document) in enumerate(batches(place, steps)):
        if order is not None:
            tokens, document = tokens[order], document[order]
        optimizer.param_groups[0]["lr"] = 1e-3 * min((step + 1) / 20, 1)
        with kernels.use(attention), torch.autocast("cuda", torch.bfloat16, enabled=not place.tiny):
            logits = model(tokens[:, :-1], document)
            loss = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found.append(loss.detach())
    return torch.stack(found).tolist()


def drift(one, other):
    """Mean distance of two courses of the loss."""
    return statistics.fmean(abs(here - there) for here, there in zip(one, other, strict=True))


def test_the_loss_goes_the_way_it_goes_with_torchs_attention(place, record_property):
    steps = 4 if place.tiny else STEPS
    backwards = torch.arange(2 if place.tiny else 8, device=place.device).flip(0)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION if place.tiny else SDPBackend.EFFICIENT_ATTENTION]):
        torchs = losses(place, steps, "sdpa")
        rounding = {"rows in another order": drift(torchs, losses(place, steps, "sdpa", order=backwards))}
    with sdpa_kernel([SDPBackend.MATH]):
        rounding["another backend"] = drift(torchs, losses(place, steps, "sdpa"))
    ours = losses(place, steps, "triton")
    apart = drift(torchs, ours)

    told = {"torch": torchs[-1], "triton": ours[-1], "apart": apart, **rounding}
    print(f"{steps} steps:", ", ".join(f"{name} {value:.3g}" for name, value in told.items()))
    for name, value in told.items():
        record_property(name, value)
    assert apart <= SIMILAR * max(rounding.values()) + 1e-6
    if not place.tiny:
        assert ours[0] > math.log(VOCABULARY) - 0.5
        assert ours[-1] < 0.7 * ours[0]  # it did learn: 2 tokens may follow, so the least is log 2
