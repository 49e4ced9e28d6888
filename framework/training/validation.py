"""Loss and bits per byte on the held-out documents of each corpus, the same on any number of ranks."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from framework import distributed
from framework.stream.loader import NO_LOSS, Batch, validation_rows
from framework.stream.manifest import Manifest
from framework.training.engine import Engine


@dataclass(frozen=True)
class HeldOut:
    """What a model does on the held-out documents of one corpus.

    Attributes:
        loss: mean negative log likelihood in nats a token.
        bits_per_byte: bits to encode the documents with the model, ends of documents included, over their
            UTF-8 bytes; comparable between tokenizers and with file compressors.
    """

    loss: float
    bits_per_byte: float


class Validation:
    """The held-out rows of every corpus, dealt to the ranks."""

    def __init__(self, manifest: Manifest, sequence_length: int, micro: int) -> None:
        self.corpora = [name for name, corpus in manifest.corpora.items() if corpus.validation.tokens > 1]
        self._bytes = [manifest.corpora[name].validation.bytes for name in self.corpora]
        rows = [
            (number, row)
            for number, name in enumerate(self.corpora)
            for row in validation_rows(manifest.corpora[name].validation, sequence_length)
        ]
        world_size, rank = distributed.world_size(), distributed.rank()
        self._batches: list[tuple[list[int], Batch]] = []
        for start in range(0, len(rows), micro * world_size):
            dealt = rows[start : start + micro * world_size]
            mine = dealt[rank::world_size]
            # every rank must do every forward pass (ZeRO-3 gathers weights in it): without a row, do one unlabelled
            self._batches.append(_stack(mine) if mine else _stack([(0, _without_labels(dealt[0][1]))]))

    @torch.no_grad()
    def __call__(self, engine: Engine) -> dict[str, HeldOut]:
        """Evaluate; every rank must call, and gets the same answer."""
        sums = torch.zeros((len(self.corpora), 2), dtype=torch.float64, device=engine.device)
        engine.module.eval()
        for numbers, batch in self._batches:
            tokens, labels, document = engine.to_device(batch.tokens, batch.labels, batch.document)
            logits = engine.module(tokens, document).float()
            losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LOSS, reduction="none")
            per_row = torch.stack([losses.view_as(labels).double().sum(1), (labels != NO_LOSS).double().sum(1)], dim=1)
            sums.index_add_(0, torch.tensor(numbers, device=engine.device), per_row)
        engine.module.train()
        dist.all_reduce(sums)
        return {
            name: HeldOut(loss=total / count, bits_per_byte=total / math.log(2) / size)
            for name, size, (total, count) in zip(self.corpora, self._bytes, sums.tolist(), strict=True)
        }


def _stack(rows: list[tuple[int, Batch]]) -> tuple[list[int], Batch]:
    batches = [row for _, row in rows]
    return [number for number, _ in rows], Batch(
        np.concatenate([b.tokens for b in batches]),
        np.concatenate([b.labels for b in batches]),
        np.concatenate([b.document for b in batches]),
        [],
    )


def _without_labels(row: Batch) -> Batch:
    return Batch(row.tokens, np.full_like(row.labels, NO_LOSS), row.document, row.corpora)
