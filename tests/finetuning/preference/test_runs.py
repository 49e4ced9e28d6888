"""Preference runs as a user starts them: what is learnt, that no layout changes it, what is kept and handed over."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from framework.errors import UserError
from tests.curves import assert_same_curve, assert_same_steps, curve
from tests.finetuning.foundation import SMALL, finetune, write_foundation, write_lines
from tests.finetuning.preference.examples import pairs, ratings, train_here
from tests.launch import ENVIRONMENT, command, run

LAYOUTS = {
    "1 rank, stage 3": (1, ["zero=stage3"]),
    "2 ranks, stage 0": (2, ["zero=stage0"]),
    "2 ranks, stage 2": (2, ["zero=stage2"]),
    "4 ranks, stage 3": (4, ["zero=stage3", "batch.micro=1"]),
    "1 rank, stage 2, whole": (1, ["zero=stage2", "batch.micro=8"]),
}


def numbers(records):
    """All that is told of each step, but for time, place and norms."""
    kinds = ("train/", "eval/")
    apart = ("seconds", "tokens", "mfu", "rank", "rate")
    return [
        {key: value for key, value in r.items() if key.startswith(kinds) and not any(word in key for word in apart)}
        for r in records
    ]


def slug(name):
    return name.replace(",", "").replace(" ", "-")


def compare(records, reference):
    """Loss and norm as `tests.curves` has them, and every measure, in training and held out."""
    (assert_same_curve if reference[-1]["train/loss"] < reference[0]["train/loss"] else assert_same_steps)(
        records, reference
    )
    for one, other in zip(numbers(records), numbers(reference), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_layout_matters(runs, given, dpo, layout):
    ranks, overrides = LAYOUTS[layout]
    compare(finetune(runs, f"dpo-{slug(layout)}", *given, *overrides, ranks=ranks), dpo)


@pytest.mark.slow
def test_the_layout_does_not_matter_even_to_what_is_of_the_whole_batch(runs, rated, kto):
    assert kto[-1]["train/reference_point"] > 0
    compare(finetune(runs, "kto-2", *rated, "zero=stage3", "batch.micro=1", ranks=2), kto)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_layout_matters_to_kto(runs, rated, kto, layout):
    ranks, overrides = LAYOUTS[layout]
    compare(finetune(runs, f"kto-{slug(layout)}", *rated, *overrides, ranks=ranks), kto)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ipo", "orpo", "simpo", "kto"])
def test_every_loss_learns_from_pairs_on_any_layout(runs, given, loss):
    alone = train_here(runs, f"{loss}-pairs-1", *given, f"preference.loss={loss}")
    compare(finetune(runs, f"{loss}-pairs-2", *given, f"preference.loss={loss}", "zero=stage2", ranks=2), alone)
    assert alone[-1]["eval/validation/margin"] > 0
    assert (runs / f"{loss}-pairs-1" / "reference.safetensors").exists() == (loss in ("ipo", "kto"))


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["given", "rated"])
def test_nor_does_a_layer_that_ranks_share(runs, tmp_path_factory, request, settings):
    shape = {"hidden_size": 32, "heads": 4, "head_size": 8, "intermediate_size": 48}
    wide = write_foundation(tmp_path_factory.mktemp("wide") / "model", **shape)
    overrides = [one for one in request.getfixturevalue(settings) if not one.startswith("model.path")]
    shared = ("zero=stage1", "parallel.tensor=2", "kernels=sdpa")
    records = finetune(runs, f"{settings}-shared", f"model.path={wide}", *overrides, *shared, ranks=2)
    compare(records, train_here(runs, f"{settings}-whole", f"model.path={wide}", *overrides))


def test_it_learns_what_is_preferred(dpo):
    first, last = dpo[0], dpo[-1]
    assert first["train/loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert first["train/kl"] == pytest.approx(0, abs=1e-6)
    assert last["train/loss"] < 0.5
    assert last["eval/validation/accuracy"] > 0.9
    assert last["eval/validation/margin"] > 0.2


def test_what_is_wanted_is_learnt_from_ratings(kto):
    assert kto[-1]["train/loss"] < kto[0]["train/loss"] - 0.05
    assert kto[-1]["eval/validation/margin"] > 0.5


def test_the_reference_is_what_transformers_says(foundation, runs, given, dpo):
    """Of the completions as transformers' own template has them, in float64, one by one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(foundation, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(runs / "dpo" / "model")
    lines = Path(given[2].removeprefix("data.train=")).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    expected = []
    for row in rows:
        for way in ("chosen", "rejected"):
            messages = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[way]}]
            found = tokenizer.apply_chat_template(
                messages, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
            )
            ids, learnt = found["input_ids"], torch.as_tensor(found["assistant_masks"]).bool().view(1, -1)
            with torch.no_grad():
                likelihood = model(ids).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
            expected.append(likelihood[learnt[:, 1:]].sum().item())
    kept = load_file(runs / "dpo" / "reference.safetensors")
    found = np.concatenate([kept[part] for part in ("train", "validation", "test")])
    assert {part: array.dtype for part, array in kept.items()} == dict.fromkeys(kept, np.float64)
    np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=1e-5)


