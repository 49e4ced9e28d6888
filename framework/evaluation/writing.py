"""What a model writes after prompts of one length, all in one batch.

Shapes: B batch, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from framework import heartbeat
from framework.inference import sampling as inference
from framework.inference.text_stream import TextStream
from framework.model.cache import KeyValueCache
from framework.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How a text is written.

    maximum_tokens: of the continuation.
    stop: texts before the first of which it ends.
    temperature, top_k, top_p: see `framework.inference.sampling.distribution`; temperature 0 is greedy.
    seed: the same seed gives the same text of a prompt in the same place.
    """

    maximum_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Written:
    """A continuation: its text, its tokens without the one that ends it, and why it ended."""

    text: str
    tokens: tuple[int, ...]
    ended: Literal["end of text", "stop", "length"]


@dataclass
class _Page:
    """A continuation on its way."""

    stream: TextStream
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    ended: Literal["end of text", "stop", "length", ""] = ""

    def add(self, token: int, tokenizer: Tokenizer, limit: int) -> None:
        if token in tokenizer.end:
            self.ended = "end of text"
        else:
            self.tokens.append(token)
            self.pieces.append(self.stream.push(tokenizer.piece(token)))
            self.ended = "stop" if self.stream.stopped else "length" if len(self.tokens) == limit else ""
        if self.ended in ("end of text", "length"):
            self.pieces.append(self.stream.finish())
            self.ended = "stop" if self.stream.stopped else self.ended


@torch.no_grad()
def write_after(
    module: Callable[..., Any],
    cache: KeyValueCache,
    prompts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    sampling: Sampling,
    tokenizer: Tokenizer,
    device: torch.device,
    to_the_limit: bool,
) -> list[Written]:
    """The continuation of each prompt; all prompts are equally long, as a cache has one length for all rows.

    numbers: of the prompts among all that are asked for, on which, with the seed, their random numbers depend.
    to_the_limit: do as many forward passes as the longest continuation could take, for other ranks wait in them.
    """
    pages = [_Page(TextStream(sampling.stop), _generator(sampling.seed, number)) for number in numbers]
    unread = torch.tensor([list(prompt) for prompt in prompts], device=device)
    for _ in range(sampling.maximum_tokens):
        heartbeat.beat()
        logits_BV = module(unread, cache=cache, last_only=True)[:, -1].float().cpu()
        tokens = _next(logits_BV, pages, sampling)
        for page, token in zip(pages, tokens, strict=True):
            if not page.ended:
                page.add(token, tokenizer, sampling.maximum_tokens)
        if all(page.ended for page in pages) and not to_the_limit:
            break
        unread = torch.tensor(tokens, device=device)[:, None]
    return [Written("".join(page.pieces), tuple(page.tokens), page.ended or "length") for page in pages]


def _next(logits_BV: Tensor, pages: Sequence[_Page], sampling: Sampling) -> list[int]:
    if sampling.temperature == 0:
        return logits_BV.argmax(dim=-1).tolist()
    settings = inference.Sampling(sampling.temperature, sampling.top_k, sampling.top_p)
    probabilities_BV = inference.distribution(logits_BV, [settings] * len(pages))
    return inference.draw(probabilities_BV, [page.generator for page in pages])


def _generator(seed: int, number: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, number]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
