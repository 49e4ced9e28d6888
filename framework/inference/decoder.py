"""Texts written side by side, each from when there is a place for it until it ends (continuous batching).

After Orca (Yu et al., OSDI 2022): what is asked for joins and leaves the batch between two forward passes. A pass
either reads a part of one prompt or adds a token to every text in writing, in turns, so that a long prompt delays
the others by no more than its part (arXiv:2403.02310).

Shapes: B rows in writing, V vocabulary.
"""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from framework.checks import require, require_positive
from framework.config import ModelConfig
from framework.errors import UserError
from framework.inference.continuation import Continuation, choose, likelihoods_of
from framework.inference.request import Piece, Request
from framework.model.cache import Cache, KeyValueCache, RowLengths
from framework.model.tokenizer import Tokenizer
from framework.model.transformer import Transformer


class Decoder:
    """Continues many texts at once, in one thread; call `step` as long as `busy`.

    Args:
        rows: texts that are written side by side.
        positions: tokens of each, prompt and continuation. The cache of rows x positions is allocated here, once.
        prefill_tokens: of a prompt that a forward pass reads.

    What a text comes to does not depend on the others beside it, but for the rounding of products of other sizes.
    The model has to be causal.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, *, rows: int, positions: int, prefill_tokens: int = 512
    ) -> None:
        require_positive("rows", rows)
        require_positive("positions", positions)
        require_positive("prefill_tokens", prefill_tokens)
        self._model, self._config = model, model.config
        self._tokenizer = tokenizer
        self._positions = positions
        learned = self._config.maximum_positions if self._config.position == "learned" else positions
        weight = next(p for p in model.parameters() if p.is_floating_point())
        self._device = weight.device
        capacity = min(positions, learned)
        self._cache = allocated(self._config, rows, capacity, weight)
        self._rows = rows
        self._prefill_tokens = prefill_tokens
        self._numbers = 0
        self._waiting: deque[Continuation] = deque()
        self._reading: Continuation | None = None  # its prompt is read in the row after those in writing
        self._writing: list[Continuation] = []  # in the rows of the cache, from the first
        self._read_last = False

    @property
    def waiting(self) -> int:
        """Requests that have no row yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that have a row."""
        return len(self._writing) + (self._reading is not None)

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return self.waiting + self.running > 0

    def submit(self, request: Request) -> int:
        """Let a request wait for its turn; returns its number, by which `step` tells of it.

        Raises UserError where it does not fit into a row, or has a token that the model does not know.
        """
        check_request(request, self._config, self._positions)
        self._numbers += 1
        self._waiting.append(Continuation(self._numbers, request, self._config.vocabulary_size, self._device))
        return self._numbers

    def cancel(self, number: int) -> None:
        """Forget a request; nothing more comes of it. One that has ended is forgotten already."""
        self._waiting = deque(text for text in self._waiting if text.number != number)
        if self._reading is not None and self._reading.number == number:
            self._reading = None
        for row, text in enumerate(self._writing):
            if text.number == number:
                self._leave(row)
                return

    @torch.no_grad()
    def step(self) -> list[tuple[int, Piece]]:
        """One forward pass; what it adds to which request. Nothing where a prompt was not read to its end."""
        if self._reading is None and self._waiting and len(self._writing) < self._rows:
            self._reading = self._waiting.popleft()
        if self._reading is not None and not (self._read_last and self._writing):
            self._read_last = True
            return self._read(self._reading)
        self._read_last = False
        return self._write() if self._writing else []

    def _read(self, text: Continuation) -> list[tuple[int, Piece]]:
        """A part of a prompt; with the last one comes the first token of the continuation."""
        part, text.unread = text.unread[: self._prefill_tokens], text.unread[self._prefill_tokens :]
        cache = self._cache.rows(len(self._writing), 1, text.length)
        logits_BV = self._forward([part], cache)
        text.length += len(part)
        if text.unread:
            return []
        self._reading = None
        self._writing.append(text)
        return self._add([text], logits_BV)

    def _write(self) -> list[tuple[int, Piece]]:
        """A token of every text in writing."""
        texts = list(self._writing)
        lengths = [text.length for text in texts]
        cache: Cache
        if len(set(lengths)) == 1:  # then nothing has to be masked
            cache = self._cache.rows(0, len(texts), lengths[0])
        else:
            cache = RowLengths(self._cache, lengths, self._config.sliding_window)
        logits_BV = self._forward([text.unread for text in texts], cache)
        for text in texts:
            text.length += 1
        return self._add(texts, logits_BV)

    def _forward(self, tokens: Sequence[Sequence[int]], cache: Cache) -> Tensor:
        """Logits [B, V] after the last of the tokens, in fp32."""
        tokens_BT = torch.tensor(tokens, device=self._device)
        return self._model(tokens_BT, cache=cache, last_only=True)[:, -1].float()

    def _add(self, texts: list[Continuation], logits_BV: Tensor) -> list[tuple[int, Piece]]:
        tokens = choose(texts, logits_BV)
        likelihoods = likelihoods_of(texts, logits_BV, tokens)
        pieces = [
            (text.number, text.add(token, likelihood, self._tokenizer))
            for text, token, likelihood in zip(texts, tokens, likelihoods, strict=True)
        ]
        for text, (_, piece) in zip(texts, pieces, strict=True):
            if piece.finish:
                self._leave(self._writing.index(text))
        return pieces

    def _leave(self, row: int) -> None:
        """The last row moves up to where one has ended, and the one that is read after it."""
        last = len(self._writing) - 1
        text = self._writing.pop()
        if row != last:
            self._writing[row] = text
            self._cache.copy_row(last, row, text.length)
        if self._reading is not None:
            self._cache.copy_row(last + 1, last, self._reading.length)


def allocated(config: ModelConfig, rows: int, capacity: int, like: Tensor, field: str = "rows") -> KeyValueCache:
    """A cache of numbers `like` these; raises UserError naming `field`, and where there is not so much memory."""
    try:
        return KeyValueCache(config, rows, capacity, dtype=like.dtype, device=like.device)
    except RuntimeError as error:  # torch's, on the CPU and on a GPU
        if "allocate" not in str(error):
            raise
        numbers = 2 * config.layers * rows * capacity * config.key_value_heads * config.head_size
        raise UserError(
            f"{field}: no memory for keys and values of {rows} rows of {capacity} tokens, "
            f"{numbers * like.element_size() / 1e9:,.1f} GB; lower {field}, positions or maximum_tokens"
        ) from error


def check_request(request: Request, config: ModelConfig, positions: int) -> None:
    """Raise UserError where a request has a token that the model does not know, or more than `positions` of them."""
    tokens = len(request.tokens) + request.maximum_tokens - 1  # the last one is never read
    learned = config.position == "learned" and config.maximum_positions <= positions
    limit = config.maximum_positions if learned else positions
    room = limit - len(request.tokens) + 1
    require(
        tokens <= limit,
        "maximum_tokens",
        f"{request.maximum_tokens} after a prompt of {len(request.tokens)} exceed the {limit} positions "
        + ("that the model has learned" if learned else "that there is room for"),
        f"generate at most {room}" if room > 0 else "shorten the prompt",
    )
    vocabulary = config.vocabulary_size
    odd = next((token for token in request.tokens if not 0 <= token < vocabulary), None)
    require(odd is None, "prompt", f"has token {odd}, but the model {vocabulary}", "take the model's own tokenizer")
    require(
        (request.log_probabilities or 0) <= vocabulary,
        "log_probabilities",
        f"asks for {request.log_probabilities} alternatives of {vocabulary} tokens",
        "lower it",
    )