def test_stopped_it_goes_on_exactly_and_asks_nobody_again(runs, given, dpo):
    train_here(runs, "dpo-resumed", *given, "run.stop_after=3")
    reference = runs / "dpo-resumed" / "reference.safetensors"
    before = reference.stat().st_mtime_ns
    records = train_here(runs, "dpo-resumed", *given)
    assert (curve(records), numbers(records)) == (curve(dpo), numbers(dpo))
    assert reference.stat().st_mtime_ns == before


@pytest.mark.slow
def test_killed_kto_goes_on_exactly(runs, rated):
    """Without warning, somewhere after its first checkpoint."""
    undisturbed = finetune(runs, "kto-undisturbed", *rated, "zero=stage1")
    settings = ("checkpoint.every=2", "zero=stage1", "run.name=kto-killed", f"run.directory={runs}")
    process = subprocess.Popen(
        command("framework.finetune", *SMALL, *rated, *settings),
        env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((runs / "kto-killed").glob("checkpoints/step-*/manifest.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    records = finetune(runs, "kto-killed", *rated, *settings[:2])
    assert (curve(records), numbers(records)) == (curve(undisturbed), numbers(undisturbed))


@pytest.mark.parametrize("harm", ["gone", "damaged", "foreign"])
def test_a_run_does_not_go_on_with_another_reference(runs, given, dpo, tmp_path, harm):
    copied = tmp_path / "dpo"
    shutil.copytree(runs / "dpo", copied)
    shutil.rmtree(copied / "checkpoints" / "step-00000008")
    file = copied / "reference.safetensors"
    if harm == "gone":
        file.unlink()
    elif harm == "damaged":
        values = load_file(file)
        values["train"][3] += 1e-9
        save_file(values, file, metadata_of(file))
    else:
        save_file(load_file(file), file, metadata_of(file) | {"model": "another"})
    said = {"gone": "cannot be read", "damaged": "is damaged", "foreign": "is of another model"}[harm]
    with pytest.raises(UserError, match=f"reference.safetensors: {said}.*put it back, or begin a run of another name"):
        train_here(tmp_path, "dpo", *given)


def metadata_of(file):
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as opened:
        return opened.metadata()


ONE_PROMPT = [row | {"prompt": "?"} for row in ratings(20)]
SAME = {"prompt": "thing?", "chosen": "red", "rejected": "red"}


@pytest.mark.parametrize(
    ("rows", "overrides", "told"),
    [
        ([*pairs(20), SAME], [], "bad.jsonl:21: .*chosen"),
        ([*pairs(20), SAME | {"rejected": ""}], [], "bad.jsonl:21: .*rejected"),
        (pairs(20), ["rows.length=16"], r"bad.jsonl:\d+: has \d+ tokens, and rows.length allows 16"),
        (pairs(20), ["rows.length=16", "rows.too_long=drop"], "data.train: all of its .* examples are too long"),
        ([row | {"label": True} for row in ratings(20)], ["preference.loss=kto"], "every completion is desirable"),
        (ratings(20), [], "preference.loss: is dpo, which compares pairs"),
        (ONE_PROMPT, ["preference.loss=kto", "data.validation_share=0"], "completions follow one prompt"),
        (pairs(20), ["preference.loss=best"], "preference.loss: unknown value 'best'; choose dpo . ipo"),
        (pairs(20), ["preference.loss=ipo", "preference.label_smoothing=0.1"], "label_smoothing: is 0.1, and .* none"),
        (pairs(20), ["loss.z_loss=0.1"], "loss.z_loss: is 0.1, and task=preference has a loss of its own"),
        (pairs(20), ["preference.beta=-1"], "preference.beta: is -1.0; it must not be negative"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tmp_path, foundation, rows, overrides, told):
    data = write_lines(tmp_path / "bad.jsonl", rows)
    with pytest.raises(UserError, match=told):
        train_here(
            tmp_path, "bad", "task=preference", f"model.path={foundation}", f"data.train={data}", "data.test_share=0",
            *overrides,
        )  # fmt: skip


@pytest.mark.slow
def test_a_mistake_ends_every_rank_with_code_2(given, tmp_path):
    done = run("framework.finetune", *SMALL, *given, "parallel.sequence=2", f"run.directory={tmp_path}", "run.name=a")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "parallel.sequence: " in line
