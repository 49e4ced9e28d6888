"""The page of a run: what it shows is in the run's files, it obeys nobody, and it stays small."""

import json
import random
import shutil
from xml.etree import ElementTree

import pytest

from framework import composition
from framework.config import PretrainConfig
from framework.errors import UserError
from framework.training.record.report.content import Steps, report_of
from framework.training.record.report.page import LiveReport, page_of, write_report
from tests.launch import records, run
from tests.page.harmless import check_harmless

SCRIPT = "</pre></style><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"


def svgs(page):
    return [ElementTree.fromstring("<svg" + part.split("</svg>")[0] + "</svg>") for part in page.split("<svg")[1:]]


def record(step, **others):
    return {
        "step": step,
        "train/loss": 5.0,
        "train/gradient_norm": 1.0,
        "train/learning_rate": 1e-3,
        "train/step_seconds": 0.5,
        "train/tokens_per_second": 1000.0,
        "train/mfu": 0.4,
        "data/sequences": 16 * step,
        "data/tokens": 512 * step,
        "data/share/web": 1.0,
        **others,
    }


def directory(path, steps, config=None):
    """A run directory made by hand."""
    config = config or PretrainConfig()
    config.model.vocabulary_size = 360
    path.mkdir()
    (path / "config.yaml").write_text(composition.to_yaml(config))
    (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in steps))
    return path


def test_the_page_of_a_finished_run_has_its_figures(finished):
    page = check_harmless((finished / "report.html").read_text(encoding="utf-8"))
    last, summary = records(finished)[-1], json.loads((finished / "summary.json").read_text())
    assert "Complete: 12 steps" in page.text
    for number in (f"{last['train/loss']:.4f}", f"{last['data/tokens']:,}", f"{summary['tokens_per_second']:,.0f}"):
        assert number in page.text
    for corpus in summary["corpora"].values():
        assert f"{100 * corpus['share_asked']:.1f} %" in page.text
        assert f"{100 * corpus['share_realised']:.1f} %" in page.text
        assert f"{corpus['bits_per_byte']:.3f}" in page.text
    for step in (6, 10, 12):  # the checkpoints that are kept
        assert f" {step} " in page.text
    assert "sequence_length: 32" in page.text  # the configuration
    for sample in (finished / "samples.jsonl").read_text().splitlines():
        assert "".join(json.loads(sample)["text"].split()) in "".join(page.text.split())
    titles = [title.text for drawing in svgs((finished / "report.html").read_text()) for title in drawing.iter("title")]
    assert {"Loss by step", "Learning rate by step", "Tokens a second by step", "Memory by step, in bytes"} <= {*titles}


def test_a_finished_run_without_its_page_gets_one(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "report.html").unlink()
    done = run("framework.report", f"path={copy}")
    assert (done.returncode, done.stdout.strip()) == (0, str(copy / "report.html"))
    assert (copy / "report.html").read_text().replace("copy", "finished") == (finished / "report.html").read_text()


def test_hostile_text_is_there_as_text(tmp_path):
    config = PretrainConfig()
    config.data.path = SCRIPT
    shares = {f"data/share/{SCRIPT.replace('/', '|')}": 1.0}
    path = directory(tmp_path / "hostile", [record(1, **shares), record(2, **{"train/loss": None})], config)
    event = {"step": 2, "action": SCRIPT, "reason": SCRIPT, "loss": None, "threshold": 3.0, "sequences": [16, 32]}
    (path / "guard.jsonl").write_text(json.dumps(event) + "\n")
    (path / "samples.jsonl").write_text(json.dumps({"step": 2, "prompt": SCRIPT, "text": SCRIPT + "\x00\ud800"}) + "\n")
    page = check_harmless(page_of(report_of(path)))
    assert page.text.count("<script>alert(1)") >= 5
    assert "step 2: " + SCRIPT.replace("_", " ") in page.text  # the mark in the chart
    assert "loss 5.0000" in page.text  # the last that is finite


def test_a_run_under_way_and_one_that_never_began(tmp_path):
    path = directory(tmp_path / "going", [record(7)])
    assert "Under way: step 7 of 400" in check_harmless(write_report(path).read_text()).text
    with pytest.raises(UserError, match=r"is no run directory, it has no config\.yaml"):
        report_of(tmp_path)
    with pytest.raises(UserError, match="has made no step yet"):
        report_of(directory(tmp_path / "new", []))


def test_a_page_that_cannot_be_made_does_not_stop_a_run(tmp_path, caplog):
    LiveReport(tmp_path / "nowhere").refresh()
    assert "report.html could not be written" in caplog.text


def test_a_long_run_makes_a_small_page(tmp_path):
    """Every step of 20,000, with a spike that must be on it, and hundreds of everything else."""
    steps, chance = 20_000, random.Random(0)
    corpora = [f"corpus-{number}" for number in range(12)]

    def noisy(step):
        others = {f"data/share/{name}": 1 / 12 for name in corpora}
        if step % 100 == 0:
            others |= {f"eval/{name}/loss": chance.random() for name in corpora}
            others |= {f"eval/{name}/bits_per_byte": chance.random() for name in corpora}
            others |= {f"norm/{kind}/blocks.{n}": 1.0 for kind in ("parameters", "gradients") for n in range(80)}
        return record(step, **others) | {"train/loss": 99.0 if step == 7777 else chance.random()}

    path = directory(tmp_path / "long", (noisy(step) for step in range(1, steps + 1)))
    for name in ("guard.jsonl", "samples.jsonl"):
        (path / name).write_text(
            "".join(json.dumps({"step": s, "prompt": "a", "text": "b" * 300}) + "\n" for s in range(2000))
        )
    page = page_of(report_of(path))
    check_harmless(page)
    assert len(page) < 600_000
    [loss] = [drawing for drawing in svgs(page) if drawing.findtext("title") == "Loss by step"]
    assert {"100", "0"} <= {text.text for text in loss.iter("text")}


def test_points_without_a_value_are_left_out():
    steps = Steps()
    for one in (record(1, **{"train/loss": None}), record(2), record(3, **{"train/loss": None})):
        steps.add(one)
    assert steps.curves["train/loss"].points.points() == [(2, 5.0)]
    assert (steps.first_loss, steps.last_loss) == (5.0, 5.0)
