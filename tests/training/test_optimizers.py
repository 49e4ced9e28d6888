"""AdamW, Muon and Lion on two ranks at every ZeRO stage, against loops of plain torch on the whole model."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from framework.config import ModelConfig, OptimizerConfig, PretrainConfig
from framework.errors import UserError
from framework.model.transformer import Transformer
from framework.stream.loader import NO_LOSS
from framework.training.optimization.muon import Muon, orthogonalized
from framework.training.optimization.optimizer import build_optimizer, check_no_decay
from tests.launch import start_ranks
from tests.training.optimizer_ranks import AVERAGE, HALF, MODEL, RATES, RESUMED, SETTINGS, batch, fresh_model

pytestmark = pytest.mark.slow

WIDTH = 1.5  # hidden_size over mup_base_width
FIELDS = {"adamw": {"exp_avg", "exp_avg_sq"}, "muon": {"momentum_buffer"}, "lion": {"exp_avg"}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("optimizers")
    job = start_ranks("tests.training.optimizer_ranks", str(directory), ranks=2)
    for process in job:
        output = process.communicate()
        assert process.returncode == 0, output
    return directory


def is_matrix(name):
    return name.startswith("blocks.") and "norm" not in name and name.endswith(".weight")


class Lion:
    """Algorithm 2 of arXiv:2302.06675, as printed."""

    def __init__(self, settings):
        self.settings, self.momenta = settings, {}

    def update(self, name, weight, gradient, rate, decay):
        s = self.settings
        momentum = self.momenta.get(name, torch.zeros_like(weight))
        direction = torch.sign(s.beta1 * momentum + (1 - s.beta1) * gradient)
        self.momenta[name] = s.beta2 * momentum + (1 - s.beta2) * gradient
        weight -= rate * (direction + decay * weight)


class OfTorch:
    """A torch optimizer for each parameter, of which there is one for each kind."""

    def __init__(self, settings):
        self.settings, self.optimizers = settings, {}

    def update(self, name, weight, gradient, rate, decay):
        s = self.settings
        if name not in self.optimizers:
            stand_in = torch.nn.Parameter(weight)  # which shares its memory
            if s.name == "muon" and is_matrix(name):
                made = torch.optim.Muon([stand_in], momentum=s.momentum, adjust_lr_fn="match_rms_adamw")
            else:
                made = torch.optim.AdamW([stand_in], betas=(s.beta1, s.beta2), eps=s.epsilon)
            self.optimizers[name] = (stand_in, made)
        stand_in, made = self.optimizers[name]
        stand_in.grad = gradient
        made.param_groups[0].update(lr=rate, weight_decay=decay)
        made.step()


def train_plainly(settings):
    """Losses, weights and averages of whole batches, each parameter's rate and decay spelt out by its name."""
    model = fresh_model()
    rule = (Lion if settings.name == "lion" else OfTorch)(settings)
    losses, averages = [], {}
    for step, rate in enumerate(RATES):
        rows = batch(step)
        logits = model(torch.from_numpy(rows.tokens))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(rows.labels).flatten(), ignore_index=NO_LOSS)
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clipping)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                decays = weight.dim() == 2 and not (settings.no_decay and name == "embedding.weight")
                narrower = WIDTH if is_matrix(name) else 1
                ours = rate / narrower
                if settings.name == "muon" and not is_matrix(name):
                    ours *= settings.adamw_learning_rate / settings.learning_rate
                rule.update(name, weight, weight.grad, ours, settings.weight_decay * narrower if decays else 0.0)
        if (step + 1) % AVERAGE.every == 0:
            number = (step + 1) // AVERAGE.every
            kept = min(AVERAGE.decay, (1 + number) / (10 + number)) if averages else 0
            for name, weight in model.named_parameters():
                averages[name] = kept * averages.get(name, 0) + (1 - kept) * weight.detach()
    return losses, {name: weight.detach() for name, weight in model.named_parameters()}, averages


@pytest.fixture(scope="module")
def expected():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)  # else torch's Muon would round to bf16
        return {name: train_plainly(settings) for name, settings in SETTINGS.items()}


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("name", SETTINGS)
def test_every_stage_does_what_plain_torch_does(trained, expected, name, stage):
    found = load_file(trained / f"{name}-{stage}.safetensors")
    losses, weights, averages = expected[name]
    assert found["losses"].tolist() == pytest.approx(losses, rel=1e-5)
    for parameter, weight in weights.items():
        for field, value in (("master", weight), ("ema", averages[parameter])):
            # a sign may turn where rounding meets a gradient of nearly 0
            difference = (found[f"{parameter}/{field}"] - value).abs()
            assert (difference > 2e-6).float().mean() <= (0.01 if name == "lion" else 0), (parameter, field)


