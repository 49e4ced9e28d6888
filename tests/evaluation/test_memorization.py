"""What greedy decoding would write, known from one forward pass, against what it does write."""

import numpy as np
import pytest

from framework.config import MemorizationConfig
from framework.errors import UserError
from framework.evaluation.documents import Document, TokenCorpus, TokenData
from framework.evaluation.memorization import Memorization
from framework.evaluation.writing import Sampling
from framework.inference.generation import generate_pieces
from framework.inference.request import Request
from framework.inference.sampling import GREEDY

PREFIX, LENGTH = 6, 8


class Known:
    """Documents of given tokens."""

    digest = "known"

    def __init__(self, name, documents):
        self.name = name
        self._documents = documents

    def sample(self, subject, count, shortest, seed):
        return [d for d in self._documents if len(d.tokens) >= shortest][:count]


def documents(rows):
    return [Document(f"d/{number}", np.array(row, np.int64), 1) for number, row in enumerate(rows)]


def own_words(subject, count, wrong_at=()):
    """Texts of which the model itself wrote the end, with a token changed in some of them."""
    random = np.random.default_rng(0)
    for number in range(count):
        prefix = random.integers(20, 360, PREFIX).tolist()
        request = Request(tuple(prefix), LENGTH, GREEDY)
        pieces = generate_pieces(subject._module, subject.tokenizer, request)
        tokens = [token for piece in pieces for token in piece.tokens]
        if number < len(wrong_at):
            tokens[wrong_at[number]] = 20 + (tokens[wrong_at[number]] + 7) % 300
        yield prefix + tokens


def evaluate(subject, *sides):
    evaluation = Memorization(MemorizationConfig(prefix_tokens=PREFIX, continuation_tokens=LENGTH, passages=50))
    evaluation._corpora = list(sides)
    return evaluation(subject)


def test_what_the_model_writes_by_itself_is_known_exactly(subject):
    random = np.random.default_rng(1)
    trained = documents(own_words(subject, 12, wrong_at=(0, 3, 7)))
    held_out = documents(random.integers(20, 360, (9, PREFIX + LENGTH)))
    outcome = evaluate(subject, ("trained", Known("web", trained)), ("held_out", Known("web", held_out)))
    rows = {row.name: row for row in outcome.rows}
    assert rows["memorization/web/trained/exact"].value == 9 / 12
    assert rows["memorization/web/trained/longest_match"].value == (9 * LENGTH + 0 + 3 + 7) / 12
    histogram = outcome.details["web/trained"]["longest_match_histogram"]
    assert histogram == [1, 0, 0, 1, 0, 0, 0, 1, 9]
    assert rows["memorization/web/held_out/exact"].value == 0
    assert rows["memorization/web/held_out/exact"].high > 0.25  # nine passages leave much open
    assert rows["memorization/web/held_out/exact"].items is None
    written = subject.generate([d.tokens[:PREFIX].tolist() for d in held_out], Sampling(LENGTH))
    own = [next((i for i, (a, b) in enumerate(zip(w.tokens, d.tokens[PREFIX:], strict=False)) if a != b), len(w.tokens))
           for w, d in zip(written, held_out, strict=True)]  # fmt: skip
    assert rows["memorization/web/held_out/longest_match"].value == np.mean(own)


def test_passages_come_from_random_places_that_a_second_start_takes_again(subject):
    long = documents(np.random.default_rng(2).integers(20, 360, (5, 300)))
    evaluation = Memorization(MemorizationConfig(prefix_tokens=PREFIX, continuation_tokens=LENGTH))
    passages = [evaluation._passage(document) for document in long]
    again = [evaluation._passage(document) for document in long]
    assert [key for key, _ in passages] == [key for key, _ in again]
    places = [
        next(i for i in range(300) if (d.tokens[i : i + len(p)] == p).all())
        for d, (_, p) in zip(long, passages, strict=True)
    ]
    assert len(set(places)) == 5


def test_documents_of_shards_are_sampled_without_reading_them_all(subject, data):
    shards = TokenData(str(data))
    corpus = TokenCorpus("web", shards.manifest.corpora["web"].train, shards)
    read = []
    inner = shards.shards.read
    shards.shards.read = lambda block: (read.append(block), inner(block))[1]
    some = corpus.sample(subject, 3, 10, seed=0)
    assert len(some) == 3
    assert len(set(read)) < len(corpus.split.blocks)
    assert [d.key for d in corpus.sample(subject, 3, 10, seed=0)] == [d.key for d in some]
    assert [d.key for d in corpus.sample(subject, 3, 10, seed=1)] != [d.key for d in some]
    for document in some:
        number = int(document.key.removeprefix("web/"))
        assert document.tokens.tolist() == corpus.stored[number].tolist()
    every = corpus.sample(subject, 10**6, 2, seed=0)
    assert sorted(int(d.key.removeprefix("web/")) for d in every) == list(range(300))


def test_both_sides_of_prepared_data(subject, data):
    outcome = Memorization(MemorizationConfig(data=str(data), prefix_tokens=5, continuation_tokens=5))(subject)
    counts = {row.name: row.count for row in outcome.rows if row.name.endswith("exact")}
    assert counts["memorization/web/trained/exact"] > counts["memorization/web/held_out/exact"] > 0


def test_documents_that_are_all_too_short_are_told(subject, data):
    with pytest.raises(UserError, match=r"memorization\.prefix_tokens: no document has 250 tokens for one; lower it"):
        Memorization(MemorizationConfig(data=str(data), prefix_tokens=200))(subject)
