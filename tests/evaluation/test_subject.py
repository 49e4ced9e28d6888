"""Log-likelihoods against transformers in float64, one text at a time; texts against `framework.inference`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from framework.errors import UserError
from framework.evaluation.models import open_subject
from framework.evaluation.subject import Request, Subject
from framework.evaluation.writing import Sampling
from framework.inference.generation import generate_text
from tests.evaluation.conftest import LEARNED, SHAPE, write_model


def requests(vocabulary, longest, count=60, seed=0):
    random = np.random.default_rng(seed)
    lengths = random.integers(2, longest + 2, count)
    return [Request(random.integers(vocabulary, size=n), int(random.integers(1, n))) for n in lengths]


@pytest.mark.parametrize(
    "config",
    [SHAPE, LEARNED, replace(SHAPE, sliding_window=5)],
    ids=["llama", "gpt2", "mistral"],
)
def test_log_likelihoods_are_those_of_transformers(config, tmp_path):
    path = write_model(tmp_path / "model", config)
    asked = requests(360, 40, count=25)
    scores = open_subject(str(path), "model", 300).score(asked)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    for request, score in zip(asked, scores, strict=True):
        with torch.no_grad():
            logits = model(torch.from_numpy(request.tokens[:-1])[None]).logits[0]
        labels = torch.from_numpy(request.tokens[1:])
        expected = logits.log_softmax(-1)[torch.arange(len(labels)), labels][-request.scored :]
        np.testing.assert_allclose(score.log_likelihoods, expected, rtol=1e-4, atol=1e-4)
        assert score.greedy.tolist() == (logits.argmax(-1) == labels)[-request.scored :].tolist()
        assert score.total == pytest.approx(expected.sum().item(), rel=1e-5)


def test_what_stands_in_a_batch_changes_nothing_but_rounding(subject, model):
    asked = requests(360, 60)
    alone = open_subject(str(model), "one", 1).score(asked)
    for one, other in zip(subject.score(asked), alone, strict=True):
        np.testing.assert_allclose(one.log_likelihoods, other.log_likelihoods, rtol=2e-5, atol=2e-5)


def test_a_request_scores_the_continuation_and_a_token_across_the_border(subject):
    request = subject.request("the river", " grows")
    before, whole = subject.prompt("the river"), subject.prompt("the river grows")
    assert request.tokens.tolist() == whole
    assert whole[: len(before)] == before
    assert request.scored == len(whole) - len(before)
    across = subject.request("riv", "er")
    scored = b"".join(subject.tokenizer.piece(token) for token in across.tokens[-across.scored :])
    assert across.tokens.tolist() == subject.prompt("river")
    assert scored.endswith(b"er")
    assert len(scored) > 2  # what the tokenizer joins over the border
    with pytest.raises(UserError, match="no token to score"):
        subject.request("the", "")


def test_a_text_without_context_is_given_the_token_that_opens_a_document(subject, foreign_subject):
    assert subject.request("", "the").tokens[0] == subject.tokenizer.begin == 1
    assert foreign_subject.request("", "the").tokens[0] == foreign_subject.tokenizer.begin


PROMPTS = ["the river", "", "stone", "of tree grows", "a", "12", "naïve soil"]


@pytest.mark.parametrize("stop", [(), (" ", "e"), ("\n",)])
def test_greedy_texts_are_those_of_generate(subject, foreign_subject, stop):
    for one in (subject, foreign_subject):
        written = one.generate([one.prompt(text) for text in PROMPTS], Sampling(20, stop))
        expected = [
            "".join(generate_text(one._module, one.tokenizer, text, maximum_tokens=20, stop=stop)) for text in PROMPTS
        ]
        assert [w.text for w in written] == expected
        assert all(len(w.tokens) == 20 for w in written if w.ended == "length")
        assert all(w.ended != "stop" for w in written) or stop


def test_a_text_ends_where_the_model_ends_it(subject):
    prompt = subject.prompt("the river")
    tokens = subject.generate([prompt], Sampling(12))[0].tokens
    end = next(token for token in tokens if token not in tokens[: tokens.index(token)] and token != tokens[0])
    subject.tokenizer.end, kept = frozenset({end}), subject.tokenizer.end
    try:
        (written,) = subject.generate([prompt], Sampling(12))
    finally:
        subject.tokenizer.end = kept
    assert (written.ended, written.tokens) == ("end of text", tokens[: tokens.index(end)])


def test_a_drawn_text_depends_on_its_place_and_the_seed_and_not_on_its_company(subject):
    prompts = [subject.prompt(text) for text in ("the river", "a stone", "12", "of tree")]
    sampling = Sampling(16, temperature=1.0, seed=3)
    together = subject.generate(prompts, sampling)
    assert [one.tokens for one in subject.generate(prompts[:2], sampling)] == [one.tokens for one in together[:2]]
    assert subject.generate(prompts, Sampling(16, temperature=1.0, seed=4))[0].tokens != together[0].tokens
    same = subject.generate([prompts[0]] * 2, sampling)
    assert same[0].tokens != same[1].tokens


def test_learned_positions_have_an_end(foreign_subject, subject):
    long = Request(np.zeros(LEARNED.maximum_positions + 2, np.int64), 1)
    with pytest.raises(UserError, match="a text of 49 tokens exceeds the 48 positions that the model has learned"):
        foreign_subject.score([long])
    with pytest.raises(UserError, match="exceeds the 48 positions"):
        foreign_subject.generate([[1] * 40], Sampling(10))
    assert foreign_subject.generate([[1] * 40], Sampling(9))[0].ended
    assert len(subject.score([Request(np.ones(SHAPE.maximum_positions + 9, np.int64), 3)])[0].greedy) == 3


def test_more_padding_than_learned_positions_does_no_harm(foreign_model):
    subject = open_subject(str(foreign_model), "foreign", 512)
    asked = [Request(np.arange(41) + number, 5) for number in range(7)]
    scores = subject.score(asked)  # six stand in a row, and beside the seventh are 200 places without a token
    alone = open_subject(str(foreign_model), "foreign", 1).score(asked[6:])
    np.testing.assert_allclose(scores[6].log_likelihoods, alone[0].log_likelihoods, rtol=1e-5)


def test_an_empty_prompt_needs_a_token_to_begin_with(subject):
    with pytest.raises(UserError, match="a prompt is empty"):
        subject.generate([[]], Sampling(2))


class Counting:
    """A module that counts its forward passes."""

    def __init__(self, module):
        self.module, self.passes = module, 0

    def __call__(self, *arguments, **options):
        self.passes += 1
        return self.module(*arguments, **options)


def share_of(subject, number, ranks, joins):
    """The subject as one of several ranks would have it; nothing is gathered here."""
    module = Counting(subject._module)
    own = Subject(
        "one", module, subject.config, subject.tokenizer, device=subject.device, batch_tokens=256,
        every_rank_joins=joins, share=(number, ranks),
    )  # fmt: skip
    return own, module


@pytest.mark.parametrize("joins", [True, False])
def test_ranks_that_have_to_join_every_forward_do(subject, joins):
    prompts = [subject.prompt(text) for text in PROMPTS]
    passes = []
    for number in range(3):
        own, module = share_of(subject, number, 3, joins)
        work = own._dealt(
            list(range(7)), lambda batch, own=own: own._write_batch([batch], prompts, Sampling(9, (" ",)))
        )
        assert [place for place, _ in work] == list(range(number, 7, 3))
        passes.append(module.passes)
    assert passes == [27] * 3 if joins else max(passes) > min(passes)
