import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.corpus.cleaning import clean_text, is_held_out


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a\r\nb\rc\u2028d\u0085e", "a\nb\nc\nd\ne"),
        ("  a\tb  \n", "a\tb"),
        ("nul\x00 bell\x07 escape\x1b[0m delete\x7f", "nul bell escape[0m delete"),
        ("\ufeffmark\ufeff", "mark"),
        ("lower \u2581 block", "lower _ block"),
        ("half \ud83d a pair", "half  a pair"),
        ("e\u0301 ﬁ Ⅳ \u00a0 \u200d 👩\u200d🚀", "e\u0301 ﬁ Ⅳ \u00a0 \u200d 👩\u200d🚀"),
    ],
)
def test_what_cleaning_changes_and_what_it_leaves(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@given(st.text(st.characters(exclude_categories=())))
def test_clean_text_is_clean(raw: str) -> None:
    text = clean_text(raw)
    text.encode()
    assert clean_text(text) == text
    assert "\u2581" not in text
    assert not {c for c in text if unicodedata.category(c) == "Cc"} - {"\n", "\t"}


def test_the_held_out_share_is_the_fraction() -> None:
    held_out = [is_held_out(str(number), 0.1) for number in range(20_000)]
    assert 0.09 < sum(held_out) / len(held_out) < 0.11  # 5 standard deviations are 0.0106
    stricter = [is_held_out(str(number), 0.05) for number in range(20_000)]
    assert all(wide for narrow, wide in zip(stricter, held_out, strict=True) if narrow)  # a smaller split is within
