"""What a model writes after prompts of one length, all in one batch.

Shapes: B batch, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from framework import heartbeat
from framework.inference import sampling as inference
from framework.inference.completion import joined
from framework.inference.continuation import Continuation, choose
from framework.inference.request import Piece, Request
from framework.model.cache import KeyValueCache
from framework.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How a text is written.

    maximum_tokens: of the continuation.
    stop: texts before the first of which it ends.
    temperature, top_k, top_p: see `framework.inference.sampling.Sampling`; temperature 0 is greedy.
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
    ended: str  # end of text | stop | length


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
    texts = [_continuation(number, prompt, sampling, device) for number, prompt in zip(numbers, prompts, strict=True)]
    pieces: list[list[Piece]] = [[] for _ in texts]
    unread = torch.tensor([list(prompt) for prompt in prompts], device=device)
    for _ in range(sampling.maximum_tokens):
        heartbeat.beat()
        tokens = choose(texts, module(unread, cache=cache, last_only=True)[:, -1].float())
        for text, own, token in zip(texts, pieces, tokens, strict=True):
            if not (own and own[-1].finish):
                own.append(text.add(token, None, tokenizer))
        if all(own[-1].finish for own in pieces) and not to_the_limit:
            break
        unread = torch.tensor(tokens, device=device)[:, None]
    return [_written(text, own) for text, own in zip(texts, pieces, strict=True)]


def _continuation(number: int, prompt: Sequence[int], sampling: Sampling, device: torch.device) -> Continuation:
    settings = inference.Sampling(sampling.temperature, sampling.top_k, sampling.top_p, seed=sampling.seed)
    request = Request(tuple(prompt), sampling.maximum_tokens, settings.of(number), sampling.stop)
    return Continuation(number, request, 0, device)


def _written(text: Continuation, pieces: list[Piece]) -> Written:
    whole = joined(pieces)
    ended = "length" if whole.finish == "length" else "stop" if text.stream.stopped else "end of text"
    return Written(whole.text, whole.tokens, ended)
