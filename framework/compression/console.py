"""Before and after, as a table."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from framework.compression.measuring import Measured, Speed


def show(before: Measured, after: Measured, target: Path) -> None:
    """Print what a directory was and what it is."""
    table = Table(title=f"{target}", title_justify="left")
    for name in ("", "before", "after", "ratio"):
        table.add_column(name, justify="left" if not name else "right")
    _row(table, "weights on disk, MB", before.disk / 1e6, after.disk / 1e6, 2)
    _row(table, "weights in memory, MB", before.memory / 1e6, after.memory / 1e6, 2)
    table.add_row("zeros in the blocks' matrices", f"{before.zeros:.1%}", f"{after.zeros:.1%}", "")
    if before.speed and after.speed:
        table.add_row("tokens written a second, one row", *_speeds(before.speed, after.speed))
    for name, value in before.bits_per_byte.items():
        _row(table, name.replace("_", " "), value, after.bits_per_byte[name], 4)
    Console().print(table)


def _row(table: Table, name: str, before: float, after: float, digits: int) -> None:
    table.add_row(name, f"{before:,.{digits}f}", f"{after:,.{digits}f}", f"{after / before:.3f}")


def _speeds(before: Speed, after: Speed) -> tuple[str, str, str]:
    """With the slowest and the fastest round; where these overlap, the machine's other work may be the difference."""
    overlap = before.slowest <= after.fastest and after.slowest <= before.fastest
    told = [f"{one.median:,.1f} ({one.slowest:,.0f} to {one.fastest:,.0f})" for one in (before, after)]
    return told[0], told[1], f"{after.median / before.median:.3f}{', not told apart' if overlap else ''}"
