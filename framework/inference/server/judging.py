"""POST /v1/classify and POST /v1/embeddings: what a classifier or an encoder makes of texts."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from framework.inference.classification import TextClassifier
from framework.inference.server.batching import BatchingThread
from framework.inference.server.exchange import Exchange
from framework.inference.server.reading import Reader
from framework.inference.server.refusal import Refusal, require_model
from framework.inference.server.schema import ClassifyRequest, EmbeddingRequest
from framework.inference.server.writing import head
from framework.model.tokenizer import Tokenizer


def classify_routes(classifier: TextClassifier, thread: BatchingThread, texts: int, model: str) -> APIRouter:
    """The route of a classifier. `texts`: that a request may have."""
    router, reader, names = APIRouter(), Reader(), classifier.classes.names

    @router.post("/v1/classify")
    async def classify(asked: ClassifyRequest, http: HttpRequest) -> Response:
        require_model(asked.model, model)
        _check_number(asked.input, texts)
        pairs = [text if isinstance(text, str) else (text[0], text[1]) for text in asked.input]
        ids = await reader.read(lambda: classifier.encode(pairs))
        rows = await thread.rows(ids)
        data = [
            {"index": number, "label": names[int(row.argmax())], "probs": row.tolist(), "num_classes": len(names)}
            for number, row in enumerate(rows)
        ]
        about = {"classes": list(names), "several": classifier.classes.several}
        begin = head("list", model, "classify")
        return JSONResponse(begin | about | {"data": data, "usage": _usage(http, ids)})

    return router


def embedding_routes(
    tokenizer: Tokenizer, thread: BatchingThread, texts: int, positions: int, vocabulary: int, model: str
) -> APIRouter:
    """The route of an encoder that reads so many positions and knows so many ids."""
    router, reader = APIRouter(), Reader()

    def encode(inputs: Sequence[str | list[int]]) -> list[list[int]]:
        found = [tokenizer.encode_whole([(one, None)])[0] if isinstance(one, str) else one for one in inputs]
        for number, ids in enumerate(found):
            if not 0 < len(ids) <= positions:
                raise Refusal(
                    400,
                    f"input: text {number} has {len(ids)} tokens; the model reads 1 to {positions}",
                    parameter="input",
                )
            odd = next((token for token in ids if not 0 <= token < vocabulary), None)
            if odd is not None:
                raise Refusal(400, f"input: text {number} has token {odd}; the model {vocabulary}", parameter="input")
        return found

    @router.post("/v1/embeddings")
    async def embeddings(asked: EmbeddingRequest, http: HttpRequest) -> Response:
        require_model(asked.model, model)
        _check_number(asked.input, texts)
        ids = await reader.read(lambda: encode(asked.input))
        rows = await thread.rows(ids)
        vectors: list[Any] = rows.tolist()
        if asked.encoding_format == "base64":
            vectors = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in np.asarray(rows)]
        data = [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(vectors)]
        return JSONResponse({"object": "list", "model": model, "data": data, "usage": _usage(http, ids)})

    return router


def _check_number(inputs: Sequence[Any], most: int) -> None:
    if len(inputs) > most:
        raise Refusal(400, f"input: has {len(inputs)} texts; limits.texts allows {most}", parameter="input")


def _usage(http: HttpRequest, ids: Sequence[list[int]]) -> dict[str, int]:
    exchange: Exchange = http.scope["loam"]
    exchange.prompt_tokens = sum(map(len, ids))
    return {"prompt_tokens": exchange.prompt_tokens, "total_tokens": exchange.prompt_tokens}
