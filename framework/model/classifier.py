"""A transformer that says which class a text belongs to, or which classes, as `transformers` builds such models.

A decoder judges at a text's last token, which has seen all the others: one matrix, `score`, makes the classes' logits
of its last hidden state. An encoder (EuroBERT, arXiv:2503.05500) makes logits of every token, by two layers with a
GELU between, and takes their mean; as the second of these is linear, it is applied once to the mean here.

Shapes: B batch, T time, N texts, C hidden size, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framework.config import ModelConfig
from framework.model.transformer import Head, Output, Transformer, initialize, logits


@dataclass(frozen=True)
class Classes:
    """What a classifier tells apart.

    Attributes:
        names: in the order of their numbers.
        several: a text may be of any number of them, each of its own probability; else it is of exactly one.
    """

    names: tuple[str, ...]
    several: bool = False

    def probabilities(self, logits_NK: Tensor) -> Tensor:
        """Of each class [N, K], in the dtype of the logits."""
        return logits_NK.sigmoid() if self.several else logits_NK.softmax(dim=1)


class Classifier(Transformer):
    """A foundation model with `score` in place of the output projection."""

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__(config)
        if not config.tied_embeddings:
            del self.output
        if not config.causal:
            self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.score = Score(config.hidden_size, classes, bias=not config.causal)

    def project(self, x_BTC: Tensor, head: Head) -> Any:
        """What `head` makes of what the logits are linear in, [B, T, C], and the weight [K, C]; see `Score`."""
        return self.score(x_BTC if self.config.causal else F.gelu(self.dense(x_BTC)), head)


class Score(Output):
    """The last matrix; a bias is given to the head as the weight of one more feature, which is always 1."""

    def forward(self, x: Tensor, head: Head = logits) -> Any:
        """What `head` makes of features [..., C] and the weight [K, C]; with a bias of [..., C + 1] and [K, C + 1]."""
        if self.bias is None:
            return head(x, self.weight)
        return head(F.pad(x, (0, 1), value=1.0), torch.cat([self.weight, self.bias[:, None]], dim=1))


def initialize_score(model: Classifier, seed: int) -> None:
    """Fill what a foundation model does not bring."""
    parts = {name: module for name, module in model.named_children() if name in ("dense", "score")}
    initialize(nn.ModuleDict(parts), model.config, seed)


def foundation_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the weights of a language model or a classifier those that a `Classifier` has in common with either."""
    own = ("output.", "dense.", "score.")
    return {name: tensor for name, tensor in state.items() if not name.startswith(own)}


def judged(x_BTC: Tensor, last_BT: Tensor, inside_BT: Tensor, causal: bool) -> Tensor:
    """The features [N, C] by which each text is judged, row after row.

    last_BT: which tokens are the last of a text. inside_BT: which are of any text; an encoder takes their mean.
    """
    if causal:
        return x_BTC[last_BT]
    last = last_BT.flatten().long()
    text, texts = last.cumsum(0) - last, int(last.sum())
    inside = inside_BT.flatten() & (text < texts)  # not what a row has that nobody asks for
    summands = x_BTC.flatten(0, 1)[inside].float()
    sums_NC = torch.zeros(texts, x_BTC.shape[-1], device=x_BTC.device).index_add(0, text[inside], summands)
    return (sums_NC / torch.bincount(text[inside], minlength=texts)[:, None]).to(x_BTC.dtype)


def padded(texts: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Texts as ids, each alone in a row that is padded to the longest: tokens [N, T], int64, and which of them are
    inside a text and which its last, bool [N, T].
    """
    lengths = torch.tensor([len(text) for text in texts], device=device)
    place = torch.arange(int(lengths.max()), device=device)[None, :]
    inside, last = place < lengths[:, None], place == lengths[:, None] - 1
    tokens = torch.zeros(inside.shape, dtype=torch.int64, device=device)
    tokens[inside] = torch.tensor([token for text in texts for token in text], device=device)
    return tokens, inside, last


@torch.no_grad()
def class_logits(model: Classifier, texts: Sequence[list[int]]) -> Tensor:
    """Logits [N, K], fp32, of texts as ids, each alone in a row."""
    tokens, inside, last = padded(texts, model.embedding.weight.device)
    causal = model.config.causal
    return model(
        tokens,
        (~inside).int(),  # the padding is a document of its own
        head=lambda x_BTC, weight_KC: F.linear(judged(x_BTC, last, inside, causal), weight_KC).float(),
    )
