"""Line charts side by side as one SVG file, drawn without a library that a bare machine may lack."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 360, 250, 46  # of a panel, in pixels, and what its axes' words need
COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#e08e1d", "#6a4c93", "#4d4d4d", "#00838f", "#8d6e63")

Line = Mapping[str, float]  # by category of the horizontal axis


def write_lines(
    path: Path, title: str, unit: str, categories: Sequence[str], panels: Mapping[str, Mapping[str, Line]]
) -> None:
    """`panels[heading][name of a line]`: each panel from 0 to the highest of its values; a missing value is a gap."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    columns = 2
    rows = -(-len(panels) // columns)
    total = HEIGHT * rows + 60 + 16 * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * columns} {total}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="white"/>',
        _text(WIDTH, 18, f"{title} ({unit})", "middle"),
    ]
    for index, (heading, lines) in enumerate(panels.items()):
        left, top = WIDTH * (index % columns), 26 + HEIGHT * (index // columns)
        parts.append(f'<g transform="translate({left} {top})">{_panel(heading, categories, lines, colours)}</g>')
    for index, name in enumerate(names):
        y = 40 + HEIGHT * rows + 16 * index
        parts.append(f'<path d="M{MARGIN} {y} h24" stroke="{colours[name]}" stroke-width="2"/>')
        parts.append(_text(MARGIN + 32, y + 4, name, "start"))
    path.write_text("\n".join([*parts, "</svg>"]))


def _panel(heading: str, categories: Sequence[str], lines: Mapping[str, Line], colours: Mapping[str, str]) -> str:
    highest = max((value for line in lines.values() for value in line.values()), default=1.0)
    bottom, height = HEIGHT - 30, HEIGHT - 60
    across = {c: MARGIN + (WIDTH - MARGIN - 20) * i / max(len(categories) - 1, 1) for i, c in enumerate(categories)}
    parts = [_text(WIDTH / 2, 20, heading, "middle")]
    for part in range(5):
        y = bottom - height * part / 4
        parts.append(f'<path d="M{MARGIN} {y:.1f} H{WIDTH - 20}" stroke="#ddd"/>')
        parts.append(_text(MARGIN - 6, y + 4, f"{highest * part / 4:.3g}", "end"))
    parts += [_text(x, bottom + 16, category, "middle") for category, x in across.items()]
    for name, line in lines.items():
        points = [(across[c], bottom - height * line[c] / highest) for c in categories if c in line]
        path = " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))
        parts.append(f'<path d="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colours[name]}"/>' for x, y in points]
    return "".join(parts)


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
