"""Charts as inline SVG: no script, no style of their own, colours by the classes of `page.css`."""

from markupsafe import Markup

RECTANGLE = Markup('<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}">{}</rect>')
TEXT = Markup('<text class="{}" x="{:.2f}" y="{:.2f}">{}</text>')
RULE = Markup('<line class="rule" x1="{}" x2="{}" y1="{:.2f}" y2="{:.2f}"/>')


def bar(*parts: tuple[str, float]) -> Markup:
    """A horizontal bar as wide as its place: one rectangle for each (class, share of the whole), side by side.

    It repeats for the eye what the numbers beside it say, so it is hidden from screen readers.
    """
    drawn, start = Markup(), 0.0
    for colour, share in parts:
        drawn += RECTANGLE.format(colour, 1000 * start, 0, 1000 * share, 10, "")
        start += share
    opening = '<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
    return Markup(opening) + drawn + Markup("</svg>")
