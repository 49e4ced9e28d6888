"""What clients may ask for: OpenAI's fields, as far as they are supported, and vLLM's names for what OpenAI lacks.

A field that would change the answer and is not supported is refused by its name; one that is given in a way that
changes nothing is left out.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

_NEUTRAL: dict[str, tuple[Any, ...]] = {  # values that ask for nothing
    "best_of": (1,),
    "frequency_penalty": (0,),
    "functions": ([],),
    "logit_bias": ({},),
    "metadata": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (False, True),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "stop": ([],),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}


class Asked(BaseModel):
    """A request's body. `user` tells who asks, which changes nothing here."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    model: str | None = None
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_asks_for_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if v is not None and v not in _NEUTRAL.get(k, ())}


def _whole_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("has half a surrogate pair, which is no text") from error
    return value


Text = Annotated[str, AfterValidator(_whole_text)]


def _some_of(one: Callable[[Any], bool], many: Callable[[Any], bool], form: str) -> PlainValidator:
    """One value or a list of them, as a list."""

    def check(value: Any) -> list[Any]:
        found = [value] if one(value) else value
        if not isinstance(found, list) or not found or not all(many(entry) for entry in found):
            raise ValueError(f"must be {form}")
        for entry in found:
            for text in entry if isinstance(entry, list) else [entry]:
                if isinstance(text, str):
                    _whole_text(text)
        return found

    return PlainValidator(check)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_text, value))


Inputs = Annotated[
    list[str | list[int]],
    _some_of(
        lambda value: _is_text(value) or _is_ids(value),
        lambda entry: _is_text(entry) or _is_ids(entry),
        "a text, a list of texts, a list of token ids, or a list of such lists",
    ),
]
Judged = Annotated[
    list[str | list[str]],
    _some_of(
        _is_text, lambda entry: _is_text(entry) or _is_pair(entry), "a text, or a list of texts and pairs of texts"
    ),
]
Stop = Annotated[
    list[str],
    _some_of(
        _is_text, lambda entry: _is_text(entry) and 0 < len(entry) <= 256, "one to 16 texts of 1 to 256 characters"
    ),
    Field(max_length=16),
]


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool = False


class Generating(Asked):
    """What completions and chats have in common."""

    n: int = Field(1, ge=1, le=128)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=100)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)  # 0 and, as in vLLM, -1: all
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, le=100)
    seed: int | None = Field(None, ge=0, lt=2**62)
    stop: Stop = []
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> "Generating":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: is for stream=true")
        return self

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(Generating):
    """The body of /v1/completions."""

    prompt: Inputs
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=20)

    @model_validator(mode="after")
    def _likelihoods_of_what_is_written(self) -> "CompletionRequest":
        if self.echo and self.logprobs is not None:
            raise ValueError("logprobs: are told of what the model writes, not of the prompt; leave out echo")
        return self


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(strict=True, extra="forbid")

    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(strict=True, extra="forbid")

    role: str
    content: Annotated[str, PlainValidator(lambda value: _content(value))]

    @model_validator(mode="before")
    @classmethod
    def _as_templates_have_it(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {key: value for key, value in data.items() if value is not None and value != []}
        return data | {"role": "system"} if data.get("role") == "developer" else data


def _content(value: Any) -> str:
    """A message's text; parts that are texts are put one after another."""
    if isinstance(value, str):
        return _whole_text(value)
    if not isinstance(value, list):
        raise ValueError("must be a text or a list of parts of type text")
    return "".join(TextPart.model_validate(part).text for part in value)


class ChatRequest(Generating):
    """The body of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)

    @model_validator(mode="after")
    def _alternatives_need_likelihoods(self) -> "ChatRequest":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs=true")
        return self


class EmbeddingRequest(Asked):
    """The body of /v1/embeddings."""

    input: Inputs
    encoding_format: Literal["float", "base64"] = "float"


class ClassifyRequest(Asked):
    """The body of /v1/classify."""

    input: Judged
