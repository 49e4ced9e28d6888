"""Numbers and texts as the page shows them."""

import re

from markupsafe import Markup

# Control characters but tab and newline, lone surrogates, and code points that are no characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def printable(value: object) -> object:
    """A text with U+FFFD for what no page may contain; anything else as it is.

    Escaping is the template's work, and is done after this.
    """
    return _UNPRINTABLE.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def number(value: float) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,}"


def percent(part: float, whole: float = 1.0) -> str:
    """A share with one decimal; what is little but not nothing, or nearly but not all, is not rounded away."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "< 0.1 %"
    if 99.9 < share < 100:
        return "> 99.9 %"
    return f"{share:.1f} %"


def size(count: float) -> str:
    """A number of bytes in decimal units, to three digits."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    if unit == "bytes":
        return "1 byte" if count == 1 else f"{count:.0f} bytes"
    decimals = 2 if count < 9.995 else 1 if count < 99.95 else 0
    return f"{count:,.{decimals}f} {unit}"


def words(name: str) -> str:
    """A name of a rule or step as words."""
    return name.replace("_", " ")


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    if seconds < 10:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days:,} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
