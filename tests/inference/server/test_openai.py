"""The official client, and answers that are those of the model asked directly."""

import asyncio
import math

import pytest
import torch

from framework.inference.generation import generate_text, load
from framework.model.chat.encoding import load_chat

openai = pytest.importorskip("openai")

PROMPTS = ["the river", "stone of soil", "12", "naïve trees\njumped", "日本語 loam", "a", "is", "running the tree"]
GREEDY = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def direct(language):
    """The model, its tokenizer, and its chat."""
    return *load(language), load_chat(language)


@pytest.fixture(scope="module")
def expected(direct):
    """Greedy continuations of `PROMPTS`, each written alone."""
    model, tokenizer, _ = direct
    return ["".join(generate_text(model, tokenizer, one, maximum_tokens=24)) for one in PROMPTS]


def test_the_model_is_listed(client, server):
    listed = client.models.list().data
    assert [one.id for one in listed] == [server.model]
    assert client.models.retrieve(server.model) == listed[0]
    assert listed[0].max_model_len == 4096
    with pytest.raises(openai.NotFoundError, match="there is no model 'other' here"):
        client.models.retrieve("other")


def test_a_completion_is_the_models_own(client, server, expected):
    found = client.completions.create(model=server.model, prompt=PROMPTS, **GREEDY)
    assert [choice.text for choice in found.choices] == expected
    assert [choice.index for choice in found.choices] == list(range(len(PROMPTS)))
    assert {choice.finish_reason for choice in found.choices} == {"length"}
    assert found.usage.completion_tokens == 24 * len(PROMPTS)
    assert found.object == "text_completion"


def test_a_prompt_may_be_tokens_and_be_echoed(client, server, direct, expected):
    tokenizer = direct[1]
    tokens = [tokenizer.begin, *tokenizer.encode(PROMPTS[0])]
    found = client.completions.create(model=server.model, prompt=tokens, echo=True, **GREEDY)
    assert found.choices[0].text == PROMPTS[0] + expected[0]
    assert found.usage.prompt_tokens == len(tokens)
    stream = client.completions.create(model=server.model, prompt=PROMPTS[:2], echo=True, stream=True, **GREEDY)
    texts = ["", ""]
    for event in stream:
        texts[event.choices[0].index] += event.choices[0].text
    assert texts == [PROMPTS[0] + expected[0], PROMPTS[1] + expected[1]]


def test_a_completion_has_16_tokens_unless_it_says(client, server):
    assert client.completions.create(model=server.model, prompt="a", temperature=0).usage.completion_tokens == 16


def test_it_ends_before_a_stop_text(client, server, expected):
    text = expected[0]
    stop = text[10:12]
    found = client.completions.create(model=server.model, prompt=PROMPTS[0], stop=[stop, "never said"], **GREEDY)
    assert found.choices[0].text == text[: text.index(stop)]
    assert found.choices[0].finish_reason == "stop"


def test_a_seed_draws_the_same_and_choices_differ(client, server):
    def ask(seed):
        return client.completions.create(model=server.model, prompt="the", n=3, seed=seed, max_tokens=20).choices

    one, again, other = ([choice.text for choice in ask(seed)] for seed in (5, 5, 50))
    assert one == again
    assert len({*one, *other}) == 6


def test_a_chat_is_read_by_its_template(client, server, direct):
    model, tokenizer, chat = direct
    messages = [{"role": "system", "content": "the soil"}, {"role": "user", "content": "the river <|end|>"}]
    found = client.chat.completions.create(model=server.model, messages=messages, **GREEDY)
    assert found.usage.prompt_tokens == len(_ids(chat, messages))
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].message.content == _greedy(model, tokenizer, _ids(chat, messages), 24)
    parts = [{"role": "developer", "content": "the soil"}]
    parts += [
        {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "river <|end|>"}]}
    ]
    again = client.chat.completions.create(model=server.model, messages=parts, max_completion_tokens=24, temperature=0)
    assert again.choices == found.choices


def _ids(chat, messages):
    from framework.inference.server.schema import Message

    turns = [Message(**message) for message in messages]
    return chat.encode([chat.template.render(turns, prompt=True)])[0].ids.tolist()


def _greedy(model, tokenizer, ids, count):
    """By whole forward passes, without any cache."""
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return tokenizer.decode(ids[-count:])


