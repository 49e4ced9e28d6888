"""Adapters under the engine: two ranks at every stage do what plain torch does with all rows; and after a restart."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from framework.finetuning.adaptation.adapt import adapt, layer_rates, load_base
from framework.finetuning.adaptation.handing_over import whole_state
from framework.finetuning.tokens.rows import NUMBER
from framework.model.huggingface import assemble
from framework.model.transformer import Transformer
from framework.stream.loader import NO_LOSS
from tests.finetuning.adaptation.adapted_ranks import ADAPTATIONS, CASES, HALF, MODEL, RATES, base_weights, batch
from tests.launch import start_ranks

pytestmark = pytest.mark.slow

FILES = [f"{name}-{dtype}-{stage}" for name, dtype, stage in CASES]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What the files of runs on two ranks hold, by their names."""
    folder = tmp_path_factory.mktemp("ranks")
    for process in start_ranks("tests.finetuning.adaptation.adapted_ranks", str(folder), ranks=2):
        output = process.communicate()
        assert process.returncode == 0, output
    return {file.stem: load_file(file) for file in folder.iterdir()}


def train_plainly(name):
    """Losses of whole batches and one AdamW for each parameter, with plain torch."""
    adaptation = ADAPTATIONS[name]
    model = Transformer(MODEL)
    dropout = adapt(model, adaptation, seed=11)
    load_base(model, base_weights())
    rates = layer_rates(model, adaptation.layer_decay)
    parameters = {key: p for key, p in model.named_parameters() if p.requires_grad}
    optimizers = {key: torch.optim.AdamW([p], betas=(0.9, 0.95), eps=1e-8) for key, p in parameters.items()}
    losses = []
    for step, rate in enumerate(RATES):
        rows = batch(step, 0, 1)
        dropout.before_forward({NUMBER: torch.from_numpy(rows.more[NUMBER])})
        logits = model(torch.from_numpy(rows.tokens))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(rows.labels).flatten(), ignore_index=NO_LOSS)
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for key, optimizer in optimizers.items():
            decay = 0.1 if parameters[key].dim() == 2 else 0.0
            optimizer.param_groups[0].update(lr=rate * rates.get(key, 1.0), weight_decay=decay)
            optimizer.step()
    return losses, {key: p.detach() for key, p in parameters.items()}


@pytest.mark.parametrize("file", [file for file in FILES if "fp32" in file])
def test_every_stage_does_what_plain_torch_does(trained, file):
    losses, weights = train_plainly(file.split("-")[0])
    found = trained[file]
    assert found["losses"].tolist() == pytest.approx(losses, rel=1e-5)
    assert losses[-1] < losses[0] - 0.1
    assert found.keys() == {"losses", *weights}
    for key, weight in weights.items():
        torch.testing.assert_close(found[key], weight, rtol=0, atol=2e-5)


@pytest.mark.parametrize("file", FILES)
def test_a_run_goes_on_with_the_same_bits(trained, file):
    whole, resumed = trained[file], trained[f"{file}-resumed"]
    assert whole.keys() == resumed.keys()
    assert torch.equal(whole["losses"][HALF:], resumed["losses"])
    for key in whole.keys() - {"losses"}:
        assert torch.equal(whole[key], resumed[key]), key


@pytest.mark.parametrize("name", ["lora", "qlora"])
def test_bf16_follows_fp32(trained, name):
    torch.testing.assert_close(
        trained[f"{name}-bf16-2"]["losses"], trained[f"{name}-fp32-2"]["losses"], rtol=0.02, atol=0
    )


@pytest.mark.parametrize("name", ["lora", "qlora"])
def test_what_was_trained_is_handed_over_whole(trained, name):
    """The loss of the handed-over weights in plain torch is below that of the base."""
    found = {key: value for key, value in trained[f"{name}-fp32-2"].items() if key != "losses"}
    whole = whole_state(base_weights(), found, ADAPTATIONS[name].adapter, MODEL)
    rows = batch(0, 0, 1)

    def loss(state):
        logits = assemble(MODEL, state)(torch.from_numpy(rows.tokens))
        return F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(rows.labels).flatten(), ignore_index=NO_LOSS)

    assert loss(whole) < loss(base_weights()) - 0.1
