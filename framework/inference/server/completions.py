"""POST /v1/completions: prompts continued."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from framework.inference.generation import prompt_tokens
from framework.inference.request import Piece
from framework.inference.server.likelihoods import Offsets, TokenNames
from framework.inference.server.refusal import require_model
from framework.inference.server.schema import CompletionRequest
from framework.inference.server.writing import Writer, Written, events, head, usage, whole

_MAXIMUM_TOKENS = 16  # where a completion does not say, as at OpenAI


def completion_routes(writer: Writer, model: str) -> APIRouter:
    """The route, for the model of that name."""
    router = APIRouter()
    names = TokenNames(writer.tokenizer)

    @router.post("/v1/completions")
    async def completions(asked: CompletionRequest, http: HttpRequest) -> Response:
        require_model(asked.model, model)
        writer.thread.check_number(len(asked.prompt) * asked.n)  # before all of them are read
        prompts = await writer.reader.read(lambda: [_tokens(writer, prompt) for prompt in asked.prompt])
        maximum = _MAXIMUM_TOKENS if asked.max_tokens is None else asked.max_tokens
        batches = writer.start(http, asked, prompts, maximum, asked.logprobs)
        begin = head("text_completion", model, "cmpl")
        texts = len(prompts) * asked.n
        offsets = [Offsets(names) for _ in range(texts)]

        def choice(number: int, part: Piece | Written) -> dict[str, Any]:
            told = offsets[number].of(part.tokens, part.likelihoods) if part.likelihoods else None
            return {"index": number, "text": part.text, "logprobs": told, "finish_reason": part.finish}

        echoes = [_text(writer, prompt) if asked.echo else "" for prompt in asked.prompt]
        echoed = [Piece(echoes[number // asked.n]) for number in range(texts)]
        if asked.stream:
            opening = [choice(number, piece) for number, piece in enumerate(echoed) if piece.text]
            return await events(http, asked, batches, begin, opening, choice)
        written = await whole(batches, texts)
        for one, piece in zip(written, echoed, strict=True):
            one.text = piece.text + one.text
        choices = [choice(number, one) for number, one in enumerate(written)]
        return JSONResponse(begin | {"choices": choices, "usage": usage(http.scope["loam"])})

    return router


def _tokens(writer: Writer, prompt: str | list[int]) -> Sequence[int]:
    """A text is read as the start of a document; ids are taken as they are."""
    return prompt_tokens(writer.tokenizer, prompt) if isinstance(prompt, str) else prompt


def _text(writer: Writer, prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else writer.tokenizer.decode(prompt)