def test_a_stream_is_the_same_answer_in_pieces(client, server):
    asked = {
        "model": server.model,
        "messages": [{"role": "user", "content": "日本語"}],
        "n": 2,
        "seed": 1,
        "max_tokens": 30,
    }
    whole = client.chat.completions.create(**asked)
    events = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    texts, ends = ["", ""], [None, None]
    for event in events[:-1]:
        assert event.usage is None
        choice = event.choices[0]
        texts[choice.index] += choice.delta.content or ""
        ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert [event.choices[0].delta.role for event in events[:2]] == ["assistant", "assistant"]
    assert len(events) > 20
    assert not events[-1].choices
    assert events[-1].usage == whole.usage


def test_log_probabilities_are_those_of_the_softmax(client, server, direct):
    model, tokenizer, chat = direct
    messages = [{"role": "user", "content": "the tree"}]
    found = client.chat.completions.create(
        model=server.model, messages=messages, temperature=0, max_tokens=3, logprobs=True, top_logprobs=4
    )
    with torch.no_grad():
        first = model(torch.tensor([_ids(chat, messages)]))[0, -1].double().log_softmax(-1).topk(4)
    told = found.choices[0].logprobs.content
    assert len(told) == 3
    assert [one.logprob for one in told[0].top_logprobs] == pytest.approx(first.values.tolist(), abs=1e-4)
    assert told[0].logprob == told[0].top_logprobs[0].logprob
    names = {text.encode() for text in tokenizer.reserved}
    for one, token in zip(told[0].top_logprobs, first.indices.tolist(), strict=True):
        assert bytes(one.bytes) == tokenizer.piece(token) or bytes(one.bytes) in names
    assert b"".join(bytes(one.bytes) for one in told).decode(errors="replace") == found.choices[0].message.content

    done = client.completions.create(model=server.model, prompt="the tree", temperature=0, max_tokens=6, logprobs=2)
    likelihoods = done.choices[0].logprobs
    assert [max(each.values()) for each in likelihoods.top_logprobs] == likelihoods.token_logprobs
    assert all(math.isfinite(value) for value in likelihoods.token_logprobs)
    assert likelihoods.text_offset[0] == 0
    assert likelihoods.text_offset == sorted(likelihoods.text_offset)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools: is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format: is not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty: is not supported"),
        ({"extra_body": {"best_of_them": 1}}, "best_of_them: is not supported"),
        ({"max_tokens": 5000}, r"max_tokens: is 5000; after a prompt of \d+ tokens at most"),
        ({"extra_body": {"temperature": -1}}, "temperature: Input should be greater than or equal to 0"),
        ({"stream_options": {"include_usage": True}}, "stream_options: is for stream=true"),
        ({"top_logprobs": 2}, "top_logprobs: needs logprobs=true"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_supported_is_refused_by_name(client, server, extra, named):
    with pytest.raises(openai.BadRequestError, match=named) as refused:
        client.chat.completions.create(model=server.model, messages=[{"role": "user", "content": "a"}], **extra)
    assert refused.value.param in named
    assert refused.value.type == "invalid_request_error"


def test_what_asks_for_nothing_is_let_through(client, server):
    asked = {"frequency_penalty": 0, "tools": [], "logit_bias": {}, "response_format": {"type": "text"}, "user": "me"}
    message = [{"role": "user", "content": "a"}]
    assert client.chat.completions.create(model=server.model, messages=message, max_tokens=2, **asked).choices


def test_vllms_names_for_what_openai_lacks(client, server, expected):
    extra = {"top_k": 1, "min_p": 0.0, "repetition_penalty": 1.0}
    found = client.completions.create(model=server.model, prompt=PROMPTS[0], max_tokens=24, extra_body=extra)
    assert found.choices[0].text == expected[0]


def test_another_kind_of_model_is_told_apart(client, server):
    with pytest.raises(openai.NotFoundError, match="is a language model; it answers /v1/chat/completions and"):
        client.embeddings.create(model=server.model, input="a")


def test_many_at_once_get_the_answers_that_they_get_alone(server, expected):
    """Twelve streams on four rows; more would be refused."""

    async def stream(client, prompt):
        text = ""
        async for event in await client.completions.create(model=server.model, prompt=prompt, stream=True, **GREEDY):
            text += event.choices[0].text
        return text

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(stream(client, PROMPTS[n % len(PROMPTS)]) for n in range(12)))

    assert asyncio.run(all_of_them()) == [expected[n % len(PROMPTS)] for n in range(12)]
    assert server.metric("loam_running") == server.metric("loam_waiting") == 0
