import subprocess
import sys
from dataclasses import replace

import pytest

from framework.config import ModelConfig
from framework.errors import UserError
from framework.inference.generation import generate_pieces, generate_text, load
from framework.inference.request import Request
from framework.inference.sampling import GREEDY, Sampling
from tests.inference.models import Scripted, Spelled, Tokens
from tests.inference.test_decoder import tokens
from tests.model.shapes import CONFIGS, random_model


def say(script, tokenizer, prompt="", **options):
    model = Scripted(script, tokenizer.size)
    return list(generate_text(model, tokenizer, prompt, **{"maximum_tokens": 20} | options)), model


def write(prompt=(1, 2), maximum_tokens=20, **sampling):
    request = Request(prompt, maximum_tokens, Sampling(**sampling))
    return tokens(list(generate_pieces(random_model(CONFIGS["llama"]), Tokens(96), request)))


def test_the_seed_decides():
    one, same, other = (write(temperature=1.5, seed=seed) for seed in (0, 0, 1))
    assert one == same != other
    assert len(one) == 20


def test_a_choice_of_one_is_greedy():
    greedy = write(temperature=0.0)
    assert write(temperature=2.0, top_k=1) == write(temperature=2.0, top_p=1e-6) == greedy
    assert write(temperature=2.0, min_p=1.0) == greedy


def test_texts_of_one_seed_differ_by_their_number():
    settings = [Sampling(seed=3).of(number, 0) for number in range(20)]
    assert len({one.seed for one in settings}) == 20
    assert Sampling(seed=3).of(7, 0) == settings[7]
    assert replace(settings[7], seed=3) == Sampling(seed=3)
    assert Sampling().of(7, 0).seed is None


def test_a_prompt_starts_as_documents_do_and_is_read_once():
    pieces, model = say([3, 2, 0], Spelled(b"", b"a", b"b", b"c"), prompt="ab")
    assert model.read == [0, 1, 2, 3, 2]
    assert pieces == ["c", "b"]


def test_end_of_text_ends_it():
    pieces, model = say([1, 0, 1], Spelled(b"", b"a"))
    assert pieces == ["a"]
    assert model.script == [1]


def test_generation_ends_before_a_stop_text_and_computes_no_further():
    tokenizer = Spelled(b"", b"a", b" EN", b"D", b"x")
    pieces, model = say([1, 2, 4, 2, 3, 1, 1], tokenizer, stop=["END"])
    assert "".join(pieces) == "a ENx "
    assert model.script == [1, 1]


def test_an_empty_prompt_needs_a_token_that_begins_texts():
    tokenizer = Spelled(b"", b"a")
    tokenizer.begin = None
    with pytest.raises(UserError, match="prompt: is empty"):
        say([1], tokenizer)


def test_learned_positions_end():
    model = random_model(CONFIGS["gpt2"])

    def pieces(prompt, maximum_tokens):
        return list(generate_pieces(model, Tokens(96), Request((1,) * prompt, maximum_tokens, GREEDY)))

    assert len(pieces(60, 5)) == 5
    with pytest.raises(UserError, match=r"64 positions that the model has learned; generate at most 5"):
        pieces(60, 6)
    with pytest.raises(UserError, match="shorten the prompt"):
        pieces(65, 1)


def test_an_encoder_writes_no_text(make_model):
    path = make_model(ModelConfig(**vars(CONFIGS["encoder"]) | {"vocabulary_size": 360}))
    with pytest.raises(UserError, match=r"^model\.path: .* is a masked language model, which cannot continue a text"):
        load(path)


def test_the_program_prints_the_text(llama, tmp_path):
    command = [sys.executable, "-m", "framework.generate", "prompt=the river", "maximum_tokens=12", "seed=3"]
    result = subprocess.run([*command, f"model.path={llama}"], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    sampling = Sampling(0.8, top_p=0.95, seed=3).of(0, 0)
    expected = generate_text(*load(llama), "the river", maximum_tokens=12, sampling=sampling)
    assert result.stdout.decode() == "the river" + "".join(expected) + "\n"

    result = subprocess.run([*command, f"model.path={tmp_path / 'none'}"], capture_output=True, check=False)
    assert result.returncode == 2
    assert b"is no directory; give a model directory" in result.stderr
