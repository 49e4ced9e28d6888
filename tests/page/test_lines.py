"""Curves of any length: what is drawn of them, and that it is drawn where it belongs."""

import re
from itertools import pairwise
from random import Random
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.page.lines import Curve, Thinned, chart, short, ticks

VALUES = st.floats(-1e9, 1e9)


def thinned(points):
    kept = Thinned()
    for x, y in points:
        kept.add(x, y)
    return kept


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=399))
def test_a_short_curve_is_kept_whole(values):
    assert thinned(enumerate(values, start=1)).points() == list(enumerate(values, start=1))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 5000), st.integers(0, 2**32))
def test_of_a_long_curve_the_extremes_are_kept(first, length, seed):
    random = Random(seed)
    points = [(first + x, random.random()) for x in range(length)]
    low, high = min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1])
    kept = thinned(points).points()
    assert {low, high} <= set(kept) <= set(points)
    assert kept == sorted(kept)
    assert len(kept) <= 802


def test_stretches_are_equally_long():
    """A spike of one step in a hundred thousand is there, at its place, and the calm before it too."""
    kept = thinned((x, 100.0 if x == 70_001 else x % 2) for x in range(100_000)).points()
    assert (70_001, 100.0) in kept
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(kept)]
    assert max(gaps) < 100_000 / 100
    assert [y for _, y in kept].count(100.0) == 1


def test_the_part_after_a_step():
    assert thinned(enumerate([5.0, 4.0, 3.0, 2.0])).after(1).points() == [(2, 3.0), (3, 2.0)]


def test_what_is_not_finite_is_no_point():
    assert thinned([(1, 2.0), (2, float("nan")), (3, float("inf")), (4, 1.0)]).points() == [(1, 2.0), (4, 1.0)]


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=50), st.booleans())
def test_a_curve_lies_within_its_drawing_and_keeps_its_proportions(values, from_zero):
    curve = Curve("a", 0, thinned(enumerate(values)))
    drawing = ElementTree.fromstring(chart("c", "<title> & more", [curve], [(0, 'a "mark"')], from_zero))
    [path] = drawing.findall("path")
    places = [tuple(map(float, pair.split())) for pair in re.findall(r"[ML]([\d.]+ [\d.]+)", path.attrib["d"])]
    assert len(places) == len(values)
    assert all(76 <= x <= 712 and 15.9 <= y <= 206.1 for x, y in places)
    low, high = min(values), max(values)
    if high - low > 1e-3:
        heights = [-y for _, y in places]
        scale = (max(heights) - min(heights)) / (high - low)
        assert heights == pytest.approx([min(heights) + (v - low) * scale for v in values], abs=0.2)
    assert [title.text for title in drawing.iter("title")] == ["<title> & more", 'a "mark"']


@given(VALUES, VALUES, st.integers(2, 8))
def test_ticks_are_round_and_span_the_values(one, other, about):
    low, high = min(one, other), max(one, other)
    found = ticks(low, high, about)
    step = found[1] - found[0]
    slack = 1e-6 * max(step, abs(high), abs(low))
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert 2 <= len(found) <= 2 * about + 3


def test_round_numbers_in_few_characters():
    assert [short(value) for value in (0, 0.001, 250, 12_000, 5e6, 2.5e9, -3000)] == [
        *("0", "0.001", "250", "12 k", "5 M", "2.5 G", "-3 k")
    ]
