"""From logits to a token: pure functions of their arguments."""

import torch
from torch import Generator, Tensor


def distribution(logits: Tensor, *, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Probabilities [..., V] in fp32 to draw the next token from, given logits [..., V].

    temperature: divides the logits; 0 puts all probability on the largest (the first of equals).
    top_k: only so many of the likeliest tokens remain; 0: all.
    top_p: of those, the fewest likeliest whose probabilities sum to at least this (arXiv:1904.09751); 1: all.
    """
    logits = logits.float()
    if temperature == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits).scatter(-1, best, 1.0)
    # The largest logit goes to 0 first: a tiny temperature must not overflow.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    logits, order = logits.sort(dim=-1, descending=True, stable=True)
    if top_k:
        logits[..., top_k:] = float("-inf")
    probabilities = logits.softmax(dim=-1)
    if top_p < 1:
        before = probabilities.cumsum(dim=-1) - probabilities  # of all likelier tokens
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, probabilities)


def draw(probabilities: Tensor, generator: Generator) -> int:
    """One index from probabilities [V]."""
    return int(torch.multinomial(probabilities, 1, generator=generator))
