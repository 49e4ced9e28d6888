"""Beam search against that of transformers."""

import pytest
import torch

from framework.errors import UserError
from framework.inference.beam import BeamSearch
from framework.inference.request import Request
from framework.inference.sampling import GREEDY, Sampling
from framework.model.huggingface import write_model_directory
from tests.inference.models import Spelled
from tests.inference.test_decoder import prompts
from tests.model import small_tokenizer
from tests.model.shapes import CONFIGS, random_model

FAMILIES = ["gpt2", "llama", "mistral", "qwen3"]


class Ending(Spelled):
    """Tokens spell nothing; the given ones end a text."""

    def __init__(self, size, *end):
        super().__init__(*[b"x"] * size)
        self.end = frozenset(end)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A model of ours, and the same in transformers, by family."""
    transformers = pytest.importorskip("transformers")
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("model")
            config = CONFIGS[name]
            config = type(config)(**vars(config) | {"vocabulary_size": 384})
            model = random_model(config)
            tokenizer = small_tokenizer.write(folder / "tokenizer")
            write_model_directory(folder / "m", model.state_dict(), config, tokenizer=tokenizer, provenance={})
            other = transformers.AutoModelForCausalLM.from_pretrained(folder / "m", dtype=torch.float32).eval()
            made[name] = model, other
        return made[name]

    return make


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("beams", "penalty", "ends"), [(2, 1.0, 1), (4, 1.0, 40), (5, 0.0, 60), (3, 2.0, 40), (4, -1.0, 90)]
)
def test_texts_are_those_of_transformers(name, beams, penalty, ends, theirs):
    model, other = theirs(name)
    tokenizer = Ending(384, *range(0, 384, 384 // ends))
    search = BeamSearch(model, tokenizer, beams=beams, length_penalty=penalty, positions=60, prefill_tokens=7)
    lengths = set()
    for number, prompt in enumerate(prompts(4, 20, 384)):
        repetition = 1.3 if number % 2 else 1.0
        ours = search(Request(prompt, 16, Sampling(0.0, repetition_penalty=repetition)))
        ids = torch.tensor([prompt])
        found = other.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, num_beams=beams,
            length_penalty=penalty, repetition_penalty=repetition, pad_token_id=2, eos_token_id=sorted(tokenizer.end),
        )[0, len(prompt) :].tolist()  # fmt: skip
        end = next((place for place, token in enumerate(found) if token in tokenizer.end), len(found))
        assert list(ours.tokens) == found[:end]
        assert ours.finish == ("stop" if end < len(found) else "length")
        lengths.add(len(ours.tokens))
    assert ends < 60 or min(lengths) < 16


def test_a_text_is_the_likeliest_there_is_where_all_are_kept():
    """With as many beams as there are texts, search is exhaustive: nothing is likelier than what it finds."""
    model = random_model(type(CONFIGS["llama"])(**vars(CONFIGS["llama"]) | {"vocabulary_size": 40}))
    search = BeamSearch(model, Ending(40), beams=20, length_penalty=0.0, positions=8)
    found = search(Request((5, 9), 2, GREEDY))
    with torch.no_grad():
        first = model(torch.tensor([[5, 9]]))[0, -1].log_softmax(-1)
        second = model(torch.tensor([[5, 9, token] for token in range(40)]))[:, -1].log_softmax(-1)
    best = (first[:, None] + second).flatten().argmax().item()
    assert found.tokens == divmod(best, 40)


def test_more_beams_than_tokens_are_refused_before_memory_is_taken():
    with pytest.raises(UserError, match=r"^beams: 99999999 are too many for 96 tokens"):
        BeamSearch(random_model(CONFIGS["llama"]), Ending(96), beams=99_999_999, positions=4096)


def test_stop_texts_end_beams_and_are_left_out():
    tokenizer = Spelled(*[bytes([97 + n % 26]) for n in range(96)])
    tokenizer.end = frozenset()
    model = random_model(CONFIGS["llama"])
    search = BeamSearch(model, tokenizer, beams=3, length_penalty=-3.0, positions=40)  # short texts are the better
    free = search(Request((4, 5), 20, GREEDY))
    stop = free.text[3:5]
    ended = search(Request((4, 5), 20, GREEDY, (stop,)))
    assert ended.finish == "stop"
    assert stop not in ended.text
    assert free.finish == "length"


def test_what_does_not_fit_is_refused():
    model = random_model(CONFIGS["llama"])
    with pytest.raises(UserError, match="beams: 97 are too many for 96 tokens"):
        BeamSearch(model, Ending(96, 0), beams=97, positions=10)
    with pytest.raises(UserError, match="exceed the 10 positions"):
        BeamSearch(model, Ending(96, 0), beams=2, positions=10)(Request((1,) * 9, 3, GREEDY))
