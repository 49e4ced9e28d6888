"""Instruction tuning: what is learnt, that no layout changes it, and what comes out."""

import json
import math
import random

import pytest
import torch

from tests.curves import assert_same_curve, curve
from tests.finetuning.foundation import finetune, write_foundation, write_lines
from tests.launch import run

COLOURS = ["red", "green", "blue", "white", "black", "grey"]


def conversations(count, seed=0):
    """Questions with short answers, some of two turns."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        turns = []
        for _ in range(draw.randint(1, 2)):
            turns.append({"role": "user", "content": f"thing {number} of {draw.choice(COLOURS)}?"})
            turns.append({"role": "assistant", "content": " ".join(draw.choices(COLOURS, k=draw.randint(1, 4)))})
        rows.append({"messages": turns})
    return rows


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    return write_lines(tmp_path_factory.mktemp("questions") / "train.jsonl", conversations(120))


@pytest.fixture(scope="module")
def settings(foundation, questions):
    rate = ("optimizer.learning_rate=3e-3", "instruction.answers=6", "instruction.answer_tokens=8")
    return ("task=instruction", f"model.path={foundation}", f"data.train={questions}", *rate)


@pytest.fixture(scope="module")
def reference(runs, settings):
    return finetune(runs, "instruction", *settings, "zero=stage1")


LAYOUTS = {
    "instruction-2-ranks-stage-3": (2, ["zero=stage3"]),
    "instruction-2-ranks-stage-2": (2, ["zero=stage2"]),
    "instruction-4-ranks-stage-0": (4, ["zero=stage0"]),
    "instruction-4-ranks-stage-3": (4, ["zero=stage3", "batch.micro=1"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_does_not_matter(runs, settings, reference, layout):
    ranks, overrides = LAYOUTS[layout]
    records = finetune(runs, layout, *settings, *overrides, ranks=ranks)
    assert_same_curve(records, reference)
    held_out = [record["eval/validation/loss"] for record in records if "eval/validation/loss" in record]
    expected = [record["eval/validation/loss"] for record in reference if "eval/validation/loss" in record]
    assert held_out == pytest.approx(expected, rel=1e-5)
    answers, others = ((runs / name / "answers.jsonl").read_text() for name in (layout, "instruction"))
    assert answers == others


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["sequence", "tensor"])
def test_nor_do_shared_rows_and_layers(runs, settings, tmp_path, shared):
    divisible = write_foundation(tmp_path / "model", heads=2, head_size=18)
    base = (*settings, f"model.path={divisible}", "zero=stage1")
    alone = finetune(runs, f"instruction-not-{shared}", *base)
    records = finetune(runs, f"instruction-{shared}", *base, f"parallel.{shared}=2", ranks=2)
    assert_same_curve(records, alone)
    answers = [(runs / f"instruction-{which}" / "answers.jsonl").read_text() for which in (shared, f"not-{shared}")]
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_exactly(runs, settings, reference):
    finetune(runs, "instruction-resumed", *settings, "zero=stage1", "run.stop_after=3")
    assert curve(finetune(runs, "instruction-resumed", *settings, "zero=stage1")) == curve(reference)


def test_the_first_loss_is_that_of_transformers(foundation, runs, questions, reference):
    """Over the same answers, in the conversations as transformers' own template has them, one by one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(foundation, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(runs / "instruction" / "model")
    rows = [json.loads(line)["messages"] for line in questions.read_text().splitlines()]
    losses, count = {}, {}
    for number, messages in enumerate(rows):
        found = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
        )
        ids, learnt = found["input_ids"], torch.as_tensor(found["assistant_masks"]).bool().view(1, -1)
        with torch.no_grad():
            likelihood = model(ids).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        losses[number] = -likelihood[learnt[:, 1:]].sum().item()
        count[number] = int(learnt[:, 1:].sum())
    summary = json.loads((runs / "instruction" / "summary.json").read_text())
    kept = sum(lengths["kept"] for lengths in summary["lengths"].values())
    assert kept == len(rows)
    assert sum(lengths["learnt"] for lengths in summary["lengths"].values()) == sum(count.values())
    mean = sum(losses.values()) / sum(count.values())
    assert reference[0]["train/loss"] == pytest.approx(mean, rel=0.05)  # one batch of them
    assert mean == pytest.approx(math.log(360), rel=0.1)


def test_what_is_handed_over_answers_in_transformers(runs, reference):
    """The answers are those that transformers generates from the directory, greedily, in its own template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = runs / "instruction" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    for line in (runs / "instruction" / "answers.jsonl").read_text().splitlines():
        answer = json.loads(line)
        ids = tokenizer.apply_chat_template(
            answer["question"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**ids, max_new_tokens=8, do_sample=False)
        written = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert written.strip() == answer["answer"]


@pytest.mark.parametrize(
    ("rows", "overrides", "told"),
    [
        ([{"prompt": "a", "response": ""}], ["rows.length=96"], r"bad\.jsonl:1: "),
        (conversations(40), ["rows.length=12"], "rows.length"),
        (conversations(40), ["rows.length=500"], "rows.length: 500 exceeds the model's context of 128"),
        (conversations(40), ["model.path=nowhere"], "model.path: nowhere/config.json"),
    ],
)
def test_bad_input_is_one_line(tmp_path, foundation, rows, overrides, told):
    import re

    data = write_lines(tmp_path / "bad.jsonl", rows)
    done = run(
        "framework.finetune", "task=instruction", f"model.path={foundation}", f"data.train={data}",
        f"run.directory={tmp_path}", *overrides,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(told, done.stderr), done.stderr
