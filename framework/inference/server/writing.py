"""What completions and chats share: from what was asked to texts on their way, whole or as a stream of events."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import StreamingResponse

from framework.config import LimitsConfig
from framework.inference.request import Finish, Likelihood, Piece, Request
from framework.inference.sampling import Sampling
from framework.inference.server.decoding import Batch, DecodingThread
from framework.inference.server.exchange import Exchange
from framework.inference.server.reading import Reader
from framework.inference.server.refusal import Refusal
from framework.inference.server.schema import Generating
from framework.model.tokenizer import Tokenizer


@dataclass
class Written:
    """A text as far as it has come."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    likelihoods: list[Likelihood] = field(default_factory=list)
    finish: Finish | None = None

    def add(self, piece: Piece) -> None:
        """What has come."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.likelihoods += piece.likelihoods
        self.finish = piece.finish


class Writer:
    """Starts texts for HTTP requests. `positions`: tokens of prompt and continuation."""

    def __init__(self, tokenizer: Tokenizer, thread: DecodingThread, positions: int, limits: LimitsConfig) -> None:
        self.tokenizer = tokenizer
        self.thread = thread
        self._positions = positions
        self._limits = limits
        self.reader = Reader()

    def start(
        self,
        http: HttpRequest,
        asked: Generating,
        prompts: Sequence[Sequence[int]],
        maximum: int | None,
        log_probabilities: int | None,
    ) -> AsyncIterator[Batch]:
        """`asked.n` texts for each prompt, in this order; they end with the exchange at the latest.

        maximum: tokens of each; None: as many as there is room for. Raises Refusal, or UserError naming the field.
        """
        requests = [
            Request(
                tuple(prompt),
                self._maximum(len(prompt), maximum),
                Sampling(
                    temperature=asked.temperature,
                    top_k=max(asked.top_k, 0),
                    top_p=asked.top_p,
                    min_p=asked.min_p,
                    repetition_penalty=asked.repetition_penalty,
                    # texts of one seed and one prompt would be the same text
                    seed=None if asked.seed is None else asked.seed + number,
                ),
                tuple(asked.stop),
                log_probabilities,
            )
            for prompt in prompts
            for number in range(asked.n)
        ]
        exchange: Exchange = http.scope["loam"]
        exchange.prompt_tokens = sum(map(len, prompts))
        answer = exchange.at_end.enter_context(self.thread.submit(requests))
        return _noted(answer.batches(exchange.deadline), exchange)

    def _maximum(self, prompt: int, maximum: int | None) -> int:
        room = self._positions - prompt
        most = self._limits.maximum_tokens or self._positions
        if room < 1:
            raise Refusal(
                400,
                f"the prompt has {prompt} tokens; with at least one more, there are {self._positions} positions",
                code="context_length_exceeded",
            )
        if maximum is None:
            return min(room, most)
        if maximum > min(room, most):
            raise Refusal(
                400,
                f"max_tokens: is {maximum}; after a prompt of {prompt} tokens at most {min(room, most)} may follow",
                parameter="max_tokens",
                code="context_length_exceeded",
            )
        return maximum


async def _noted(batches: AsyncIterator[Batch], exchange: Exchange) -> AsyncIterator[Batch]:
    async for batch in batches:
        if exchange.first_token is None:
            exchange.first_token = asyncio.get_running_loop().time()
        exchange.tokens += sum(len(piece.tokens) for _, piece in batch)
        yield batch


async def whole(batches: AsyncIterator[Batch], texts: int) -> list[Written]:
    """The texts once all have ended."""
    written = [Written() for _ in range(texts)]
    async for batch in batches:
        for number, piece in batch:
            written[number].add(piece)
    return written


def usage(exchange: Exchange) -> dict[str, int]:
    """Counts of tokens; the one that ends a text is not among them."""
    read, written = exchange.prompt_tokens, exchange.tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def head(kind: str, model: str, prefix: str) -> dict[str, Any]:
    """How every answer and every event of it begins."""
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


async def events(
    http: HttpRequest,
    asked: Generating,
    batches: AsyncIterator[Batch],
    begin: dict[str, Any],
    opening: Iterable[dict[str, Any]],
    choice: Callable[[int, Piece], dict[str, Any]],
) -> StreamingResponse:
    """The answer as server-sent events: `begin` with a choice each, first those of `opening`.

    It begins with the first pieces, so that what is refused before them has a status of its own.
    """
    exchange: Exchange = http.scope["loam"]
    first = await anext(batches)
    no_usage = {"usage": None} if asked.tells_usage else {}

    async def lines() -> AsyncIterator[bytes]:
        yield b"".join(_event(begin | {"choices": [one]} | no_usage) for one in opening) + encoded(first)
        try:
            async for batch in batches:
                yield encoded(batch)
        except Refusal as refusal:
            yield _event(refusal.body)
            return
        if asked.tells_usage:
            yield _event(begin | {"choices": [], "usage": usage(exchange)})
        yield b"data: [DONE]\n\n"

    def encoded(batch: Batch) -> bytes:
        shown = [(number, piece) for number, piece in batch if piece.text or piece.finish or piece.likelihoods]
        return b"".join(_event(begin | {"choices": [choice(*one)]} | no_usage) for one in shown)

    return StreamingResponse(
        lines(), media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
