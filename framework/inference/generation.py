"""A prompt continued, token by token, with the keys and values of what was read kept in a cache."""

from collections.abc import Iterator, Sequence
from os import PathLike

import torch

from framework.errors import UserError
from framework.inference.integers import hold
from framework.inference.sampling import Sampling, distribution, draw
from framework.inference.text_stream import TextStream
from framework.model.cache import KeyValueCache
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


def generate_text(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    maximum_tokens: int,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """The continuation of `prompt`, in pieces as soon as each is certain, without the prompt itself.

    It ends at an end-of-text token, before the first of the `stop` texts, or after `maximum_tokens`.
    The prompt is read as the start of a document. See `generate_tokens` for the rest.
    """
    start = [] if tokenizer.begin is None else [tokenizer.begin]
    prompt_tokens = start + tokenizer.encode(prompt)
    stream = TextStream(stop)
    tokens = generate_tokens(
        model,
        prompt_tokens,
        maximum_tokens=maximum_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        end=tokenizer.end,
    )
    for token in tokens:
        if text := stream.push(tokenizer.piece(token)):
            yield text
        if stream.stopped:
            return
    if text := stream.finish():
        yield text


def generate_tokens(
    model: Transformer,
    prompt: Sequence[int],
    *,
    maximum_tokens: int,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    end: frozenset[int] = frozenset(),
) -> Iterator[int]:
    """At most `maximum_tokens` tokens that follow `prompt`, up to the first in `end`, which is left out.

    temperature, top_k, top_p: see `sampling.distribution`. The same seed gives the same tokens.
    Raises UserError for an empty prompt, and where the text would outgrow learned positions.
    """
    if not prompt:
        raise UserError("prompt: is empty, and this model has no token that starts a text; give one")
    _check_length(model, len(prompt), maximum_tokens)
    weight = next(model.parameters())
    cache = KeyValueCache(
        model.config, 1, len(prompt) + maximum_tokens - 1, dtype=weight.dtype, device=weight.device
    )  # the last token is never read
    sampling = Sampling(temperature, top_k, top_p, seed=seed)
    generator = sampling.generator()
    unread = list(prompt)  # the whole prompt in one pass, then one token at a time
    for _ in range(maximum_tokens):
        with torch.inference_mode():
            logits = model(torch.tensor([unread], device=weight.device), cache=cache, last_only=True)[:, -1]
            token = draw(distribution(logits, [sampling]), [generator])[0]
        if token in end:
            return
        yield token
        unread = [token]


def _check_length(model: Transformer, prompt_length: int, maximum_tokens: int) -> None:
    """Rotary positions go on past the length trained for; there are no more learned ones than that."""
    room = model.config.maximum_positions - prompt_length + 1
    if model.config.position == "learned" and maximum_tokens > room:
        remedy = f"generate at most {room}" if room > 0 else "shorten the prompt"
        raise UserError(
            f"maximum_tokens: {maximum_tokens} after a prompt of {prompt_length} exceed the "
            f"{model.config.maximum_positions} positions that the model has learned; {remedy}"
        )
