"""The configuration of `generate` as what the parts of this room take."""

from collections.abc import Iterable, Iterator

from framework.config import GenerateConfig
from framework.inference.beam import BeamSearch
from framework.inference.completion import Completion, Judge, complete, judged
from framework.inference.decoder import Decoder
from framework.inference.request import Request
from framework.inference.sampling import Sampling
from framework.model.tokenizer import Tokenizer
from framework.model.transformer import Transformer


def sampling_of(config: GenerateConfig) -> Sampling:
    """Raises UserError where a field is out of its range."""
    return Sampling(
        config.temperature, config.top_k, config.top_p, config.min_p, config.repetition_penalty, config.seed
    )


def request_of(config: GenerateConfig, tokens: tuple[int, ...]) -> Request:
    """What is asked for after a prompt."""
    stop = tuple(config.stop)
    return Request(tokens, config.maximum_tokens, sampling_of(config), stop, config.log_probabilities)


def completions(
    config: GenerateConfig,
    model: Transformer,
    tokenizer: Tokenizer,
    requests: Iterable[tuple[int, Request]],
    judge: Judge,
    positions: int,
) -> Iterator[Completion]:
    """The completions of numbered requests, in their order, by beam search or side by side.

    positions: of the longest request with its continuation, unless `config.positions` says otherwise.
    """
    positions = config.positions or positions
    if config.beams > 1:
        search = BeamSearch(
            model,
            tokenizer,
            beams=config.beams,
            length_penalty=config.length_penalty,
            positions=positions,
            prefill_tokens=config.prefill_tokens,
        )
        for _, request in requests:
            yield judged(search(request), judge)
        return
    decoder = Decoder(model, tokenizer, rows=config.batch, positions=positions, prefill_tokens=config.prefill_tokens)
    retries = config.retries if config.failed == "retry" else 0
    yield from complete(decoder, requests, rows=config.batch, judge=judge, retries=retries)
