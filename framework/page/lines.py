"""Curves as inline SVG, however long they are: of each stretch the lowest and the highest value is drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from framework.page.charts import RULE, TEXT

COLOURS = 6  # classes `colour-0` ... of `page.css`; later curves have the same again, dashed
_WIDTH, _HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 8, 16, 34  # margins, for the labels
_BUCKETS = 400  # stretches of a curve, at most

_PATH = Markup('<path class="curve {}" d="{}"/>')
_MARK = Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"><title>{3}</title></line>')


class Thinned:
    """Points of a curve in order of x, of which only the lowest and the highest of each stretch are kept.

    Stretches are equally long and grow, two becoming one, as the curve does; so memory is bounded, no extreme is
    lost, and a short curve is kept whole.
    """

    def __init__(self) -> None:
        self._width = 1
        self._buckets: dict[int, tuple[tuple[int, float], tuple[int, float]]] = {}  # lowest, highest

    def add(self, x: int, y: float) -> None:
        """One more point; where y is not finite there is a gap in what is known, and no point."""
        if not math.isfinite(y):
            return
        self._put(x // self._width, (x, y), (x, y))
        while len(self._buckets) > _BUCKETS:
            self._width *= 2
            old, self._buckets = self._buckets, {}
            for number, (low, high) in old.items():
                self._put(number // 2, low, high)

    def points(self) -> list[tuple[int, float]]:
        """What is kept, in order of x."""
        return sorted({point for both in self._buckets.values() for point in both})

    def after(self, x: int) -> "Thinned":
        """The part of the curve beyond x, as far as it is kept."""
        part = Thinned()
        for point in self.points():
            if point[0] > x:
                part.add(*point)
        return part

    def _put(self, number: int, low: tuple[int, float], high: tuple[int, float]) -> None:
        if number in self._buckets:
            lowest, highest = self._buckets[number]
            low = low if low[1] < lowest[1] else lowest
            high = high if high[1] > highest[1] else highest
        self._buckets[number] = (low, high)


@dataclass
class Curve:
    """A curve of a chart: the name that the key gives it, the number of its colour, and its points."""

    label: str
    colour: int = 0
    points: Thinned = field(default_factory=Thinned)


def chart(
    name: str, title: str, curves: Sequence[Curve], marks: Sequence[tuple[int, str]] = (), from_zero: bool = False
) -> Markup:
    """Curves over steps.

    Args:
        name: unique on the page.
        title: what the chart shows, for screen readers.
        curves: at least one of them with a point.
        marks: steps, and what happened there.
        from_zero: the vertical axis begins at 0; else at the lowest value.
    """
    drawn = [curve.points.points() for curve in curves]
    every = [point for points in drawn for point in points]
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    levels = ticks(min(0.0, low) if from_zero else low, high, 5)
    scale = _Scale(left, max(right, left + 1), levels[0], levels[-1])
    figure = Markup()
    for level in levels:
        y = scale.y(level)
        figure += RULE.format(_LEFT, _WIDTH - _RIGHT, y, y) + TEXT.format("value", _LEFT - 8, y + 4, short(level))
    for step in ticks(left, right, 6, whole=True):
        if left <= step <= right:
            figure += TEXT.format("step", scale.x(step), _HEIGHT - _BOTTOM + 20, short(step))
    for step, what in marks:
        if left <= step <= right:
            figure += _MARK.format(scale.x(step), _TOP, _HEIGHT - _BOTTOM, what)
    for curve, points in zip(curves, drawn, strict=True):
        figure += _PATH.format(colour(curve.colour), scale.path(points))
    opening = Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-labelledby="{}"><title id="{}">{}</title>')
    return opening.format(_WIDTH, _HEIGHT, name, name, title) + figure + Markup("</svg>")


def colour(number: int) -> str:
    """Classes of a curve whose colour has that number, and of its key."""
    return f"colour-{number % COLOURS}" + (" dashed" if number >= COLOURS else "")


@dataclass(frozen=True)
class _Scale:
    """Places on the drawing."""

    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return _LEFT + (value - self.left) / (self.right - self.left) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self.low) / (self.high - self.low) * (_HEIGHT - _TOP - _BOTTOM)

    def path(self, points: list[tuple[int, float]]) -> str:
        """A lone point is a dash, as a line of no length cannot be seen."""
        places = [f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points]
        return f"M{'L'.join(places)}" + ("h3" if len(places) == 1 else "") if places else ""


def ticks(low: float, high: float, about: int, whole: bool = False) -> list[float]:
    """Round numbers, equally far apart, the first at or below `low` and the last at or above `high`."""
    reach = max(high - low, abs(high) * 1e-6, 1e-300)
    power = 10.0 ** math.floor(math.log10(reach / about))
    step = next(power * times for times in (1, 2, 5, 10) if power * times * about >= reach * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """A round number in few characters."""
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:.4g} {unit}"
    return f"{value:.4g}"
