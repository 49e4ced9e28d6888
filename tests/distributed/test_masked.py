"""Masked language models in real jobs: transformers' losses, any layout, exact resumption, masks filled in."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from framework.stream.manifest import read_manifest
from framework.stream.masked_lm import MaskedLM
from tests.curves import assert_same_curve, curve
from tests.launch import pretrain, records
from tests.training.test_validation import ROW, held_out_documents

MASKED = ("objective=masked_lm", "model.causal=false")
TO_THE_END = ("schedule.steps=20", "run.stop_after=0", "validation.every=10")


@pytest.fixture(scope="module")
def masked(runs, data):
    """The directory of a run on one rank that came to its end."""
    pretrain(runs, data, "masked", *MASKED, *TO_THE_END, "zero=stage1")
    return runs / "masked"


def test_the_records_tell_of_masks_and_not_of_bytes(masked):
    steps = records(masked)
    evaluated = [key for key in steps[-1] if key.startswith("eval/")]
    assert sorted(evaluated) == ["eval/books/masked_loss", "eval/web/masked_loss"]
    assert steps[-1]["train/loss"] < steps[0]["train/loss"]
    summary = json.loads((masked / "summary.json").read_text())
    for name, corpus in summary["corpora"].items():
        assert corpus["bits_per_byte"] is None
        assert corpus["masked_loss"] == steps[-1][f"eval/{name}/masked_loss"]


@pytest.mark.parametrize("corpus", ["web", "books"])
@torch.no_grad()
def test_the_held_out_loss_is_that_of_the_model_directory(masked, data, corpus):
    model = AutoModelForMaskedLM.from_pretrained(masked / "model", dtype=torch.float64)
    manifest = read_manifest(data)
    masks = MaskedLM(0.15, 1.0, 0.0, 0, manifest.vocabulary_size, manifest.reserved["<|mask|>"], set(range(11)))
    documents = held_out_documents(data, corpus)
    stream = np.concatenate(documents)
    begins = np.cumsum([len(document) for document in documents])[:-1]
    total, count = 0.0, 0
    for row, first in enumerate(range(0, len(stream) - 1, ROW)):
        part = stream[first : first + ROW]
        padded = np.zeros((1, ROW + 1), dtype=np.int64)
        padded[0, : len(part)] = part
        tokens, labels, _ = masks(padded, np.zeros((1, ROW), dtype=np.int32), range(row, row + 1))
        inside = [0, *(int(b) - first for b in begins if first < b < first + len(part)), len(part)]
        for start, end in itertools.pairwise(inside):
            logits = model(torch.from_numpy(tokens[:, start:end])).logits[0]
            label = torch.from_numpy(labels[0, start:end])
            total += F.cross_entropy(logits, label, ignore_index=-100, reduction="sum").item()
            count += int((label != -100).sum())
    assert 0.1 < count / len(stream) < 0.2
    assert records(masked)[-1][f"eval/{corpus}/masked_loss"] == pytest.approx(total / count, rel=1e-5)


def test_transformers_fills_masks_with_it(masked):
    tokenizer = AutoTokenizer.from_pretrained(masked / "model")
    assert tokenizer.mask_token_id == json.loads((masked / "model" / "config.json").read_text())["mask_token_id"] == 10
    found = pipeline("fill-mask", model=str(masked / "model"))("<|endoftext|>the river<|mask|> grows", top_k=3)
    assert [0 < answer["score"] < 1 for answer in found] == [True] * 3
    assert "pipeline_tag: fill-mask" in (masked / "model" / "README.md").read_text()
    assert not (masked / "model" / "generation_config.json").exists()


LAYOUTS = {"2 ranks": (2, ["zero=stage2"]), "4 ranks": (4, ["zero=stage3", "batch.micro=2"]), "0": (1, ["zero=stage0"])}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_does_not_matter(runs, data, masked, layout):
    ranks, overrides = LAYOUTS[layout]
    found = pretrain(runs, data, f"masked-{layout.replace(' ', '-')}", *MASKED, *TO_THE_END, *overrides, ranks=ranks)
    assert_same_curve(found, records(masked))
    for name in ("web", "books"):
        key = f"eval/{name}/masked_loss"
        assert found[-1][key] == pytest.approx(records(masked)[-1][key], rel=1e-5)


@pytest.mark.slow
def test_resuming_is_exact_and_berts_masks_are_other_masks(runs, data):
    bert = (*MASKED, "objective.rate=0.15", "objective.masked=0.8", "objective.random=0.1", "zero=stage2")
    whole = pretrain(runs, data, "bert", *bert, ranks=2)
    pretrain(runs, data, "bert-stopped", *bert, "run.stop_after=10", ranks=2)
    shutil.copytree(runs / "bert-stopped", runs / "bert-resumed")
    assert curve(pretrain(runs, data, "bert-resumed", *bert, ranks=2)) == curve(whole)
    modern = pretrain(runs, data, "modern", *MASKED, "run.stop_after=1")
    assert modern[0]["data/batch_hash"] != whole[0]["data/batch_hash"]
