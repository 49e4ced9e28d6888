"""Documents by length as inline SVG, in the colours of the page's classes."""

from collections.abc import Sequence

from markupsafe import Markup

from framework.corpus.report.schema import LengthBin
from framework.page.charts import RECTANGLE, RULE, TEXT

_WIDTH, _HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 8, 16, 34  # margins, for the labels
_WIDEST, _BAR = 72, 0.4  # width of a bin at most, and the part of it that each of its two bars takes


def histogram(bins: Sequence[LengthBin], name: str) -> Markup:
    """Documents by length, read beside kept, over bins that grow as 1, 2, 5.

    Args:
        bins: in order, at least one.
        name: unique on the page, for the title.
    """
    top = _round_up(max(max(found.read, found.kept) for found in bins))
    wide = min(_WIDEST, (_WIDTH - _LEFT - _RIGHT) / len(bins))
    end = _LEFT + len(bins) * wide
    high = _HEIGHT - _TOP - _BOTTOM
    floor = _TOP + high
    drawn = Markup()
    for level in (0, top / 2, top):
        if level == int(level):
            y = floor - high * level / top
            drawn += RULE.format(_LEFT, end, y, y)
            drawn += TEXT.format("value", _LEFT - 8, y + 4, _short(int(level)))
    for place, found in enumerate(bins):
        left = _LEFT + place * wide
        for colour, count, shift in (("read", found.read, 0.08), ("kept", found.kept, 0.08 + _BAR + 0.02)):
            tall = high * count / top
            about = Markup("<title>{} characters: {:,} {}</title>").format(bin_range(found), count, colour)
            drawn += RECTANGLE.format(colour, left + shift * wide, floor - tall, _BAR * wide, tall, about)
        if len(bins) <= 6 or str(found.start)[0] in "01":
            drawn += TEXT.format("start", left, floor + 20, _short(found.start))
    title = Markup('<title id="{}">Documents by length in characters, read and kept</title>').format(name)
    opening = '<svg class="histogram" viewBox="0 0 {} {}" role="img" aria-labelledby="{}">'
    return Markup(opening).format(_WIDTH, _HEIGHT, name) + title + drawn + Markup("</svg>")


def bin_range(found: LengthBin) -> str:
    """Which lengths a bin is of."""
    return f"{found.start:,} and more" if found.end is None else f"{found.start:,} to {found.end - 1:,}"


def _short(count: int) -> str:
    """A round number in few characters."""
    if count >= 10**6:
        return f"{count // 10**6:,} M"
    return f"{count // 1000} k" if count >= 10**4 else f"{count:,}"


def _round_up(count: int) -> int:
    """The next of 1, 2, 4, 6, 8, 10, 20, ...: its half is a round number too."""
    power = 10 ** (len(str(max(1, count))) - 1)
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= count)
