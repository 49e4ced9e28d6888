"""What a run shows of itself, beside what its own files and other code say."""

import gzip
import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file

from framework.config import ProfileConfig, SamplesConfig
from framework.errors import UserError
from framework.inference.generation import generate_text, load
from framework.training.watching.memory import usage
from framework.training.watching.norms import block_of
from framework.training.watching.ranks import SlowRanks
from tests.launch import ROOT, pretrain, records


def norms_of(record, kind):
    prefix = f"norm/{kind}/"
    return {name.removeprefix(prefix): value for name, value in record.items() if name.startswith(prefix)}


def master_weights(run, step):
    tensors = {}
    for file in (run / "checkpoints" / f"step-{step:08d}").glob("*.safetensors"):
        tensors |= load_file(file)
    return {name.removesuffix("/master"): t for name, t in tensors.items() if name.endswith("/master")}


def test_norms_are_those_of_the_weights_and_of_the_gradient(finished):
    """Of step 11, before its update: so of the weights that the checkpoint of step 10 has."""
    having = [record for record in records(finished) if norms_of(record, "gradients")]
    assert [record["step"] for record in having] == [11]
    expected = {}
    for name, weight in master_weights(finished, 10).items():
        block = ".".join(name.split(".")[: 2 if name.startswith("blocks.") else 1])
        expected[block] = expected.get(block, 0.0) + float(weight.double().square().sum())
    found = norms_of(having[0], "parameters")
    assert {"embedding", "blocks.0", "blocks.1", "norm"} <= found.keys() == norms_of(having[0], "gradients").keys()
    assert found == pytest.approx({block: math.sqrt(total) for block, total in expected.items()}, rel=1e-6)
    whole = math.sqrt(sum(value**2 for value in norms_of(having[0], "gradients").values()))
    assert whole == pytest.approx(having[0]["train/gradient_norm"], rel=1e-5)


def test_blocks_by_name():
    assert [block_of(name) for name in ("blocks.12.attention.query.weight", "embedding.weight", "norm.weight")] == [
        *("blocks.12", "embedding", "norm")
    ]


def test_samples_are_what_the_model_directory_generates(finished):
    """By other code, from other files: the last samples are of the weights that were handed over."""
    samples = [json.loads(line) for line in (finished / "samples.jsonl").read_text().splitlines()]
    assert [(sample["step"], sample["prompt"]) for sample in samples] == [(6, ""), (6, "the"), (12, ""), (12, "the")]
    model, tokenizer = load(finished / "model")
    for sample in samples[2:]:
        pieces = generate_text(model, tokenizer, sample["prompt"], maximum_tokens=8)
        assert sample["text"] == "".join(pieces)


def test_a_trace_has_the_steps_asked_for(finished):
    with gzip.open(finished / "profile" / "rank-00000.json.gz") as file:
        events = json.load(file)["traceEvents"]
    operations = [event["name"] for event in events if event.get("cat") == "cpu_op"]
    assert operations.count("aten::embedding") == 2 * 16 / 4  # one for each micro-batch of two steps
    log = (finished / "log" / "rank-00000.log").read_text()
    assert re.search(r"operations that took most of the steps traced:\n(?:.*\n)+.*aten::", log)


def test_memory_is_that_of_this_process():
    before = usage(torch.device("cpu"))["memory/peak_bytes"]
    block = torch.ones(50_000_000)  # 200 MB
    after = usage(torch.device("cpu"))["memory/peak_bytes"]
    assert after >= max(before, block.nbytes)
    assert after < before + 2 * block.nbytes


def test_the_log_of_a_rank_says_what_it_ran_on(finished):
    log = (finished / "log" / "rank-00000.log").read_text()
    assert re.search(r"INFO versions: loam \S+, python 3\S+, torch \S+, deepspeed \S+", log)
    assert re.search(r"INFO rank 0 of 1, local rank 0, process \d+ on \S+: .*, 1 threads", log)
    assert re.search(r"INFO ZeRO stage 1, fp32, 4 sequences a forward pass; from step 0", log)
    [start] = [json.loads(line) for line in (finished / "starts.jsonl").read_text().splitlines()]
    assert (start["step"], start["ranks"], start["zero_stage"]) == (0, 1, 1)
    assert start["shares"] == pytest.approx({"web": 60 / 76, "books": 16 / 76})


