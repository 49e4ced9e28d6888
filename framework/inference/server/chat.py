"""POST /v1/chat/completions: conversations continued by the model's turn."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from framework.inference.request import Piece
from framework.inference.server.likelihoods import TokenNames
from framework.inference.server.refusal import Refusal, require_model
from framework.inference.server.schema import ChatRequest, Message
from framework.inference.server.writing import Writer, events, head, usage, whole
from framework.model.chat.encoding import Chat


def chat_routes(writer: Writer, chat: Chat, model: str) -> APIRouter:
    """The route, for the model of that name."""
    router = APIRouter()
    names = TokenNames(writer.tokenizer)

    def tokens(messages: list[Message]) -> list[int]:
        return chat.encode([chat.template.render(messages, prompt=True)])[0].ids.tolist()

    @router.post("/v1/chat/completions")
    async def chat_completions(asked: ChatRequest, http: HttpRequest) -> Response:
        require_model(asked.model, model)
        if asked.max_tokens is not None and asked.max_completion_tokens is not None:
            raise Refusal(400, "max_tokens: is another name of max_completion_tokens; give one", parameter="max_tokens")
        prompt = await writer.reader.read(lambda: tokens(asked.messages))
        maximum = asked.max_tokens if asked.max_tokens is not None else asked.max_completion_tokens
        alternatives = (asked.top_logprobs or 0) if asked.logprobs else None
        batches = writer.start(http, asked, [prompt], maximum, alternatives)

        if asked.stream:

            def delta(number: int, content: dict[str, Any], piece: Piece) -> dict[str, Any]:
                told = names.in_chat(piece.tokens, piece.likelihoods) if piece.likelihoods else None
                return {"index": number, "delta": content, "logprobs": told, "finish_reason": piece.finish}

            return await events(
                http,
                asked,
                batches,
                head("chat.completion.chunk", model, "chatcmpl"),
                [delta(number, {"role": "assistant", "content": ""}, Piece("")) for number in range(asked.n)],
                lambda number, piece: delta(number, {"content": piece.text} if piece.text else {}, piece),
            )
        choices = [
            {
                "index": number,
                "message": {"role": "assistant", "content": one.text, "refusal": None},
                "logprobs": names.in_chat(one.tokens, one.likelihoods) if asked.logprobs else None,
                "finish_reason": one.finish,
            }
            for number, one in enumerate(await whole(batches, asked.n))
        ]
        begin = head("chat.completion", model, "chatcmpl")
        return JSONResponse(begin | {"choices": choices, "usage": usage(http.scope["loam"])})

    return router
