"""Texts written side by side, against the same texts written alone by transformers or by the decoder itself."""

import random
from dataclasses import replace

import pytest
import torch

from framework.config import ModelConfig
from framework.errors import UserError
from framework.inference.decoder import Decoder
from framework.inference.request import Request
from framework.inference.sampling import Sampling
from framework.model.huggingface import write_model_directory
from tests.inference.models import Scripted, Spelled, Tokens
from tests.model import small_tokenizer
from tests.model.shapes import CONFIGS, DECODERS, random_model

GREEDY = Sampling(temperature=0.0)
every_shape = pytest.mark.parametrize("config", DECODERS.values(), ids=DECODERS.keys())


def prompts(count, longest, vocabulary, seed=0):
    chance = random.Random(seed)
    return [tuple(chance.randrange(3, vocabulary) for _ in range(chance.randint(1, longest))) for _ in range(count)]


def run(decoder, requests):
    """The pieces of each request."""
    numbers = [decoder.submit(request) for request in requests]
    found = {number: [] for number in numbers}
    while decoder.busy:
        for number, piece in decoder.step():
            assert not (found[number] and found[number][-1].finish)
            found[number].append(piece)
    assert all(found[number][-1].finish for number in numbers)
    return [found[number] for number in numbers]


def tokens(pieces):
    return [token for piece in pieces for token in piece.tokens]


@every_shape
def test_greedy_tokens_are_those_of_transformers(config, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = ModelConfig(**vars(config) | {"vocabulary_size": 384})
    model = random_model(config)
    tokenizer = small_tokenizer.write(tmp_path / "tokenizer")
    write_model_directory(tmp_path / "m", model.state_dict(), config, tokenizer=tokenizer, provenance={})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    theirs.generation_config.eos_token_id = None  # `generate` takes what is not set from there
    asked = prompts(7, 30, 384)
    ours = run(
        Decoder(model, Tokens(384), rows=3, positions=64, prefill_tokens=8),
        [Request(prompt, 20, GREEDY) for prompt in asked],
    )
    settings = transformers.GenerationConfig(max_new_tokens=20, do_sample=False, pad_token_id=2)
    for prompt, pieces in zip(asked, ours, strict=True):
        ids = torch.tensor([prompt])
        whole = theirs.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)[0]
        assert tokens(pieces) == whole[len(prompt) :].tolist()
        assert pieces[-1].finish == "length"
    assert len({token for pieces in ours for token in tokens(pieces)}) > 4


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2"])
def test_neighbours_and_places_change_nothing(name):
    """Requests of all kinds that come, end and are cancelled at any time, in any number of rows."""
    model = random_model(CONFIGS[name])
    chance = random.Random(1)
    samplings = [GREEDY, Sampling(0.9, 20, 0.9, seed=3), Sampling(1.2, min_p=0.05, repetition_penalty=1.3, seed=4)]
    asked = [
        Request(prompt, chance.randint(1, 30), chance.choice(samplings), log_probabilities=chance.choice([None, 2]))
        for prompt in prompts(24, 30, 96)
    ]
    alone = [run(Decoder(model, Tokens(96), rows=1, positions=60), [request])[0] for request in asked]
    decoder = Decoder(model, Tokens(96), rows=4, positions=60, prefill_tokens=7)
    found, cancelled, waiting = {}, set(), list(enumerate(asked))
    while waiting or decoder.busy:
        while waiting and chance.random() < 0.4:
            place, request = waiting.pop(0)
            found[decoder.submit(request)] = (place, [])
        if found and chance.random() < 0.05:
            number = chance.choice(list(found))
            cancelled.add(number)
            decoder.cancel(number)
        for number, piece in decoder.step():
            assert number not in cancelled
            found[number][1].append(piece)
        assert decoder.running <= 4
    assert 2 < len(cancelled) < 20
    for number, (place, pieces) in found.items():
        assert number in cancelled or pieces[-1].finish
        assert tokens(pieces) == tokens(alone[place])[: len(tokens(pieces))]
        for piece, expected in zip(pieces, alone[place], strict=False):
            for one, other in zip(piece.likelihoods, expected.likelihoods, strict=True):
                assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
                assert [token for token, _ in one.alternatives] == [token for token, _ in other.alternatives]


