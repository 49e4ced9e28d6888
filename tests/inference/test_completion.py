"""Requests to completions in order, whatever ends first; checks that fail, and texts asked for again."""

from dataclasses import replace

from framework.inference.completion import complete
from framework.inference.decoder import Decoder
from framework.inference.request import Request
from framework.inference.sampling import GREEDY, Sampling
from tests.inference.models import Tokens
from tests.inference.test_decoder import prompts
from tests.model.shapes import CONFIGS, random_model

DRAWN = Sampling(1.3, seed=5)


def write(requests, first=0, rows=3, **options):
    decoder = Decoder(random_model(CONFIGS["llama"]), Tokens(96), rows=rows, positions=64)
    return list(complete(decoder, enumerate(requests, start=first), rows=rows, **options))


def test_completions_come_in_order_and_each_by_its_own_number():
    requests = [Request(prompt, 1 + 7 * number % 23, DRAWN) for number, prompt in enumerate(prompts(30, 20, 96))]
    together = write(requests)
    assert [len(one.tokens) for one in together] == [request.maximum_tokens for request in requests]
    assert [one.tokens for one in write(requests[11:], first=11, rows=2)] == [one.tokens for one in together[11:]]
    same = write([requests[3]] * 2)
    assert same[0].tokens != same[1].tokens


def test_rows_are_taken_as_they_are_needed():
    taken = []

    def source():
        for number in range(200):
            taken.append(number)
            yield number, Request((5, 6), 1 if number else 60, GREEDY)

    decoder = Decoder(random_model(CONFIGS["llama"]), Tokens(96), rows=2, positions=64)
    found = complete(decoder, source(), rows=2)
    next(found)
    assert len(taken) <= 40  # the first took long, and no more than so many came before it was told
    assert len(list(found)) == 199


def test_what_fails_is_asked_again_with_another_seed():
    asked = []

    def judge(text):
        asked.append(text)
        return text.strip(), "no" if len(asked) < 4 else None

    (found,) = write([Request((5, 6), 9, DRAWN)], judge=judge, retries=5)
    assert (found.attempts, found.failed) == (4, None)
    plain = write([Request((5, 6), 9, DRAWN)])[0]
    assert found.tokens != plain.tokens

    (found,) = write([Request((5, 6), 9, DRAWN)], judge=lambda text: (text, "no"), retries=2)
    assert (found.attempts, found.failed) == (3, "no")
    (found,) = write([Request((5, 6), 9, DRAWN)], judge=lambda text: (text, "no"))
    assert replace(found, failed=None) == plain
