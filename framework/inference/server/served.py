"""The model that is served: what kind it is, and with which routes and which thread."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from framework.checks import require
from framework.config import ServeConfig
from framework.errors import UserError
from framework.inference.classification import TextClassifier
from framework.inference.decoder import Decoder
from framework.inference.embedding import embeddings
from framework.inference.generation import load_any
from framework.inference.server.batching import BatchingThread
from framework.inference.server.chat import chat_routes
from framework.inference.server.completions import completion_routes
from framework.inference.server.decoding import DecodingThread
from framework.inference.server.judging import classify_routes, embedding_routes
from framework.inference.server.writing import Writer
from framework.model.chat.encoding import Chat, load_chat
from framework.model.chat.template import find_template
from framework.model.huggingface import classes_of
from framework.model.tokenizer import Tokenizer
from framework.model.transformer import Transformer

MOST_POSITIONS = 4096  # where positions=0: a model that has 131072 would take all memory for its cache


@dataclass
class Served:
    """A model behind HTTP.

    card: what /v1/models says of it. lacking: why an endpoint of its kind is not there, by path.
    """

    kind: str
    card: dict[str, Any]
    routers: list[APIRouter]
    thread: DecodingThread | BatchingThread
    lacking: dict[str, str] = field(default_factory=dict)


def load(config: ServeConfig) -> Callable[[Callable[[], None]], Served]:
    """Read the model; what comes back makes it ready, in the event loop, given what to call when the model fails.

    Raises UserError naming the file that is missing, damaged or not supported, or the field.
    """
    path = Path(config.model.path)
    name = config.name or config.model.path
    classes = classes_of(path) if path.is_dir() else None  # else the reading says what is wrong
    if classes is not None:
        classifier = TextClassifier(path)
        return lambda failed: _classifier(classifier, config, name)
    model, tokenizer = load_any(path)
    if not model.config.causal:
        return lambda failed: _encoder(model, tokenizer, config, name)
    chat, lacking = _chat(path, config)
    longest = model.config.maximum_positions
    require(config.positions <= longest, "positions", f"is {config.positions}, but {path} has {longest}", "lower it")
    positions = config.positions or min(MOST_POSITIONS, longest)
    decoder = Decoder(model, tokenizer, rows=config.rows, positions=positions, prefill_tokens=config.prefill_tokens)

    def ready(failed: Callable[[], None]) -> Served:
        thread = DecodingThread(decoder, config.rows + config.limits.queue, failed)
        writer = Writer(tokenizer, thread, positions, config.limits)
        routers = [completion_routes(writer, name)]
        if chat is not None:
            routers.append(chat_routes(writer, chat, name))
        about = {"kind": "language", "chat": chat is not None and find_template(path) is not None}
        card = _card(path, name, positions) | about
        return Served("a language model", card, routers, thread, lacking)

    return ready


def _chat(path: Path, config: ServeConfig) -> tuple[Chat | None, dict[str, str]]:
    """The chat template, or why there is none; one that was asked for by name has to be there."""
    now = datetime.fromisoformat(config.chat.date) if config.chat.date else None
    try:
        return load_chat(path, config.chat.template, now), {}
    except UserError as error:
        if config.chat.template != "auto":
            raise
        return None, {"/v1/chat/completions": f"the model has no chat template ({error})"}


def _classifier(classifier: TextClassifier, config: ServeConfig, name: str) -> Served:
    thread = BatchingThread(classifier.judge, config.limits.queue)
    router = classify_routes(classifier, thread, config.limits.texts, name)
    about = {"kind": "classifier", "classes": list(classifier.classes.names), "several": classifier.classes.several}
    card = _card(Path(config.model.path), name, classifier.positions) | about
    return Served("a classifier", card, [router], thread)


def _encoder(model: Transformer, tokenizer: Tokenizer, config: ServeConfig, name: str) -> Served:
    thread = BatchingThread(lambda texts: embeddings(model, texts), config.limits.queue)
    positions, vocabulary = model.config.maximum_positions, model.config.vocabulary_size
    router = embedding_routes(tokenizer, thread, config.limits.texts, positions, vocabulary, name)
    card = _card(Path(config.model.path), name, positions) | {"kind": "encoder"}
    return Served("an encoder", card, [router], thread)


def _card(path: Path, name: str, positions: int) -> dict[str, Any]:
    """As OpenAI has it, and `max_model_len` as vLLM."""
    created = int((path / "config.json").stat().st_mtime)
    return {"id": name, "object": "model", "created": created, "owned_by": "loam", "max_model_len": positions}