def test_a_long_prompt_is_read_in_turns_with_what_is_being_written():
    decoder = Decoder(random_model(CONFIGS["llama"]), Tokens(96), rows=2, positions=64, prefill_tokens=10)
    first = decoder.submit(Request((5, 6), 30, GREEDY))
    assert [number for number, _ in decoder.step()] == [first]
    second = decoder.submit(Request(tuple(range(3, 53)), 5, GREEDY))
    came = [[number for number, _ in decoder.step()] for _ in range(12)]
    # in turns: a token, a part of the prompt; with the fifth part comes the first token of the second text
    assert came == [[first], []] * 4 + [[first], [second], [first, second], [first, second]]
    assert decoder.running == 2


def test_log_probabilities_are_those_of_the_whole_text():
    model = random_model(CONFIGS["qwen3"])
    prompt = (4, 9, 33, 21)
    request = Request(prompt, 12, Sampling(0.7, top_k=5, repetition_penalty=1.5, seed=1), log_probabilities=3)
    (pieces,) = run(Decoder(model, Tokens(96), rows=2, positions=40), [request])
    whole = torch.tensor([[*prompt, *tokens(pieces)]])
    with torch.no_grad():
        expected = model.double()(whole)[0].log_softmax(-1)[len(prompt) - 1 :]
    for place, piece in enumerate(pieces):
        (likelihood,) = piece.likelihoods
        assert likelihood.log_probability == pytest.approx(expected[place, piece.tokens[0]].item(), abs=1e-4)
        best = expected[place].topk(3)
        assert [token for token, _ in likelihood.alternatives] == best.indices.tolist()
        assert [value for _, value in likelihood.alternatives] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_characters_stop_texts_and_ends_of_each_text():
    tokenizer = Spelled(b"", b"a", b"\xc3", b"\xa9", b" EN", b"D")

    def say(script, **options):
        decoder = Decoder(Scripted(script, tokenizer.size), tokenizer, rows=1, positions=32)
        return [
            (piece.text, piece.tokens, piece.finish)
            for piece in run(decoder, [Request((1,), **{"maximum_tokens": 9, "sampling": GREEDY} | options)])[0]
        ]

    assert say([1, 2, 3, 0]) == [("a", (1,), None), ("", (2,), None), ("é", (3,), None), ("", (), "stop")]
    assert say([2, 0]) == [("", (2,), None), ("\ufffd", (), "stop")]
    assert say([1, 2], maximum_tokens=2) == [("a", (1,), None), ("\ufffd", (2,), "length")]
    assert say([4, 1, 4, 5], stop=("END",)) == [
        (" ", (4,), None), ("ENa", (1,), None), (" ", (4,), None), ("", (5,), "stop"),
    ]  # fmt: skip
    assert say([4], stop=("END",), maximum_tokens=1) == [(" EN", (4,), "length")]


def test_requests_that_cannot_be_are_refused():
    decoder = Decoder(random_model(CONFIGS["gpt2"]), Tokens(96), rows=1, positions=100)
    decoder.submit(Request((1,) * 60, 5, GREEDY))
    with pytest.raises(UserError, match=r"maximum_tokens: 6 after .* 64 positions that the model has learned; .* 5$"):
        decoder.submit(Request((1,) * 60, 6, GREEDY))
    with pytest.raises(UserError, match="shorten the prompt"):
        decoder.submit(Request((1,) * 65, 1, GREEDY))
    decoder = Decoder(random_model(CONFIGS["llama"]), Tokens(96), rows=1, positions=10)
    with pytest.raises(UserError, match="exceed the 10 positions that there is room for; generate at most 2"):
        decoder.submit(Request((1,) * 9, 3, GREEDY))
    with pytest.raises(UserError, match="prompt: has token 96, but the model 96"):
        decoder.submit(Request((96,), 3, GREEDY))
    with pytest.raises(UserError, match="log_probabilities: asks for 97"):
        decoder.submit(replace(Request((1,), 3, GREEDY), log_probabilities=97))
    with pytest.raises(UserError, match="prompt: is empty"):
        Request((), 3, GREEDY)
    with pytest.raises(UserError, match="maximum_tokens: is 0"):
        Request((1,), 0, GREEDY)
    assert not decoder.busy