@pytest.mark.parametrize("stage", RESUMED)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_goes_on_at_its_stage_and_at_another(trained, name, stage):
    whole, resumed = (load_file(trained / f"{name}-{part}.safetensors") for part in (2, f"from-2-to-{stage}"))
    assert whole.keys() == resumed.keys()
    fields = {key.rpartition("/")[2] for key in whole if key.startswith("blocks.0.mlp.up.weight/")}
    assert fields == {"master", "ema", *FIELDS[name]}
    whole["losses"] = whole["losses"][HALF:]
    for key, value in whole.items():
        if stage == 2:
            assert torch.equal(resumed[key], value), key
        else:
            torch.testing.assert_close(resumed[key], value, rtol=1e-5, atol=2e-6)


def test_muon_trains_in_bf16_at_every_stage(trained):
    losses = {stage: load_file(trained / f"bf16-{stage}.safetensors")["losses"] for stage in (1, 2, 3)}
    reference = load_file(trained / "muon-2.safetensors")["losses"]
    for found in losses.values():
        torch.testing.assert_close(found, reference, rtol=3e-3, atol=0)


@pytest.mark.parametrize("shape", [(40, 40), (24, 60), (60, 24)])
def test_orthogonalised_matrices_keep_their_singular_vectors(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ orthogonalized(matrix, torch.float32) @ vh.T
    assert 0.6 < inner.diagonal().min() <= inner.diagonal().max() < 1.3
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-3


def test_in_bf16_it_is_torchs_own_muon():
    weights = torch.randn(48, 20, generator=torch.Generator().manual_seed(2))
    ours, theirs = (torch.nn.Parameter(weights.clone()) for _ in range(2))
    group = {"params": [ours], "orthogonalized": True, "weight_decay": 0.1}
    mine = Muon([group], momentum=0.95, dtype=torch.bfloat16, lr=1e-2)
    torchs = torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        ours.grad = theirs.grad = torch.randn(48, 20, generator=torch.Generator().manual_seed(step))
        mine.step()
        torchs.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def groups_by_name(config):
    model = Transformer(config.model)
    groups = build_optimizer(model, config).param_groups
    of = {id(p): group for group in groups for p in group["params"]}
    return {name: of[id(p)] for name, p in model.named_parameters()}


def test_patterns_take_the_decay_from_parameters():
    names = ["embedding.weight", "blocks.1.attention.*"]
    groups = groups_by_name(PretrainConfig(model=MODEL, optimizer=OptimizerConfig(no_decay=names)))
    undecayed = {name for name, group in groups.items() if group["weight_decay"] == 0}
    matrices = {f"blocks.1.attention.{part}.weight" for part in ("query", "key", "value", "output")}
    one_dimensional = {name for name in groups if name.endswith(".bias") or "norm" in name}
    assert undecayed == {"embedding.weight", *matrices, *one_dimensional}


def test_a_pattern_without_a_parameter_is_refused():
    with pytest.raises(UserError, match=r"^optimizer\.no_decay: 'embeding\*' matches no parameter; names are like "):
        check_no_decay(OptimizerConfig(no_decay=["output.*", "embeding*"]), ["embedding.weight", "output.weight"])


def test_by_default_there_are_the_two_usual_groups():
    groups = build_optimizer(Transformer(ModelConfig(vocabulary_size=50)), PretrainConfig()).param_groups
    assert [(group["weight_decay"], group["rate"]) for group in groups] == [(0.1, 1.0), (0.0, 1.0)]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"name": "sgd"}, r"optimizer\.name: unknown value 'sgd'; choose adamw \| muon \| lion"),
        ({"adamw_learning_rate": 0.1}, r"optimizer\.adamw_learning_rate: is 0\.1, which optimizer\.name=adamw does"),
        ({"momentum": 1.0}, r"optimizer\.momentum: is 1\.0; it must lie in \[0, 1\)"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, line):
    with pytest.raises(UserError, match=line):
        OptimizerConfig(**settings).check()
