"""Runs that start from a model directory that transformers, or an earlier run, wrote."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from framework.config import PretrainConfig
from framework.errors import UserError
from framework.model.config_json import from_json
from framework.stream.curriculum import Curriculum
from framework.stream.loader import NO_LOSS, TrainingRows
from framework.stream.manifest import read_manifest
from framework.stream.objective import open_objective
from framework.stream.shards import LocalShards
from framework.training.origin import check_tokenizer, take_shape
from tests.curves import assert_same_curve, curve
from tests.launch import records, run
from tests.model import small_tokenizer
from tests.model.test_huggingface import THEIRS, their_model

DECODERS = ["gpt2", "llama rotary", "mistral", "qwen3"]
ROWS, LENGTH = 16, 32
SHORT = (
    *("schedule.steps=2", "schedule.warmup_steps=1", f"data.sequence_length={LENGTH}", "data.lanes=8"),
    *(f"batch.sequences={ROWS}", "batch.micro=4", "optimizer.learning_rate=1e-12"),  # the weights hardly move
)


@pytest.fixture(scope="module")
def origins(tmp_path_factory):
    """A directory of transformers' for each family, with the tokenizer of the data."""
    folder = tmp_path_factory.mktemp("origins")
    for name in (*DECODERS, "eurobert"):
        their_model(*THEIRS[name]).save_pretrained(folder / name.split()[0])
        small_tokenizer.write(folder / name.split()[0])
    return folder


def start(runs, data, name, *overrides, ranks=1):
    """A short run; returns its process."""
    places = (f"run.directory={runs}", f"run.name={name}", f"data.path={data}")
    done = run("framework.pretrain", *SHORT, *places, *overrides, ranks=ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def continued(runs, data, origins):
    """A run from each of the four, one after another in one process: number of the run to its directory."""
    paths = ",".join(str(origins / name.split()[0]) for name in DECODERS)
    start(runs, data, "continued", f"model.from={paths}", "--multirun")
    return [runs / f"continued-{number}" for number in range(len(DECODERS))]


@torch.no_grad()
def their_loss(model, batch):
    """Nats a label, one document's part of a row at a time, as a model sees nothing across."""
    total = 0.0
    for tokens, labels, document in zip(batch.tokens, batch.labels, batch.document, strict=True):
        for number in set(document.tolist()):
            part = document == number
            logits = model(torch.from_numpy(tokens[part])[None]).logits[0]
            total += F.cross_entropy(
                logits, torch.from_numpy(labels[part]), ignore_index=NO_LOSS, reduction="sum"
            ).item()
    return total / (batch.labels != NO_LOSS).sum()


def first_batch(data, config=None):
    manifest = read_manifest(data)
    objective = open_objective((config or PretrainConfig()).objective, manifest, 0)
    rows = TrainingRows(manifest, {}, Curriculum(LENGTH), 8, 0, LocalShards(), objective=objective)
    return rows.read(range(ROWS))


@pytest.mark.parametrize(("number", "name"), [*enumerate(DECODERS)], ids=DECODERS)
@pytest.mark.slow
def test_the_first_loss_and_the_model_that_comes_out_are_theirs(data, origins, continued, number, name):
    origin, run_directory = origins / name.split()[0], continued[number]
    theirs = AutoModelForCausalLM.from_pretrained(origin, dtype=torch.float32).eval()
    expected = their_loss(theirs, first_batch(data))
    assert records(run_directory)[0]["train/loss"] == pytest.approx(expected, rel=1e-5)
    again = AutoModelForCausalLM.from_pretrained(run_directory / "model", dtype=torch.float32).eval()
    assert type(again) is type(theirs)
    tokens = torch.randint(384, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(again(tokens).logits, theirs(tokens).logits, rtol=0, atol=1e-5)
    facts = json.loads((run_directory / "model" / "provenance.json").read_text())
    assert facts["started_from"]["path"] == facts["config"]["model"]["from"] == str(origin)
    assert len(facts["started_from"]["sha256"]) == 64


@pytest.mark.slow
def test_a_run_under_way_needs_its_origin_no_more(runs, data, origins):
    shutil.copytree(origins / "llama", runs / "parent")
    settings = ("schedule.steps=4", "optimizer.learning_rate=1e-3", f"model.from={runs / 'parent'}")
    start(runs, data, "child", *settings, "run.stop_after=2", "zero=stage1")
    shutil.rmtree(runs / "parent")
    before = curve(records(runs / "child"))
    start(runs, data, "child", *settings, "zero=stage1")
    assert curve(records(runs / "child"))[:2] == before
    assert len(records(runs / "child")) == 4
    facts = json.loads((runs / "child" / "model" / "provenance.json").read_text())
    assert facts["started_from"]["path"] == str(runs / "parent")


@pytest.mark.slow
def test_another_origin_is_refused_when_a_run_is_taken_up(runs, data, origins, continued):
    shutil.copytree(continued[1], runs / "other")
    shutil.copytree(origins / "llama", runs / "altered")
    file = runs / "altered" / "config.json"
    file.write_text(file.read_text() + "\n")
    places = (f"run.directory={runs}", "run.name=other", f"data.path={data}", f"model.from={runs / 'altered'}")
    refused = run("framework.pretrain", *SHORT, *places)
    assert refused.returncode == 2
    assert refused.stderr.startswith("loam: error: model.from: is ")
    shutil.copytree(origins / "llama", runs / "moved")  # the same, elsewhere: nothing to say
    start(runs, data, "other", f"model.from={runs / 'moved'}")


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "stage", "dtype"), [(2, 3, "fp32"), (2, 2, "bf16"), (2, 3, "bf16"), (4, 1, "fp32")])
def test_an_encoder_and_any_layout(runs, data, origins, ranks, stage, dtype):
    name = f"encoder-{ranks}-{stage}-{dtype}"
    settings = ("objective=masked_lm", f"model.from={origins / 'eurobert'}", f"precision={dtype}")
    start(runs, data, name, *settings, f"zero=stage{stage}", ranks=ranks)
    config = PretrainConfig()
    config.objective.name, config.objective.rate, config.objective.masked = "masked_lm", 0.3, 1.0
    model = AutoModelForMaskedLM.from_pretrained(origins / "eurobert", dtype=torch.float32).eval()
    expected = their_loss(model, first_batch(data, config))
    bound = 1e-5 if dtype == "fp32" else 1e-2
    assert records(runs / name)[0]["train/loss"] == pytest.approx(expected, rel=bound)
    theirs = AutoModelForMaskedLM.from_pretrained(runs / name / "model", dtype=torch.float32)
    tokens = torch.randint(384, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = (theirs(tokens).logits - model(tokens).logits).abs().max()
    assert difference < (1e-5 if dtype == "fp32" else 0.3)


@pytest.mark.slow
def test_a_run_goes_on_from_the_model_of_another(runs, data, finished):
    """The first loss is about that with which the other ended; on any layout it is the same."""
    settings = (f"model.from={finished / 'model'}", "schedule.steps=6", "optimizer.learning_rate=1e-3")
    start(runs, data, "heir", *settings)
    start(runs, data, "heir-on-two", *settings, "zero=stage3", ranks=2)
    assert_same_curve(records(runs / "heir-on-two"), records(runs / "heir"))
    model = AutoModelForCausalLM.from_pretrained(finished / "model", dtype=torch.float32).eval()
    assert records(runs / "heir")[0]["train/loss"] == pytest.approx(their_loss(model, first_batch(data)), rel=1e-5)


# ------------------------------------------------------------------------ what does not go together


def settled(origin, runs, given=(), **model):
    config = PretrainConfig()
    config.run.directory = str(runs)
    for name, value in {"from": str(origin), **model}.items():
        setattr(config.model, name, value)
    take_shape(config, {"model.from", *given})
    return config.model


def test_the_shape_is_that_of_the_directory(origins, tmp_path):
    for name in ("gpt2", "llama", "mistral", "qwen3", "eurobert"):
        file = origins / name / "config.json"
        _, shape = from_json(json.loads(file.read_text()), str(file))
        found = settled(origins / name, tmp_path)
        assert {field: getattr(found, field) for field in vars(shape)} == vars(shape)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("llama", {"layers": 3}, r"^model\.layers: is 3, and model\.from=.*llama has 2; leave it out"),
        ("eurobert", {"causal": True}, r"^model\.causal: is True, and model\.from=.*eurobert has False"),
        ("gpt2", {"maximum_positions": 128}, r"^model\.maximum_positions: is 128, and .*gpt2 has 64"),
        ("qwen3", {"vocabulary_size": 512}, r"^model\.vocabulary_size: is 512"),
    ],
)
def test_another_shape_on_the_command_line_is_refused(origins, tmp_path, name, given, message):
    with pytest.raises(UserError, match=message):
        settled(origins / name, tmp_path, {f"model.{field}" for field in given}, **given)


