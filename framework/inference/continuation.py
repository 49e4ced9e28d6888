"""A continuation on its way: what is still to be read, and what each new token makes of it.

Shapes: B texts, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from framework.inference.request import Finish, Likelihood, Piece, Request
from framework.inference.sampling import distribution, draw, penalised
from framework.inference.text_stream import TextStream
from framework.model.tokenizer import Tokenizer


class Continuation:
    """A continuation on its way. `unread`: tokens that the model has not read; `length`: how many it has."""

    def __init__(self, number: int, request: Request, vocabulary: int, device: torch.device) -> None:
        self.number = number
        self.request = request
        self.unread = list(request.tokens)
        self.length = 0
        self.written = 0
        self.generator = request.sampling.generator()
        self.stream = TextStream(request.stop)
        self.seen_V: Tensor | None = None
        if request.sampling.repetition_penalty != 1:
            self.seen_V = torch.zeros(vocabulary, dtype=torch.bool, device=device)
            self.seen_V[list(request.tokens)] = True

    def add(self, token: int, likelihood: Likelihood | None, tokenizer: Tokenizer) -> Piece:
        """What the token makes of the text."""
        if token in tokenizer.end:
            return Piece(self.stream.finish(), finish="stop")
        self.unread = [token]
        self.written += 1
        if self.seen_V is not None:
            self.seen_V[token] = True
        text = self.stream.push(tokenizer.piece(token))
        full = self.written == self.request.maximum_tokens
        if full and not self.stream.stopped:
            text += self.stream.finish()
        finish: Finish | None = "stop" if self.stream.stopped else "length" if full else None
        return Piece(text, (token,), () if likelihood is None else (likelihood,), finish)


def choose(texts: Sequence[Continuation], logits_BV: Tensor) -> list[int]:
    """The next token of each text."""
    if any(text.seen_V is not None for text in texts):
        logits_BV = logits_BV.clone()
        for row, text in enumerate(texts):
            if text.seen_V is not None:
                logits_BV[row] = penalised(logits_BV[row], text.seen_V, text.request.sampling.repetition_penalty)
    tokens = logits_BV.argmax(dim=-1).tolist()
    drawn = [row for row, text in enumerate(texts) if not text.request.sampling.greedy]
    if drawn:
        rows_BV = logits_BV if len(drawn) == len(texts) else logits_BV[drawn]
        probabilities_BV = distribution(rows_BV, [texts[row].request.sampling for row in drawn])
        for row, token in zip(drawn, draw(probabilities_BV, [texts[row].generator for row in drawn]), strict=True):
            tokens[row] = token
    return tokens


def likelihoods_of(texts: Sequence[Continuation], logits_BV: Tensor, tokens: Sequence[int]) -> list[Likelihood | None]:
    """Of the token of each text that asked for it."""
    found: list[Likelihood | None] = [None] * len(texts)
    for row, text in enumerate(texts):
        count = text.request.log_probabilities
        if count is not None:
            log_V = logits_BV[row].log_softmax(dim=-1)
            best = log_V.topk(count)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            found[row] = Likelihood(log_V[tokens[row]].item(), tuple(pairs))
    return found
