"""Numbers as pages show them, and the charts of pages."""

from xml.etree import ElementTree

import pytest

from framework.page import wording
from framework.page.charts import bar


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.00 kB"), (9994, "9.99 kB"), (9996, "10.0 kB"),
     (99_949, "99.9 kB"), (99_951, "100 kB"), (999_400, "999 kB"), (999_600, "1.00 MB"), (25 * 10**14, "2,500 TB")],
)  # fmt: skip
def test_sizes(count: int, told: str) -> None:
    assert wording.size(count) == told


def test_shares_do_not_round_away_what_is_there() -> None:
    told = [wording.percent(part, 10_000) for part in (0, 1, 10, 5000, 9990, 9999, 10_000)]
    assert told == ["0.0 %", "< 0.1 %", "0.1 %", "50.0 %", "99.9 %", "> 99.9 %", "100.0 %"]
    assert wording.percent(0, 0) == "0.0 %"


def test_parts_of_a_bar_stand_side_by_side() -> None:
    kept, lost = ElementTree.fromstring(bar(("kept", 0.25), ("lost", 0.5))).findall("rect")
    assert (kept.attrib["x"], kept.attrib["width"], lost.attrib["x"], lost.attrib["width"]) == (
        "0.00",
        "250.00",
        "250.00",
        "500.00",
    )