def test_every_name_of_a_record_is_in_the_table(finished, undisturbed):
    """The table of docs/watching.md is the promise that names are stable."""
    table = (ROOT / "docs" / "watching.md").read_text().split("The names in `metrics.jsonl` are stable:")[1]
    rows = [line.split("|")[1] for line in table.split("\n\n")[1].splitlines()[2:]]
    promised = [name for row in rows for name in re.findall("`([^`]+)`", row)]
    patterns = [re.sub("CORPUS|BLOCK", r"[^/]+", re.escape(name)) for name in promised]
    found = {name for run in (finished, undisturbed) for record in records(run) for name in record}
    assert {name for name in found if not any(re.fullmatch(pattern, name) for pattern in patterns)} == set()
    assert {"train/slowest_rank", "memory/peak_bytes", "norm/gradients/blocks.0"} <= found


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: ProfileConfig([3]).check(9), r"profile.steps: is \[3\]; give the first and the last step"),
        (lambda: ProfileConfig([3, 2]).check(9), r"profile.steps: is \[3, 2\]; the first must not come after"),
        (lambda: ProfileConfig([0, 2]).check(9), r"profile.steps: is \[0, 2\]; .* lie in 1 to 9 \(schedule.steps\)"),
        (lambda: ProfileConfig([8, 10]).check(9), r"profile.steps: is \[8, 10\]; .* lie in 1 to 9 \(schedule.steps\)"),
        (lambda: ProfileConfig([1, 101]).check(900), r"profile.steps: asks for 101 steps, .*; trace at most 100"),
        (lambda: SamplesConfig(every=-1).check(64), r"samples.every: is -1; it must not be negative"),
        (lambda: SamplesConfig(temperature=-1).check(64), r"samples.temperature: is -1; it must not be negative"),
        (lambda: SamplesConfig(every=1, tokens=64).check(64), r"samples.tokens: 64 do not fit .*=64; lower"),
    ],
)
def test_a_mistake_is_one_line(check, message):
    with pytest.raises(UserError, match=message):
        check()


def test_nothing_is_asked_for_by_default():
    SamplesConfig().check(64)
    ProfileConfig().check(1)
    assert SlowRanks().look([]) is None


LAYOUTS = {
    "stage0": ("zero=stage0",),
    "stage1": ("zero=stage1",),
    "stage2": ("zero=stage2",),
    "stage3": ("zero=stage3",),
    "bf16": ("zero=stage2", "precision=bf16"),
    "rows": ("zero=stage3", "parallel.sequence=2"),
    "layers": ("zero=stage1", "parallel.tensor=2"),
    "layers3": ("zero=stage3", "parallel.tensor=2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_looking_changes_nothing_and_shows_the_same_in_any_layout(name, runs, data):
    looks = ("run.norms_every=2", "samples.every=2", "samples.tokens=4", "samples.temperature=0")
    traced = ("profile.steps=[2,3]", "tracker=tensorboard", "run.log_every=3")
    both = ("model.heads=4", "model.head_size=8", "run.stop_after=4")
    plain = pretrain(runs, data, f"unseen-{name}", *both, *LAYOUTS[name], ranks=2)
    watched = pretrain(runs, data, f"seen-{name}", *both, *LAYOUTS[name], *looks, *traced, ranks=2)
    for before, after in zip(plain, watched, strict=True):
        for key in ("train/loss", "train/gradient_norm", "data/batch_hash"):
            assert before[key] == after[key]
    alone = pretrain(runs, data, f"alone-{name}", *both, "zero=stage0", *looks)
    for one, two in zip(alone, watched, strict=True):
        for kind in ("parameters", "gradients"):
            assert norms_of(two, kind) == pytest.approx(norms_of(one, kind), rel=2e-2 if name == "bf16" else 1e-4)
    if name != "bf16":
        texts = [(runs / f"{who}-{name}" / "samples.jsonl").read_text() for who in ("alone", "seen")]
        assert texts[0] == texts[1] != ""
    assert (runs / f"seen-{name}" / "profile" / "rank-00001.json.gz").exists()
    assert {"train/slowest_rank", "train/rank_seconds_spread"} <= watched[2].keys()
