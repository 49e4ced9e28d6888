"""A conversation at a terminal: by the model's chat template where it has one, else one text that both write on."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Protocol

from framework.config import GenerateConfig
from framework.errors import UserError
from framework.inference.decoder import Decoder
from framework.inference.generation import load
from framework.inference.prompts import Prompts, Turn
from framework.inference.settings import request_of, sampling_of

LONGEST = 8192  # positions, where nobody says how many


class History(Protocol):
    """What was said so far."""

    def asked(self, text: str) -> tuple[int, ...]:
        """The tokens that the answer to this text goes on from."""

    def answered(self, text: str, answer: str) -> None:
        """Keep both."""


class Chat:
    """Turns, as the model's template writes them."""

    def __init__(self, prompts: Prompts, system: str) -> None:
        self._prompts = prompts
        self._turns = [Turn("system", system)] if system else []

    def asked(self, text: str) -> tuple[int, ...]:
        """See `History`."""
        return self._prompts.of_turns([*self._turns, Turn("user", text)])

    def answered(self, text: str, answer: str) -> None:
        """See `History`."""
        self._turns += [Turn("user", text), Turn("assistant", answer)]


class Plain:
    """One text, of which each line typed and each answer is the continuation."""

    def __init__(self, prompts: Prompts, system: str) -> None:
        self._prompts = prompts
        self._text = system

    def asked(self, text: str) -> tuple[int, ...]:
        """See `History`."""
        return self._prompts.of_text(self._text + text)

    def answered(self, text: str, answer: str) -> None:
        """See `History`."""
        self._text += text + answer


def converse(config: GenerateConfig) -> None:
    """Answer every line that is typed, until the input ends (Ctrl-D). Ctrl-C ends an answer; /new forgets all.

    Raises UserError where the model cannot be read.
    """
    sampling_of(config)
    model, tokenizer = load(config.model.path)
    prompts = Prompts(Path(config.model.path), tokenizer, config.template)
    kind: Callable[[Prompts, str], History] = Chat if prompts.has_template else Plain
    positions = config.positions or min(model.config.maximum_positions, LONGEST)
    decoder = Decoder(model, tokenizer, rows=1, positions=positions, prefill_tokens=config.prefill_tokens)
    how = "by its chat template" if prompts.has_template else "which has no chat template and continues what is typed"
    print(f"{config.model.path}, {how}. Ctrl-C ends an answer, Ctrl-D the conversation, /new begins another.")
    history = kind(prompts, config.system)
    for number, text in enumerate(_lines()):
        if text == "/new":
            history = kind(prompts, config.system)
            continue
        try:
            history.answered(text, _answer(config, decoder, history.asked(text), number))
        except UserError as error:  # it does not fit any more, or the template refuses it
            print(f"loam: {error}; /new begins another conversation", file=sys.stderr, flush=True)


def _lines() -> Iterator[str]:
    """What is typed, line by line; Ctrl-C empties the line."""
    if sys.stdin.isatty():
        import readline  # noqa: F401  (input() then has a history and keys that edit)
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is not UTF-8 is refused where the text is read
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()


def _answer(config: GenerateConfig, decoder: Decoder, tokens: tuple[int, ...], number: int) -> str:
    """The answer, printed as it comes; what there is of it after Ctrl-C."""
    request = request_of(config, tokens)
    ticket = decoder.submit(replace(request, sampling=request.sampling.of(number)))
    pieces: list[str] = []
    with _interrupts() as interrupted:
        while decoder.busy and not interrupted():
            for _, piece in decoder.step():
                print(piece.text, end="", flush=True)
                pieces.append(piece.text)
    decoder.cancel(ticket)
    print()
    return "".join(pieces)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed within; it then breaks no forward pass off half way."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
