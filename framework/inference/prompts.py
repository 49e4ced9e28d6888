"""Texts and conversations as the tokens that a model goes on from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from framework.errors import UserError
from framework.inference.generation import prompt_tokens
from framework.model.chat.encoding import Chat, tokenizer_of_transformers
from framework.model.chat.template import choose_template, find_template
from framework.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; `role`: system, user, assistant or tool."""

    role: str
    content: str


class Prompts:
    """What a model directory reads: texts as the start of a document, conversations by its chat template.

    template: auto (the directory's own) | loam | chatml | plain | a file with Jinja.
    """

    def __init__(self, directory: Path, tokenizer: Tokenizer, template: str = "auto") -> None:
        self._directory, self._tokenizer, self._template = directory, tokenizer, template

    @property
    def has_template(self) -> bool:
        """Whether there is a chat template, or one was asked for."""
        return self._template != "auto" or find_template(self._directory) is not None

    def of_text(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that is to be continued; raises UserError for one that has half a character."""
        _require_characters(text)
        return prompt_tokens(self._tokenizer, text)

    def of_turns(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """The tokens of a conversation, and of what opens an answer.

        Raises UserError where there is no template, or it refuses the conversation.
        """
        for turn in turns:
            _require_characters(turn.content)
        rendered = self._chat.template.render(turns, prompt=True)
        return tuple(self._chat.encode([rendered])[0].ids.tolist())

    def of_row(self, row: Mapping[str, Any]) -> tuple[int, ...]:
        """The tokens of a row with `prompt` or `messages`; raises UserError for one that has neither, or both."""
        if ("prompt" in row) == ("messages" in row):
            raise UserError("has prompt and messages; give one" if "prompt" in row else "lacks prompt, or messages")
        if "messages" in row:
            return self.of_turns(_turns(row["messages"]))
        if not isinstance(row["prompt"], str):
            raise UserError("prompt is no text; write it in quotes")
        return self.of_text(row["prompt"])

    @cached_property
    def _chat(self) -> Chat:
        if not self.has_template:
            raise UserError(f"template: {self._directory} has no chat template; give loam, chatml, plain or a file")
        tokenizer = tokenizer_of_transformers(self._directory)
        return Chat(tokenizer, choose_template(self._template, self._directory, tokenizer))


def _require_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"has bytes that are not UTF-8, or half a surrogate pair, at character {error.start + 1}; mend the text"
        ) from error


def _turns(messages: Any) -> list[Turn]:
    if not isinstance(messages, list) or not messages:
        raise UserError('messages is no list of them; write [{"role": "user", "content": "..."}]')
    turns = []
    for message in messages:
        role, content = (message.get(key) if isinstance(message, dict) else None for key in ("role", "content"))
        if not isinstance(role, str) or not isinstance(content, str):
            raise UserError("messages has one without role and content, which are texts; write both")
        turns.append(Turn(role, content))
    return turns
