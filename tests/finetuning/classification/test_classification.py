"""Classification: that no layout changes it, what comes out, and that transformers agrees."""

import html
import json
import os
import random
import re
import signal
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from framework.config import FinetuneConfig, LabelledDataConfig
from framework.config.finetune import ClassificationConfig, RowsConfig, TunedModelConfig
from framework.errors import UserError
from framework.finetuning.classification.stage import Classification
from framework.inference.classification import classify
from framework.model.huggingface import read_model_directory
from framework.training.record.report.page import write_report
from tests.curves import assert_same_curve, curve
from tests.finetuning.foundation import SMALL, finetune, write_foundation, write_lines
from tests.launch import run, start_ranks

WORDS = {"water": ["river", "grows", "12", "naïve"], "ground": ["stone", "soil", "loam"], "plant": ["tree", "jumped"]}
FILLING = ["the", "of", "a", "is", "running"]
RATE = ("optimizer.learning_rate=1e-2",)
SPLITS = ("validation", "test")


def texts(count, several=False, seed=0):
    """Texts of unequal length whose words tell the class, and unequally many of each."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        labels = [name for name in WORDS if draw.random() < 0.5] if several else draw.choices(list(WORDS), [5, 3, 2])
        telling = [draw.choice(WORDS[label]) for label in labels for _ in range(2)]
        words = telling + draw.choices(FILLING, k=draw.randint(1, 9)) + [str(number)]
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "label": labels if several else labels[0]})
    return rows


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return {several: write_lines(folder / f"{several}.jsonl", texts(200, several)) for several in (False, True)}


def settings(foundation, file):
    return ("task=classification", f"model.path={foundation}", f"data.train={file}", *RATE)


@pytest.fixture(scope="module")
def one(foundation, files):
    return settings(foundation, files[False])


@pytest.fixture(scope="module")
def reference(runs, one):
    return finetune(runs, "classes", *one, "zero=stage1")


@pytest.fixture(scope="module")
def several_settings(tmp_path_factory, files):
    encoder = write_foundation(tmp_path_factory.mktemp("encoder") / "model", causal=False)
    return (*settings(encoder, files[True]), "loss.label_smoothing=0.1", "classification.class_weights=balanced")


@pytest.fixture(scope="module")
def several(runs, several_settings):
    return finetune(runs, "sets", *several_settings, "zero=stage1")


LAYOUTS = {"2-stage-2": (2, ["zero=stage2"])}
MORE_LAYOUTS = {
    "2-stage-3": (2, ["zero=stage3"]),
    "1-stage-0": (1, ["zero=stage0"]),
    "2-stage-1": (2, ["zero=stage1", "batch.micro=1"]),
    "4-stage-3": (4, ["zero=stage3", "batch.micro=1"]),
}
OF_SETS = {"sets-2-stage-3": (2, ["zero=stage3"]), "sets-1-stage-0": (1, ["zero=stage0"])}


def held_out(records):
    return [[r[f"eval/{split}/{name}"] for split in SPLITS for name in ("loss", "accuracy", "macro_f1")]
            for r in records if "eval/test/loss" in r]  # fmt: skip


def assert_same(runs, name, records, reference, of):
    assert_same_curve(records, reference)
    np.testing.assert_allclose(held_out(records), held_out(reference), rtol=1e-5)
    found, expected = (predictions(runs / run) for run in (name, of))
    assert [row["predicted"] for row in found] == [row["predicted"] for row in expected]
    assert len(found) > 20


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_does_not_matter(runs, one, reference, layout):
    ranks, overrides = LAYOUTS[layout]
    assert_same(runs, layout, finetune(runs, layout, *one, *overrides, ranks=ranks), reference, "classes")


@pytest.mark.slow
@pytest.mark.parametrize("layout", MORE_LAYOUTS)
def test_no_layout_matters(runs, one, reference, layout):
    ranks, overrides = MORE_LAYOUTS[layout]
    assert_same(runs, layout, finetune(runs, layout, *one, *overrides, ranks=ranks), reference, "classes")


@pytest.mark.slow
def test_nor_do_ranks_that_share_rows_or_layers(runs, tmp_path, files):
    two_heads = settings(write_foundation(tmp_path / "model", heads=2, head_size=18), files[False])
    whole = finetune(runs, "shared-by-none", *two_heads, "zero=stage1")
    for shared in ("sequence", "tensor"):
        layout = ("zero=stage1", f"parallel.{shared}=2", "kernels=sdpa")
        found = finetune(runs, f"shared-{shared}", *two_heads, *layout, ranks=2)
        assert_same(runs, f"shared-{shared}", found, whole, "shared-by-none")


@pytest.mark.slow
@pytest.mark.parametrize("layout", OF_SETS)
def test_nor_for_an_encoder_and_any_number_of_labels(runs, several_settings, several, layout):
    ranks, overrides = OF_SETS[layout]
    assert_same(runs, layout, finetune(runs, layout, *several_settings, *overrides, ranks=ranks), several, "sets")


@pytest.mark.slow
def test_a_killed_job_goes_on_exactly(runs, one):
    many = ("schedule.steps=16", "checkpoint.every=5", "zero=stage2", "classification.baseline=false")
    name = (f"run.directory={runs}", "run.name=killed")
    job = start_ranks("framework.finetune", *SMALL, *name, *one, *many, ranks=2)
    metrics_file = runs / "killed" / "metrics.jsonl"
    while not metrics_file.exists() or metrics_file.read_text().count("\n") < 7:
        assert job[0].poll() is None, job[0].communicate()
        time.sleep(0.005)
    os.killpg(job[0].pid, signal.SIGKILL)
    for rank in job:
        rank.communicate()
    assert not (runs / "killed" / "model").exists()
    resumed = finetune(runs, "killed", *one, *many, ranks=2)
    assert re.search("taken up at step (5|10), ", (runs / "killed" / "log" / "rank-00001.log").read_text())
    assert curve(resumed) == curve(finetune(runs, "whole", *one, *many, ranks=2))


def predictions(run_directory):
    return [json.loads(line) for line in (run_directory / "predictions.jsonl").read_text().splitlines()]


def text_at(place):
    file, _, line = place.rpartition(":")
    return json.loads(Path(file).read_text().splitlines()[int(line) - 1])


def test_it_learns(reference):
    assert reference[-1]["train/loss"] < 0.8 * reference[0]["train/loss"]
    assert held_out(reference)[-1][0] < held_out(reference)[0][0]


@pytest.fixture(params=["classes", pytest.param("sets", marks=pytest.mark.slow)])
def finished(request):
    """A run of one class a text with a decoder, or of several with an encoder: its name and records."""
    return request.param, request.getfixturevalue({"classes": "reference", "sets": "several"}[request.param])


def test_the_predictions_are_those_of_transformers_pipeline(runs, finished):
    name, _ = finished
    rows = predictions(runs / name)
    pipe = pipeline("text-classification", model=str(runs / name / "model"), top_k=None)
    told = pipe([text_at(row["place"])["text"] for row in rows], batch_size=16)
    names = list(rows[0]["probabilities"])
    theirs = np.array([[next(p["score"] for p in each if p["label"] == n) for n in names] for each in told])
    kept = np.array([[row["probabilities"][n] for n in names] for row in rows])
    np.testing.assert_allclose(kept, theirs, atol=1e-5)
    ours = classify(runs / name / "model", [text_at(row["place"])["text"] for row in rows])
    np.testing.assert_allclose(kept, ours, atol=1e-5)
    for row in rows:
        asked = text_at(row["place"])["label"]
        assert row["labels"] == (asked if name == "sets" else [asked])


def test_the_held_out_loss_is_transformers_own(runs, finished):
    name, records = finished
    directory = runs / name / "model"
    model, tokenizer = (kind.from_pretrained(directory) for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    rows = [row for row in predictions(runs / name) if row["split"] == "validation"]
    batch = tokenizer([text_at(row["place"])["text"] for row in rows], padding=True, return_tensors="pt")
    number = model.config.label2id
    if name == "classes":
        labels = torch.tensor([number[row["labels"][0]] for row in rows])
    else:
        labels = torch.tensor([[float(label in row["labels"]) for label in number] for row in rows])
    with torch.no_grad():
        loss = model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.item()
    assert records[-1]["eval/validation/loss"] == pytest.approx(loss, rel=1e-5)


def test_the_summary_is_scikit_learns(runs, reference):
    rows = [row for row in predictions(runs / "classes") if row["split"] == "test"]
    summary = json.loads((runs / "classes" / "summary.json").read_text())["classification"]
    scores, names = summary["splits"]["test"], summary["classes"]
    truth, predicted = [row["labels"][0] for row in rows], [row["predicted"][0] for row in rows]
    report = metrics.classification_report(truth, predicted, labels=names, output_dict=True, zero_division=0)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert scores["confusion"] == metrics.confusion_matrix(truth, predicted, labels=names).tolist()
    for name in names:
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert scores["per_class"][name][ours] == pytest.approx(report[name][theirs])
    chances = np.array([[row["probabilities"][name] for name in names] for row in rows])
    truth_01 = np.array([[label == name for name in names] for label in truth])
    assert scores["brier_score"] == pytest.approx(((chances - truth_01) ** 2).sum(axis=1).mean())
    assert reference[-1]["eval/test/macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])


def test_the_baseline_stands_beside_it(runs, reference):
    """Words tell the class, so counting them must find it; the comparison is over the same examples."""
    found = json.loads((runs / "classes" / "summary.json").read_text())["classification"]
    baseline, comparison = found["baseline"], found["baseline"]["comparison"]
    assert baseline["splits"]["test"]["accuracy"] > 0.9
    assert baseline["splits"]["test"]["examples"] == found["splits"]["test"]["examples"]
    difference = found["splits"]["test"]["accuracy"] - baseline["splits"]["test"]["accuracy"]
    assert comparison["value"] == pytest.approx(difference)
    apart = comparison["only_model"] - comparison["only_baseline"]
    assert comparison["value"] == pytest.approx(apart / found["splits"]["test"]["examples"])
    assert comparison["test"] == "McNemar, exact"


def test_the_report_shows_the_classes(runs, finished):
    name, _ = finished
    page = write_report(runs / name).read_text()
    found = json.loads((runs / name / "summary.json").read_text())["classification"]
    assert "Loam · finetune: classification" in page
    assert found["baseline"]["comparison"]["verdict"].split(" (")[0] in html.unescape(page)
    assert ("Confusion, test" in page) == (name == "classes")
    assert f"<td>{found['splits']['test']['macro']['f1']:.3f}</td>" in page
    assert "Macro F1 by step" in page


@pytest.mark.slow
def test_a_classifier_goes_on_where_the_classes_are_the_same(runs, reference, one, foundation):
    again = [item.replace(str(foundation), str(runs / "classes" / "model")) for item in one]
    same = finetune(runs, "same-classes", *again, "schedule.steps=1", "classification.baseline=false")
    assert same[0]["train/loss"] < 0.8 * reference[0]["train/loss"]
    done = run("framework.generate", f"model.path={runs / 'classes' / 'model'}", "prompt=a")
    assert done.returncode == 2
    assert "is a classifier, which predicts no tokens" in done.stderr


@pytest.mark.slow
def test_bad_input_is_one_line(tmp_path, foundation):
    data = write_lines(tmp_path / "bad.jsonl", texts(40))
    done = run(
        "framework.finetune", "task=classification", f"model.path={foundation}", f"data.train={data}",
        f"run.directory={tmp_path}", "run.name=run", "rows.length=12",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("loam: ")]
    assert re.search(r"bad\.jsonl:\d+: has \d+ tokens, and rows\.length allows 12", line), line
    assert not (tmp_path / "run" / "model").exists()


X = [{"text": f"a {n}", "label": "x"} for n in range(30)]


@pytest.mark.parametrize(
    ("rows", "weights", "told"),
    [
        (X, "none", r"data\.train: all \d+ examples have the label 'x'"),
        ([{"text": "a", "label": ""}, *X], "none", r"bad\.jsonl:1: the label"),
        ([{"text": "a"}, *X], "none", r"label"),
        (texts(40), {"wet": 2}, r"classification\.class_weights: 'wet' is no class; those of data.train are"),
        (texts(40), "heavy", r"classification\.class_weights: unknown value 'heavy'; choose none | balanced"),
        (
            [*texts(40), {"text": "stone " * 150, "label": "water"}],
            "none",
            r"has \d+ tokens, and rows\.length allows 96",
        ),
        (texts(40), {"water": -1}, r"classification\.class_weights\.water: is -1"),
    ],
)
def test_labels_that_make_no_task_are_refused(tmp_path, foundation, rows, weights, told):
    shape = asdict(read_model_directory(foundation).config)
    config = FinetuneConfig(
        model=TunedModelConfig(**shape, path=str(foundation)),
        data=LabelledDataConfig(train=str(write_lines(tmp_path / "bad.jsonl", rows))),
        rows=RowsConfig(length=96),
        classification=ClassificationConfig(class_weights=weights),
    )
    with pytest.raises(UserError, match=told) as refused:
        checked_stage(config)
    assert "\n" not in str(refused.value)


def checked_stage(config):
    config.check()
    return Classification(config)


def test_an_encoders_rows_are_not_shared_by_ranks():
    config = FinetuneConfig(data=LabelledDataConfig(train="a"), model=TunedModelConfig(causal=False, path="a"))
    config.parallel.sequence = 2
    with pytest.raises(UserError, match=r"^parallel\.sequence: is 2, and an encoder judges by the mean"):
        config.check(2)
