import subprocess
import sys

import pytest
import torch

from framework.config import ModelConfig
from framework.errors import UserError
from framework.inference.generation import generate_text, generate_tokens, load
from framework.model.huggingface import write_model_directory
from tests.inference.models import Scripted, Spelled
from tests.model import small_tokenizer
from tests.model.shapes import CONFIGS, DECODERS, random_model

every_shape = pytest.mark.parametrize("config", DECODERS.values(), ids=DECODERS.keys())


def say(tokens, tokenizer, prompt="", **options):
    model = Scripted(tokens, tokenizer.size)
    pieces = list(generate_text(model, tokenizer, prompt, **{"maximum_tokens": 20, "temperature": 0.0} | options))
    return pieces, model


@every_shape
def test_greedy_tokens_are_those_of_transformers(config, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = small_tokenizer.write(tmp_path / "tokenizer")
    model = random_model(ModelConfig(**vars(config) | {"vocabulary_size": 384}))
    write_model_directory(tmp_path / "m", model.state_dict(), model.config, tokenizer=tokenizer, provenance={})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    ours, _ = load(tmp_path / "m")
    prompts = torch.randint(3, 384, (4, 12), generator=torch.Generator().manual_seed(0))
    settings = transformers.GenerationConfig(max_new_tokens=20, do_sample=False, pad_token_id=2, eos_token_id=None)
    expected = theirs.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=settings)
    for prompt, whole in zip(prompts.tolist(), expected.tolist(), strict=True):
        assert prompt + list(generate_tokens(ours, prompt, maximum_tokens=20, temperature=0.0)) == whole
    assert len(set(expected[:, 12:].flatten().tolist())) > 4


def test_the_seed_decides(tmp_path):
    model = random_model(CONFIGS["llama"])
    options = {"maximum_tokens": 20, "temperature": 1.5}
    one, same, other = (list(generate_tokens(model, [1, 2], seed=seed, **options)) for seed in (0, 0, 1))
    assert one == same != other
    assert len(one) == 20


def test_top_k_of_one_is_greedy():
    model = random_model(CONFIGS["llama"])
    greedy = list(generate_tokens(model, [1, 2], maximum_tokens=20, temperature=0.0))
    assert list(generate_tokens(model, [1, 2], maximum_tokens=20, temperature=2.0, top_k=1)) == greedy
    assert list(generate_tokens(model, [1, 2], maximum_tokens=20, temperature=2.0, top_p=1e-6)) == greedy


def test_a_prompt_starts_as_documents_do_and_is_read_once():
    tokenizer = Spelled(b"", b"a", b"b", b"c")
    pieces, model = say([3, 2, 0], tokenizer, prompt="ab")
    assert model.read == [0, 1, 2, 3, 2]
    assert pieces == ["c", "b"]


def test_end_of_text_ends_it():
    pieces, model = say([1, 0, 1], Spelled(b"", b"a"))
    assert pieces == ["a"]
    assert model.script == [1]


def test_characters_spread_over_tokens_come_whole():
    tokenizer = Spelled(b"", b"a", b"\xc3", b"\xa9")
    assert say([1, 2, 3, 1], tokenizer, maximum_tokens=4)[0] == ["a", "é", "a"]
    assert say([1, 2], tokenizer, maximum_tokens=2)[0] == ["a", "\ufffd"]


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
    assert len(list(generate_tokens(model, [1] * 60, maximum_tokens=5, temperature=0.0))) == 5
    with pytest.raises(UserError, match=r"64 positions that the model has learned; generate at most 5"):
        next(generate_tokens(model, [1] * 60, maximum_tokens=6, temperature=0.0))
    with pytest.raises(UserError, match="shorten the prompt"):
        next(generate_tokens(model, [1] * 65, maximum_tokens=1, temperature=0.0))


def test_an_encoder_writes_no_text(tmp_path):
    tokenizer = small_tokenizer.write(tmp_path / "tokenizer")
    model = random_model(ModelConfig(**vars(CONFIGS["encoder"]) | {"vocabulary_size": 360}))
    write_model_directory(tmp_path / "m", model.state_dict(), model.config, tokenizer=tokenizer, provenance={})
    with pytest.raises(UserError, match=r"^model\.path: .* is a masked language model, which cannot continue a text"):
        load(tmp_path / "m")


def test_the_program_prints_the_text(tmp_path):
    tokenizer = small_tokenizer.write(tmp_path / "tokenizer")
    model = random_model(ModelConfig(**vars(CONFIGS["llama"]) | {"vocabulary_size": 360}))
    write_model_directory(tmp_path / "m", model.state_dict(), model.config, tokenizer=tokenizer, provenance={})
    command = [sys.executable, "-m", "framework.generate", "prompt=the river", "maximum_tokens=12", "seed=3"]
    result = subprocess.run([*command, f"model.path={tmp_path / 'm'}"], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    expected = generate_text(*load(tmp_path / "m"), "the river", maximum_tokens=12, temperature=0.8, top_p=0.95, seed=3)
    assert result.stdout.decode() == "the river" + "".join(expected) + "\n"

    result = subprocess.run([*command, f"model.path={tmp_path / 'none'}"], capture_output=True, check=False)
    assert result.returncode == 2
    assert b"is no directory; give a model directory" in result.stderr
