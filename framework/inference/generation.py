"""A model directory opened for writing texts, and one text written."""

from collections.abc import Iterator, Sequence
from os import PathLike

import torch

from framework.errors import UserError
from framework.inference.decoder import Decoder
from framework.inference.integers import hold
from framework.inference.request import Piece, Request
from framework.inference.sampling import GREEDY, Sampling
from framework.model.huggingface import assemble, integers_of, read_model_directory
from framework.model.tokenizer import Tokenizer, load_tokenizer
from framework.model.transformer import Transformer


def load(path: str | PathLike[str]) -> tuple[Transformer, Tokenizer]:
    """Model and tokenizer of a model directory that can continue a text; see `load_any`.

    Raises UserError naming the file that is missing, damaged or not supported, and for an encoder.
    """
    model, tokenizer = load_any(path)
    if not model.config.causal:
        raise UserError(
            f"model.path: {path} is a masked language model, which cannot continue a text; give a causal model, "
            "or fill its masks with the pipeline of its README.md"
        )
    return model, tokenizer


def load_any(path: str | PathLike[str]) -> tuple[Transformer, Tokenizer]:
    """Model and tokenizer of a model directory: on a GPU in the dtype of its files, else on the CPU in fp32.

    Raises UserError naming the file that is missing, damaged or not supported.
    """
    config, state, tokenizer = read_model_directory(path)
    on_gpu = torch.cuda.is_available()
    model = assemble(config, state, state["embedding.weight"].dtype).cuda() if on_gpu else assemble(config, state)
    if held := integers_of(path):
        hold(model, *held)
    return model, load_tokenizer(tokenizer)


def prompt_tokens(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """The tokens of a text that is to be continued, read as the start of a document."""
    return (*(() if tokenizer.begin is None else (tokenizer.begin,)), *tokenizer.encode(text))


def generate_pieces(
    model: Transformer, tokenizer: Tokenizer, request: Request, prefill_tokens: int = 512, positions: int = 0
) -> Iterator[Piece]:
    """The pieces of one continuation, as they come; `positions` may limit it, 0: as many as it takes.

    Raises UserError where the text would outgrow them, or the model.
    """
    positions = positions or len(request.tokens) + request.maximum_tokens - 1  # the last token is never read
    decoder = Decoder(model, tokenizer, rows=1, positions=positions, prefill_tokens=prefill_tokens)
    decoder.submit(request)
    while decoder.busy:
        yield from (piece for _, piece in decoder.step())


def generate_text(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    maximum_tokens: int,
    sampling: Sampling = GREEDY,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """The continuation of `prompt`, in pieces as soon as each is certain, without the prompt itself."""
    request = Request(prompt_tokens(tokenizer, prompt), maximum_tokens, sampling, tuple(stop))
    yield from (piece.text for piece in generate_pieces(model, tokenizer, request) if piece.text)
