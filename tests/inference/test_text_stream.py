from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.inference.text_stream import TextStream


def run(data: bytes, cuts: list[int], stop=()):
    """Push the bytes in the given parts; the pieces of text that came."""
    stream = TextStream(stop)
    edges = [0, *sorted(cuts), len(data)]
    pieces = [stream.push(data[a:b]) for a, b in pairwise(edges)]
    return [*pieces, stream.finish()], stream


def test_characters_come_whole():
    stream = TextStream()
    data = "é😀".encode()
    assert [stream.push(data[n : n + 1]) for n in range(6)] == ["", "é", "", "", "", "😀"]


def test_an_unfinished_character_becomes_a_replacement():
    pieces, _ = run(b"a\xf0\x9f", [1])
    assert "".join(pieces) == "a\ufffd"
    assert "".join(run(b"a\xff\xfeb", [2])[0]) == "a\ufffd\ufffdb"


def test_what_may_become_a_stop_text_is_held_back():
    stream = TextStream(["END", "\n\n"])
    assert [stream.push(data) for data in (b"x E", b"N", b"x\n", b"y EN")] == ["x ", "", "ENx", "\ny "]
    assert not stream.stopped
    assert stream.push(b"D and more") == ""
    assert stream.stopped
    assert stream.push(b"more") == stream.finish() == ""


def test_the_first_of_several_stop_texts_ends_the_text():
    pieces, stream = run(b"one two three", [], ["three", "two", ""])
    assert "".join(pieces) == "one "
    assert stream.stopped


def test_what_was_held_comes_at_the_end():
    pieces, stream = run(b"the EN", [], ["END"])
    assert pieces == ["the ", "EN"]
    assert not stream.stopped


def test_what_is_whole_first_ends_the_text_however_the_tokens_fall():
    for cuts in ([], [2], [1, 2, 3]):
        assert "".join(run(b"a b c", cuts, [" ", "a b"])[0]) == "a"
        assert "".join(run(b"xabc", cuts, ["bc", "abc", "c"])[0]) == "x"


@given(st.text(), st.lists(st.integers(0, 60)), st.lists(st.text(alphabet="ab é", min_size=1, max_size=4), max_size=3))
def test_the_cuts_do_not_matter(text, cuts, stop):
    data = text.encode()
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    pieces, stream = run(data, [min(cut, len(data)) for cut in cuts], stop)
    assert "".join(pieces) == text[: min(ends, default=(0, len(text)))[1]]
    assert stream.stopped == bool(ends)


@pytest.mark.parametrize("text", ["abab", "ababab c", "aab", "xaba"])
def test_overlapping_beginnings_of_a_stop_text(text):
    pieces, _ = run(text.encode(), list(range(len(text))), ["abac"])
    assert "".join(pieces) == text