def test_a_preset_has_to_agree_and_positions_may_be_stretched(origins, tmp_path):
    with pytest.raises(UserError, match=r"^model\.hidden_size: is 256, .* has 32; leave it out, and model= too"):
        settled(origins / "llama", tmp_path, {"model"})
    longer = {"maximum_positions": 4096, "rope_theta": 1e6}
    model = settled(origins / "llama", tmp_path, {f"model.{field}" for field in longer}, **longer)
    assert (model.maximum_positions, model.rope_theta, model.layers) == (4096, 1e6, 2)
    assert settled(origins / "llama", tmp_path, {"model.layers", "model.vocabulary_size"}, layers=2).layers == 2


def test_a_place_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^model\.from: .*nowhere/config\.json: is missing; give a complete model dir"):
        settled(tmp_path / "nowhere", tmp_path)


def test_the_tokenizer_has_to_be_that_of_the_data(data, tmp_path):
    manifest, own = read_manifest(data), data / "tokenizer" / "tokenizer.model"
    small_tokenizer.write(tmp_path / "same")
    check_tokenizer(str(tmp_path / "same"), manifest, own)

    small_tokenizer.write(tmp_path / "other", ())
    with pytest.raises(
        UserError, match=rf"^model\.from: the tokenizer of .*/other is not that .*tokenizer\.path={tmp_path / 'other'} "
    ):
        check_tokenizer(str(tmp_path / "other"), manifest, own)


def test_a_tokenizer_that_transformers_wrote_anew_is_known_by_what_it_does(data, finished, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").unlink(missing_ok=True)
    manifest, own = read_manifest(data), data / "tokenizer" / "tokenizer.model"
    check_tokenizer(str(tmp_path), manifest, own)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    pieces = content["model"]["vocab"]
    one, another = list(pieces)[-1], list(pieces)[-2]
    pieces[one], pieces[another] = pieces[another], pieces[one]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"it gives other ids"):
        check_tokenizer(str(tmp_path), manifest, own)
