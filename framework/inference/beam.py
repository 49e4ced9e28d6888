"""Beam search: of all continuations, the likeliest few are kept at every step, and the best that ended is taken.

It is the search of transformers' `generate(num_beams=...)` with `early_stopping=False`, and gives the same texts.

Shapes: B beams, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framework.checks import require
from framework.inference.completion import Completion
from framework.inference.decoder import allocated, check_request
from framework.inference.request import Request
from framework.inference.sampling import penalised
from framework.inference.text_stream import TextStream
from framework.model.cache import KeyValueCache
from framework.model.tokenizer import Tokenizer
from framework.model.transformer import Transformer


@dataclass(frozen=True)
class _Beam:
    """score: sum of the log-probabilities of `tokens`; once it has ended, divided by length ** penalty."""

    tokens: tuple[int, ...]
    score: float


class BeamSearch:
    """Continues one text at a time.

    Args:
        beams: how many continuations are kept at every step.
        length_penalty: a text that has ended is judged by its log-probability / tokens ** length_penalty; above 0
            favours longer ones (arXiv:1609.08144 has a like rule).
        positions: tokens of prompt and continuation that there is room for. The cache of beams x positions is
            allocated here, once.
        prefill_tokens: of a prompt that a forward pass reads.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        beams: int,
        length_penalty: float = 1.0,
        positions: int,
        prefill_tokens: int = 512,
    ) -> None:
        vocabulary = model.config.vocabulary_size
        require(beams <= vocabulary, "beams", f"{beams} are too many for {vocabulary} tokens", "lower it")
        weight = next(p for p in model.parameters() if p.is_floating_point())
        self._model, self._tokenizer = model, tokenizer
        self._device = weight.device
        self._cache = allocated(model.config, beams, positions, weight, "beams")
        self._beams, self._penalty, self._prefill_tokens = beams, length_penalty, prefill_tokens
        self._candidates = beams * max(2, 1 + len(tokenizer.end))  # enough that one of them goes on for each beam

    @torch.no_grad()
    def __call__(self, request: Request) -> Completion:
        """The best continuation; temperature, top-k and their like do not count, the repetition penalty does.

        Raises UserError where it does not fit, or has a token that the model does not know.
        """
        check_request(request, self._model.config, self._cache.capacity)
        running, ended = [_Beam((), 0.0)], list[_Beam]()
        logits_BV = self._read(request.tokens)
        for length in range(1, request.maximum_tokens + 1):
            going_on, parents = list[_Beam](), list[int]()
            for place, (parent, beam) in enumerate(self._best(logits_BV, running, request)):
                if self._ends(beam, request):
                    if place < self._beams:  # the others are there only so that enough go on
                        ended.append(_Beam(beam.tokens, beam.score / length**self._penalty))
                elif len(going_on) < self._beams:
                    going_on.append(beam)
                    parents.append(parent)
            ended = sorted(ended, key=lambda beam: -beam.score)[: self._beams]
            running = going_on
            if not running or self._hopeless(running[0], ended, length):
                break
            logits_BV = self._write(running, parents)
        return self._completion(ended[0], request)

    def _read(self, prompt: Sequence[int]) -> Tensor:
        """Logits [1, V] after the prompt, which is then in all rows of the cache."""
        row = self._cache.rows(0, 1, 0)
        for start in range(0, len(prompt), self._prefill_tokens):
            logits = self._forward([prompt[start : start + self._prefill_tokens]], row)
        for beam in range(1, self._beams):
            self._cache.copy_row(0, beam, len(prompt))
        self._cache.length = len(prompt)
        return logits

    def _write(self, running: list[_Beam], parents: list[int]) -> Tensor:
        """Logits [B, V] after the last tokens; each row of the cache first becomes what the beam goes on from."""
        length = self._cache.length
        if parents != list(range(len(parents))):
            for buffer in (*self._cache.keys, *self._cache.values):
                buffer[: len(parents), :length] = buffer[parents, :length]
        rows = self._cache.rows(0, len(running), length)
        logits_BV = self._forward([beam.tokens[-1:] for beam in running], rows)
        self._cache.length = rows.length
        return logits_BV

    def _forward(self, tokens: Sequence[Sequence[int]], cache: KeyValueCache) -> Tensor:
        return self._model(torch.tensor(tokens, device=self._device), cache=cache, last_only=True)[:, -1].float()

    def _best(self, logits_BV: Tensor, running: list[_Beam], request: Request) -> list[tuple[int, _Beam]]:
        """The likeliest continuations by one token, the best first, each with the beam that it continues."""
        log_BV = logits_BV.log_softmax(dim=-1)
        penalty = request.sampling.repetition_penalty
        if penalty != 1:
            seen_BV = torch.zeros_like(log_BV, dtype=torch.bool)
            for row, beam in enumerate(running):
                seen_BV[row, [*request.tokens, *beam.tokens]] = True
            log_BV = penalised(log_BV, seen_BV, penalty)
        scores_B1 = torch.tensor([beam.score for beam in running], device=log_BV.device)[:, None]
        scores_N = (log_BV + scores_B1).flatten()
        best = scores_N.topk(min(self._candidates, len(scores_N)))
        found = []
        for place, score in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            parent, token = divmod(place, log_BV.shape[1])
            found.append((parent, _Beam((*running[parent].tokens, token), score)))
        return found

    def _ends(self, beam: _Beam, request: Request) -> bool:
        if beam.tokens[-1] in self._tokenizer.end or len(beam.tokens) == request.maximum_tokens:
            return True
        text = self._tokenizer.decode(beam.tokens) if request.stop else ""
        return any(stop and stop in text for stop in request.stop)

    def _hopeless(self, best: _Beam, ended: list[_Beam], length: int) -> bool:
        """Whether no beam in writing, were it to end here, would be among those that ended."""
        return len(ended) == self._beams and best.score / length**self._penalty <= ended[-1].score

    def _completion(self, beam: _Beam, request: Request) -> Completion:
        finished = beam.tokens[-1] in self._tokenizer.end
        tokens = beam.tokens[:-1] if finished else beam.tokens
        stream = TextStream(request.stop)
        text = stream.push(b"".join(map(self._tokenizer.piece, tokens))) + stream.finish()
        return Completion(text, tokens, (), "stop" if finished or stream.stopped else "length")
