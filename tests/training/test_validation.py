"""Held-out loss and bits per byte against transformers in float64, one document's part of a row at a time."""

import io
import itertools
import json
import math
import shutil
import tarfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from tests.launch import pretrain, records
from tests.training.conftest import TO_THE_END

ROW = 32  # data.sequence_length


def held_out_documents(data, corpus):
    """The documents in the order stored, read with tarfile and numpy alone."""
    documents = []
    with tarfile.open(data / "tokens" / corpus / "validation-00000.tar") as tar:
        arrays = {member.name: np.load(io.BytesIO(tar.extractfile(member).read())) for member in tar.getmembers()}
    for key in sorted(name.removesuffix(".tokens.npy") for name in arrays if name.endswith(".tokens.npy")):
        ends = np.cumsum(arrays[f"{key}.lengths.npy"])
        documents += np.split(arrays[f"{key}.tokens.npy"].astype(np.int64), ends[:-1])
    return documents


def segments(documents):
    """(inputs, labels): each row of ROW inputs, cut where documents begin, for a model sees nothing across."""
    tokens = np.concatenate(documents)
    begins = set(np.cumsum([len(document) for document in documents])[:-1].tolist())
    cuts = sorted(begins | set(range(0, len(tokens) - 1, ROW)) | {len(tokens) - 1})
    for start, end in itertools.pairwise(cuts):
        yield tokens[start:end], tokens[start + 1 : end + 1]


@torch.no_grad()
def total_loss(model, documents):
    """Nats over every token but the first, and how many those are."""
    total, count = 0.0, 0
    for inputs, labels in segments(documents):
        logits = model(torch.from_numpy(inputs)[None]).logits[0]
        total += F.cross_entropy(logits, torch.from_numpy(labels), reduction="sum").item()
        count += len(labels)
    return total, count


@pytest.mark.parametrize("corpus", ["web", "books"])
def test_loss_and_bits_per_byte_are_those_of_the_model_directory(finished, data, corpus):
    model = AutoModelForCausalLM.from_pretrained(finished / "model", dtype=torch.float64)
    documents = held_out_documents(data, corpus)
    manifest = json.loads((data / "tokens" / "manifest.json").read_text())["corpora"][corpus]["validation"]
    assert [len(documents), sum(map(len, documents))] == [manifest["documents"], manifest["tokens"]]
    total, count = total_loss(model, documents)
    assert count == manifest["tokens"] - 1
    last = records(finished)[-1]
    assert last[f"eval/{corpus}/loss"] == pytest.approx(total / count, rel=1e-5)
    assert last[f"eval/{corpus}/bits_per_byte"] == pytest.approx(total / math.log(2) / manifest["bytes"], rel=1e-5)


def test_the_held_out_split_is_evaluated_when_due(finished):
    evaluated = [record["step"] for record in records(finished) if "eval/web/loss" in record]
    assert evaluated == [6, 12]


@pytest.mark.slow
def test_two_ranks_evaluate_to_the_same_numbers_and_write_the_missing_model(finished, runs, data):
    """The last checkpoint's weights on two ranks, with the other rows and the other padding that brings."""
    shutil.copytree(finished, runs / "on-two-ranks")
    shutil.rmtree(runs / "on-two-ranks" / "model")
    before = records(finished)
    assert pretrain(runs, data, "on-two-ranks", *TO_THE_END, "zero=stage3", ranks=2) == before
    alone, together = (
        json.loads((run / "model" / "provenance.json").read_text())["held_out"]
        for run in (finished, runs / "on-two-ranks")
    )
    for corpus in ("web", "books"):
        for number in ("loss", "bits_per_byte"):
            assert together[corpus][number] == pytest.approx(alone[corpus][number], rel=1e-6)
    weights = "model/model.safetensors"
    assert (runs / "on-two-ranks" / weights).read_bytes() == (finished / weights).read_bytes()
