"""From logits to a token: pure functions of their arguments.

The order is that of transformers' processors: repetition penalty, temperature, top-k, top-p, min-p.

Shapes: B rows, V vocabulary.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from framework.checks import require, require_not_negative, require_positive


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    temperature: divides the logits; 0: the likeliest token always (the first of equals).
    top_k: only so many of the likeliest tokens remain; 0: all.
    top_p: of those, the fewest likeliest whose probabilities sum to at least this (arXiv:1904.09751); 1: all.
    min_p: and of those, the ones at least so likely as this share of the likeliest (arXiv:2407.01082); 0: all.
    repetition_penalty: logits of tokens that came before, the prompt's included, are divided by it where above 0 and
        multiplied by it where below (CTRL, arXiv:1909.05858); 1: none.
    seed: the same seed draws the same; None: another each time.

    Raises UserError, naming the field, where one is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        require_not_negative("temperature", self.temperature)
        require_not_negative("top_k", self.top_k)
        require(0 < self.top_p <= 1, "top_p", f"is {self.top_p}", "it must lie in (0, 1]")
        require(0 <= self.min_p <= 1, "min_p", f"is {self.min_p}", "it must lie in [0, 1]")
        require_positive("repetition_penalty", self.repetition_penalty)
        if self.seed is not None:
            require(0 <= self.seed < 2**63, "seed", f"is {self.seed}", "it must lie in [0, 2^63)")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def of(self, *numbers: int) -> "Sampling":
        """The same settings for one text of several, whose random numbers follow from the seed and these numbers."""
        if self.seed is None:
            return self
        digest = hashlib.sha256(repr((self.seed, *numbers)).encode()).digest()
        return replace(self, seed=int.from_bytes(digest[:8], "big") >> 1)

    def generator(self) -> Generator:
        """The random numbers of one text, on the CPU whatever the model runs on."""
        return Generator().manual_seed(secrets.randbits(63) if self.seed is None else self.seed)


GREEDY = Sampling(temperature=0.0)


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits with the repetition penalty on the tokens where `seen`, bool, is true; see `Sampling`."""
    punished = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, punished, logits)


def distribution(logits_BV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Probabilities [B, V] in fp32 to draw each row's next token from, by the settings of that row.

    The repetition penalty, which depends on what came before, is `penalised`.
    """
    logits_BV = logits_BV.float()
    greedy_B1 = _column([float(one.greedy) for one in samplings], logits_BV).bool()
    temperature_B1 = _column([one.temperature or 1.0 for one in samplings], logits_BV)
    # The largest logit goes to 0 first: a tiny temperature must not overflow.
    scaled_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / temperature_B1
    if any(one.top_k or one.top_p < 1 for one in samplings):
        scaled_BV = _without_tail(scaled_BV, samplings)
    if any(one.min_p for one in samplings):
        least_B1 = _column([one.min_p for one in samplings], logits_BV).log()
        scaled_BV = scaled_BV.masked_fill(scaled_BV < least_B1, float("-inf"))
    probabilities_BV = scaled_BV.softmax(dim=-1)
    if greedy_B1.any():
        best_B1 = logits_BV.argmax(dim=-1, keepdim=True)
        probabilities_BV = torch.where(
            greedy_B1, torch.zeros_like(logits_BV).scatter(-1, best_B1, 1.0), probabilities_BV
        )
    return probabilities_BV


def _without_tail(logits_BV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """-inf for what top-k and top-p leave out."""
    vocabulary = logits_BV.shape[-1]
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    kept_B1 = _column([one.top_k or vocabulary for one in samplings], logits_BV)
    out_BV = torch.arange(vocabulary, device=logits_BV.device) >= kept_B1
    sorted_BV = sorted_BV.masked_fill(out_BV, float("-inf"))
    if any(one.top_p < 1 for one in samplings):
        # what sums to 1 may be rounded above it, and then 1 must keep all the same
        enough_B1 = _column([one.top_p if one.top_p < 1 else 2.0 for one in samplings], logits_BV)
        probabilities_BV = sorted_BV.softmax(dim=-1)
        before_BV = probabilities_BV.cumsum(dim=-1) - probabilities_BV  # of all likelier tokens
        sorted_BV = sorted_BV.masked_fill(before_BV >= enough_B1, float("-inf"))
    return torch.empty_like(sorted_BV).scatter(-1, order_BV, sorted_BV)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]


def draw(probabilities_BV: Tensor, generators: Sequence[Generator]) -> list[int]:
    """One index from each row, by one random number of that row's generator, whatever stands in the other rows."""
    shares_B1 = torch.stack([torch.rand(1, dtype=torch.float64, generator=one) for one in generators])
    sums_BV = probabilities_BV.double().cumsum(dim=-1)
    places_B1 = torch.searchsorted(sums_BV, shares_B1.to(sums_BV.device) * sums_BV[:, -1:], right=True)
    return places_B1.clamp(max=probabilities_BV.shape[-1] - 1)[:, 0].tolist()
