"""Training a part of a model on two ranks, at every ZeRO stage, against a loop of plain torch."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from framework.stream.loader import NO_LOSS
from tests.launch import start_ranks
from tests.training.frozen_ranks import CASES, FROZEN, SHARES, frozen_model
from tests.training.optimizer_ranks import HALF, RATES, SETTINGS, batch

pytestmark = pytest.mark.slow

WIDTH = 1.5  # hidden_size over mup_base_width


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("frozen")
    job = start_ranks("tests.training.frozen_ranks", str(directory), ranks=2)
    for process in job:
        output = process.communicate()
        assert process.returncode == 0, output
    return directory


@pytest.fixture(scope="module")
def expected():
    """Losses and weights of whole batches and one AdamW for each parameter, its rate spelt out by its name."""
    model, settings = frozen_model(), SETTINGS["adamw"]
    optimizers = {
        name: torch.optim.AdamW([weight], betas=(settings.beta1, settings.beta2), eps=settings.epsilon)
        for name, weight in model.named_parameters()
        if not name.startswith(FROZEN)
    }
    losses = []
    for step, rate in enumerate(RATES):
        rows = batch(step)
        logits = model(torch.from_numpy(rows.tokens))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(rows.labels).flatten(), ignore_index=NO_LOSS)
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clipping)
        for name, optimizer in optimizers.items():
            matrix = name.startswith("blocks.") and "norm" not in name and name.endswith(".weight")
            narrower = WIDTH if matrix else 1
            decay = settings.weight_decay * narrower if model.get_parameter(name).dim() == 2 else 0.0
            optimizer.param_groups[0].update(lr=rate * SHARES.get(name, 1) / narrower, weight_decay=decay)
            optimizer.step()
    return losses, {name: model.get_parameter(name).detach() for name in optimizers}


@pytest.mark.parametrize("stage", range(4))
def test_every_stage_does_what_plain_torch_does(trained, expected, stage):
    found = load_file(trained / f"adamw-fp32-{stage}.safetensors")
    losses, weights = expected
    assert found["losses"].tolist() == pytest.approx(losses, rel=1e-5)
    assert {key.removesuffix("/master") for key in found if key.endswith("/master")} == set(weights)
    for name, weight in weights.items():
        torch.testing.assert_close(found[f"{name}/master"], weight, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("name", "dtype", "stage"), CASES)
def test_a_run_goes_on_with_the_same_bits(trained, name, dtype, stage):
    whole, resumed = (load_file(trained / f"{name}-{dtype}-{stage}{part}.safetensors") for part in ("", "-resumed"))
    assert whole.keys() == resumed.keys()
    whole["losses"] = whole["losses"][HALF:]
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key


@pytest.mark.parametrize(("name", "dtype", "stage"), CASES)
def test_frozen_weights_stay_as_they_were(trained, name, dtype, stage):
    found = load_file(trained / f"{name}-{dtype}-{stage}.safetensors")
    frozen = {name: value for name, value in frozen_model().named_parameters() if name.startswith(FROZEN)}
    assert {key.removesuffix("/frozen") for key in found if key.endswith("/frozen")} == set(frozen)
    for key, value in frozen.items():
        assert torch.equal(found[f"{key}/frozen"], value if dtype == "fp32" else value.bfloat16()), key


@pytest.mark.parametrize(("name", "stages", "bound"), [("muon-fp32", (2, 3), 1e-5), ("adamw-bf16", (1, 2, 3), 3e-3)])
def test_stages_agree(trained, name, stages, bound):
    first, *others = (load_file(trained / f"{name}-{stage}.safetensors")["losses"] for stage in stages)
    for losses in others:
        torch.testing.assert_close(losses, first, rtol=bound, atol=0)
