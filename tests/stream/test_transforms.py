"""Fill in the middle and masked tokens: what comes out is taken apart by other means, and no reader matters."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.config import ObjectiveConfig
from framework.errors import UserError
from framework.stream.curriculum import Curriculum
from framework.stream.fill_in_middle import MINIMUM, FillInMiddle
from framework.stream.loader import NO_LOSS, TrainingRows, causal_lm, share_of
from framework.stream.manifest import read_manifest
from framework.stream.masked_lm import MaskedLM
from framework.stream.objective import open_objective
from framework.stream.shards import LocalShards

END, PREFIX, MIDDLE, SUFFIX, MASK, FIRST = 1, 7, 8, 9, 10, 11  # ids of the small tokenizer; FIRST of its text
VOCABULARY = 1000
INFILLING = ObjectiveConfig("fill_in_middle", 0.7, 0.4)


def infilling(rate=1.0, spm_rate=0.5, seed=0):
    return FillInMiddle(rate, spm_rate, seed, END, PREFIX, MIDDLE, SUFFIX)


def masking(rate=0.15, masked=0.8, random=0.1, seed=0):
    return MaskedLM(rate, masked, random, seed, VOCABULARY, MASK, set(range(FIRST)))


def packed(random, rows, width, lengths):
    """Rows cut from a stream of documents, each with one of these numbers of tokens, <|endoftext|> included."""
    stream = []
    while len(stream) <= 2 * rows * width:
        length = lengths[random.integers(len(lengths))]
        stream += [END, *random.integers(FIRST, VOCABULARY, length - 1).tolist()]
    start = random.integers(rows * width)
    found = np.array(stream[start : start + rows * width], dtype=np.int64).reshape(rows, width)
    return found, (np.cumsum(found == END, axis=1) - (found[:, :1] == END))[:, :-1].astype(np.int32)


def documents(row):
    """The documents of a row of ids, each from its <|endoftext|> on; what the row begins with may have none."""
    found = [[]]
    for token in row:
        if token == END and found[-1]:
            found.append([])
        found[-1].append(int(token))
    return found


def restored(document):
    """(a document as it was, in which order it had been rearranged: None, "psm" or "spm")."""
    opening = document[:1] if document[0] == END else []
    text = document[len(opening) :]
    if not set(text) & {PREFIX, MIDDLE, SUFFIX}:
        return document, None
    assert [Counter(text)[symbol] for symbol in (PREFIX, MIDDLE, SUFFIX)] == [1, 1, 1]
    assert text[0] == PREFIX
    suffix_at, middle_at = text.index(SUFFIX), text.index(MIDDLE)
    assert suffix_at < middle_at
    prefix, suffix, middle = text[1:suffix_at], text[suffix_at + 1 : middle_at], text[middle_at + 1 :]
    return [*opening, *prefix, *middle, *suffix], "psm" if prefix else "spm"


def whole(tokens, labels):
    """The row of T + 1 ids that tokens and labels were cut from."""
    assert np.array_equal(tokens[1:], labels[:-1])
    return [*tokens.tolist(), int(labels[-1])]


@settings(max_examples=300, deadline=None)
@given(
    width=st.integers(2, 150),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    rate=st.sampled_from([0.0, 0.3, 1.0]),
    spm_rate=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_every_document_can_be_put_together_again(width, lengths, rate, spm_rate, seed):
    rows, numbers = packed(np.random.default_rng(seed), 5, width, lengths)
    tokens, labels, document = infilling(rate, spm_rate, seed)(rows, numbers, range(seed, seed + 5))
    assert tokens.shape == labels.shape == document.shape == (5, width - 1)
    assert (tokens.dtype, labels.dtype, document.dtype) == (np.int64, np.int64, np.int32)
    for before, row in zip(rows.tolist(), map(whole, tokens, labels), strict=True):
        found = [restored(piece) for piece in documents(row)]
        lost = 3 * sum(order is not None for _, order in found)
        assert [token for piece, _ in found for token in piece] == before[: width - lost]
        for piece, order in found:
            length = len(piece) - (piece[0] == END)
            assert order is None or length >= MINIMUM
            assert rate < 1 or order is not None or length < MINIMUM + 3  # it may be the sentinels' room that lacked
    expected = np.cumsum(tokens == END, axis=1) - (tokens[:, :1] == END)
    assert np.array_equal(document, expected)


def test_rate_zero_changes_nothing():
    rows, numbers = packed(np.random.default_rng(0), 6, 100, [3, 30, 90])
    given, kept = causal_lm(rows, numbers, range(6)), infilling(rate=0.0)(rows, numbers, range(6))
    assert all(np.array_equal(a, b) for a, b in zip(given, kept, strict=True))


def orders(rate, spm_rate, rows=20_000, text=9):
    """What became of one document of `text` tokens a row, behind which there is room for the sentinels."""
    document = [END, *range(FIRST, FIRST + text)]
    row = np.tile(np.array([*document, END, FIRST, FIRST]), (rows, 1))
    tokens, labels, _ = infilling(rate, spm_rate)(row, np.zeros((rows, row.shape[1] - 1), np.int32), range(rows))
    found = [documents(whole(*pair))[0] for pair in zip(tokens, labels, strict=True)]
    assert all(restored(piece)[0] == document for piece in found)
    return found


def assert_binomial(count, trials, probability):
    assert abs(count - trials * probability) < 5 * np.sqrt(trials * probability * (1 - probability))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_as_many_documents_are_rearranged_as_asked(rate):
    found = orders(rate, 0.5)
    assert_binomial(sum(PREFIX in piece for piece in found), len(found), rate)


@pytest.mark.parametrize("spm_rate", [0.2, 0.5])
def test_as_many_have_the_suffix_first_as_asked(spm_rate):
    found = orders(1.0, spm_rate, rows=5000, text=99)
    empty = (2 * 99 + 1) / 100**2  # of the prefixes of the others: either point falls on the first of 100 places
    probability = spm_rate + (1 - spm_rate) * empty
    assert_binomial(sum(restored(piece)[1] == "spm" for piece in found), len(found), probability)


def test_the_two_points_are_uniform():
    cuts = Counter()
    for piece in orders(1.0, 0.0):
        prefix, middle = piece.index(SUFFIX) - 2, len(piece) - 1 - piece.index(MIDDLE)
        cuts[prefix, prefix + middle] += 1
    assert len(cuts) == 55
    for (first, second), count in cuts.items():
        assert_binomial(count, 20_000, (1 if first == second else 2) / 100)


def test_what_is_drawn_never_changes():
    """Written down once: a row that changes with a version of Loam or NumPy would break every resume."""
    row = np.array([[FIRST, FIRST, END, *range(20, 40)]])
    tokens, _, document = infilling(seed=3)(row, np.zeros((1, 22), np.int32), range(5, 6))
    assert tokens.tolist() == [[11, 11, 1, 7, 20, 21, 22, 23, 24, 25, 9, 34, 35, 36, 8, 26, 27, 28, 29, 30, 31, 32]]
    assert document.tolist() == [[0] * 2 + [1] * 20]
    masked, labels, _ = masking(0.3, 0.5, 0.3, seed=3)(row, np.zeros((1, 22), np.int32), range(5, 6))
    expected = [792, 11, 1, 20, 21, 727, 23, 24, 10, 26, 27, 28, 29, 30, 10, 10, 33, 472, 35, 10, 634, 10]
    assert masked.tolist() == [expected]
    assert np.flatnonzero(labels[0] != NO_LOSS).tolist() == [0, 5, 8, 14, 15, 17, 19, 20, 21]


def readers(data):
    """A fresh reader of training rows for each objective."""
    manifest = read_manifest(data)
    of_mask = MaskedLM(0.15, 0.8, 0.1, 0, manifest.vocabulary_size, MASK, set(manifest.reserved.values()))
    return [
        lambda objective=objective: TrainingRows(manifest, {}, Curriculum(48), 8, 0, LocalShards(), objective=objective)
        for objective in (open_objective(INFILLING, manifest, 0), of_mask)
    ]


@pytest.mark.parametrize("which", [0, 1], ids=["fill_in_middle", "masked_lm"])
def test_a_row_depends_on_its_number_alone(data, which):
    reader = readers(data)[which]
    walking = reader()
    alone = [walking.read(range(i, i + 1)).row_hashes()[0] for i in range(176)]
    assert len(set(alone)) == 176
    assert reader().read(range(176)).row_hashes() == alone  # in one batch
    assert reader().read(range(160, 176)).row_hashes() == alone[160:]  # after a seek
    assert reader().read(range(173, 160, -4)).row_hashes() == alone[173:160:-4]  # in another order
    for ranks in (2, 4):
        for rank in range(ranks):
            share = share_of(rank, ranks, 160, 16)
            assert reader().read(share).row_hashes() == [alone[i] for i in share]


@pytest.mark.parametrize("which", [0, 1], ids=["fill_in_middle", "masked_lm"])
def test_the_seed_and_the_number_of_a_row_matter(which):
    rows, numbers = packed(np.random.default_rng(1), 1, 200, [50])
    found = set()
    for seed, number in ((0, 0), (0, 1), (1, 0), (2**32 - 1, 2**40)):
        make = (infilling, masking)[which]
        found.add(make(seed=seed)(rows, numbers, range(number, number + 1))[0].tobytes())
    assert len(found) == 4


def test_rows_of_real_documents_hold_what_the_plain_ones_hold(data):
    manifest = read_manifest(data)
    plain = TrainingRows(manifest, {}, Curriculum(64), 8, 0, LocalShards()).read(range(64))
    objective = open_objective(INFILLING, manifest, 0)
    batch = TrainingRows(manifest, {}, Curriculum(64), 8, 0, LocalShards(), objective=objective).read(range(64))
    arranged = 0
    for before, after in zip(
        map(whole, plain.tokens, plain.labels), map(whole, batch.tokens, batch.labels), strict=True
    ):
        sentinels = Counter(token for token in after if token in (PREFIX, MIDDLE, SUFFIX))
        assert len(set(sentinels.values())) <= 1
        lost = Counter(before[len(before) - sentinels.total() :])
        assert Counter(after) - sentinels == Counter(before) - lost
        arranged += sentinels[PREFIX]
    assert arranged > 30
    assert batch.corpora == plain.corpora


def test_data_prepared_before_there_was_infilling(data, tmp_path):
    content = json.loads((data / "tokens" / "manifest.json").read_text())
    del content["tokenizer"]["reserved"]
    folder = tmp_path / "old"
    (folder / "tokens").mkdir(parents=True)
    for corpus in ("web", "books"):
        (folder / "tokens" / corpus).symlink_to(data / "tokens" / corpus)
    (folder / "tokens" / "manifest.json").write_text(json.dumps(content))
    manifest = read_manifest(folder)
    assert manifest.reserved == {}
    assert open_objective(ObjectiveConfig(), manifest, 0) is causal_lm
    with pytest.raises(UserError, match=r"^objective\.name: .*<\|fim_prefix\|>.*manifest\.json.*framework\.prepare"):
        open_objective(INFILLING, manifest, 0)


@pytest.mark.parametrize(("rate", "masked", "random"), [(0.15, 0.8, 0.1), (0.3, 1.0, 0.0), (1.0, 0.0, 1.0)])
def test_as_many_tokens_are_corrupted_as_asked(rate, masked, random):
    rows, numbers = packed(np.random.default_rng(2), 64, 1025, [5, 40, 300])
    tokens, labels, document = masking(rate, masked, random)(rows, numbers, range(64))
    before = rows[:, :-1]
    chosen, is_text = labels != NO_LOSS, before >= FIRST
    assert document is numbers
    assert not (chosen & ~is_text).any()
    assert np.array_equal(labels[chosen], before[chosen])
    assert np.array_equal(tokens[~chosen], before[~chosen])
    assert_binomial(chosen.sum(), is_text.sum(), rate) if rate < 1 else None
    drawn = chosen & (tokens != MASK) & (tokens != before)
    for count, share in (((tokens == MASK).sum(), masked), (drawn.sum(), random * (1 - 1 / (VOCABULARY - FIRST)))):
        assert abs(count - chosen.sum() * share) <= 5 * np.sqrt(chosen.sum() * share * (1 - share))
    assert not (tokens[drawn] < FIRST).any()
    if random == 1:  # the tokens drawn are uniform
        counts = np.bincount(tokens[drawn], minlength=VOCABULARY)[FIRST:]
        assert np.abs(counts - counts.mean()).max() < 6 * np.sqrt(counts.mean())


def test_a_row_has_a_label_at_least_unless_it_has_no_text():
    rows, numbers = packed(np.random.default_rng(3), 300, 40, [3, 20])
    rows[7] = END
    _, labels, _ = masking(rate=1e-6)(rows, numbers, range(300))
    assert (labels != NO_LOSS).sum(axis=1).tolist() == [1] * 7 + [0] + [1] * 292
    places = np.nonzero(labels != NO_LOSS)[1]
    assert len(set(places)) > 30  # wherever the lowest draw happened to be
