"""Prompts of the command line continued on the console."""

import sys
from dataclasses import replace
from pathlib import Path

from framework.config import GenerateConfig
from framework.errors import UserError
from framework.inference.bulk import spelled
from framework.inference.completion import Completion, joined
from framework.inference.generation import generate_pieces, load
from framework.inference.postprocess import Postprocess
from framework.inference.prompts import Prompts
from framework.inference.request import Piece, Request
from framework.inference.settings import completions, request_of, sampling_of
from framework.model.tokenizer import Tokenizer
from framework.model.transformer import Transformer


def print_completions(config: GenerateConfig) -> None:
    """Print the continuation of each prompt: of a single one as it comes, of several with a line between them.

    Raises UserError for settings out of range, a prompt that does not fit, and a check that fails with failed=stop.
    """
    judge = Postprocess(config.postprocess)
    sampling_of(config)
    model, tokenizer = load(config.model.path)
    prompts = Prompts(Path(config.model.path), tokenizer)
    texts = config.prompts or [config.prompt]
    requests = [request_of(config, prompts.of_text(text)) for text in texts]
    if len(requests) == 1 and config.beams == 1 and not config.postprocess:
        echo = texts[0] if config.echo else ""
        _print_likelihoods(_streamed(config, model, tokenizer, requests[0], echo), tokenizer)
        return
    longest = max(len(request.tokens) + request.maximum_tokens - 1 for request in requests)
    found = completions(config, model, tokenizer, enumerate(requests), judge, longest)
    for number, completion in enumerate(found):
        if completion.failed is not None and config.failed == "stop":
            raise UserError(f"prompt {number + 1}: {completion.failed}; failed=mark goes on")
        print("-" * 40 + "\n" if number else "", end="")
        print((texts[number] if config.echo else "") + completion.text, flush=True)
        _print_likelihoods(completion, tokenizer)
        if completion.failed is not None:
            print(f"loam: prompt {number + 1}: {completion.failed}", file=sys.stderr, flush=True)


def _streamed(
    config: GenerateConfig, model: Transformer, tokenizer: Tokenizer, request: Request, echo: str
) -> Completion:
    """What was printed as it came, behind `echo`; the same text as among others in the first place."""
    request = replace(request, sampling=request.sampling.of(0, 0))
    pieces: list[Piece] = []
    for piece in generate_pieces(model, tokenizer, request, config.prefill_tokens, config.positions):
        print(("" if pieces else echo) + piece.text, end="", flush=True)  # not before the request was accepted
        pieces.append(piece)
    print()
    return joined(pieces)


def _print_likelihoods(completion: Completion, tokenizer: Tokenizer) -> None:
    """A line for each token: its log-probability, itself, and the likeliest ones."""
    for token, likelihood in zip(completion.tokens, completion.likelihoods, strict=False):
        others = "".join(f"  {value:.4f} {spelled(tokenizer, other)!r}" for other, value in likelihood.alternatives)
        print(f"{likelihood.log_probability:9.4f} {spelled(tokenizer, token)!r:20}{others}".rstrip())
