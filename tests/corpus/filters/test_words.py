# ruff: noqa: RUF001
import pickle
import re

import pytest
from datatrove.utils.text import split_into_words
from hypothesis import given
from hypothesis import strategies as st

from framework.corpus.filters.words import UnicodeWords

WORDS = UnicodeWords()


@pytest.mark.parametrize(
    ("text", "words"),
    [  # the first is the example of Unicode Standard Annex 29, section 4
        (
            'The quick ("brown") fox can\'t jump 32.3 feet, right?',
            ["The", "quick", "(", '"', "brown", '"', ")", "fox", "can't", "jump", "32.3", "feet", ",", "right", "?"],
        ),
        ("  naïve\tcafé\n\n", ["naïve", "café"]),
        ("漢字かな カタカナ", ["漢", "字", "か", "な", "カタカナ"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("\u200b \u00a0", ["\u200b"]),
        ("", []),
    ],
)
def test_words_follow_the_unicode_standard(text: str, words: list[str]) -> None:
    assert WORDS.word_tokenize(text) == words


@given(st.text())
def test_words_are_the_text_without_its_white_space(text: str) -> None:
    kept = "".join(WORDS.word_tokenize(text))
    assert re.sub(r"\s", "", kept) == re.sub(r"\s", "", text)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ('"Really?" she said. J. Austen wrote it.', ['"Really?" she said.', "J. Austen wrote it."]),
        ("It costs 3.14 dollars... or so. (It does.) Yes.", ["It costs 3.14 dollars... or so.", "(It does.)", "Yes."]),
        ("A heading\nA line.", ["A heading", "A line."]),
        ("一句。二句！", ["一句。", "二句！"]),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert WORDS.sent_tokenize(text) == sentences


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_sentences_cover_the_text(text: str) -> None:
    covered = {i for start, end in WORDS.span_tokenize(text) for i in range(start, end)}
    missed = "".join(char for i, char in enumerate(text) if i not in covered)
    assert not missed.strip()


def test_datatrove_takes_it_for_a_language_in_any_process() -> None:
    assert split_into_words("Can't stop", pickle.loads(pickle.dumps(WORDS))) == ["Can't", "stop"]
