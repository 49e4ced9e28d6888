"""The page: whatever documents say is shown as text, and nothing leaves the page."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.corpus.report import wording
from framework.corpus.report.charts import bar, histogram
from framework.corpus.report.mixture import mixture_of
from framework.corpus.report.page import page_of
from framework.corpus.report.schema import (
    CorpusReport,
    Documents,
    Domains,
    Host,
    Languages,
    LengthBin,
    MadeFrom,
    ReadAndKept,
    Report,
    Sample,
    Samples,
    Step,
    Tokens,
)
from tests.corpus.conftest import Prepared
from tests.corpus.report.conftest import BREAKS, ODD, SCRIPT

VOID = {"meta", "br", "link", "img", "base"}
ALLOWED = {"html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section", "article", "div"}
ALLOWED |= {"p", "h1", "h2", "h3", "h5", "a", "small", "span", "bdi", "code", "br", "dl", "dt", "dd", "details"}
ALLOWED |= {"summary", "figure", "figcaption", "table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
ALLOWED |= {"svg", "rect", "line", "text"}
REFERRING = {"src", "srcset", "style", "action", "data", "xlink:href", "poster", "background"}


class Page(HTMLParser):
    """What a browser would make of it: elements, attributes, text, and that elements are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.style = "", ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["style"]:
            self.style += data
        else:
            self.text += f"{data} "


def check_harmless(page: str) -> Page:
    """Known elements alone, no handler, no reference but to an element of the page."""
    found = Page(page)
    assert {tag for tag, _ in found.elements} <= ALLOWED
    names = [str(attributes["id"]) for _, attributes in found.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for tag, attributes in found.elements:
        assert (
            not {"src", "srcset", "style", "action", "data", "xlink:href", "poster", "background"} & attributes.keys()
        )
        assert not [name for name in attributes if name.startswith("on")]
        if "href" in attributes:
            assert tag == "a"
            assert str(attributes["href"]).removeprefix("#") in names
        assert str(attributes.get("aria-labelledby", names[0])) in names
    assert not re.search(r"url\(|@import|http|//", found.style)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe]", page)
    return found


@pytest.mark.parametrize("fixture", ["hostile", "samples"])
def test_the_page_needs_nothing_and_obeys_nobody(fixture: str, request: pytest.FixtureRequest) -> None:
    prepared: Prepared = request.getfixturevalue(fixture)
    page = (prepared.output / "report.html").read_text(encoding="utf-8")
    found = check_harmless(page)
    [policy] = [str(a["content"]) for tag, a in found.elements if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(found.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert str(prepared.output.parent) not in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)


def test_harmful_text_is_there_as_text(hostile: Prepared) -> None:
    page = check_harmless((hostile.output / "report.html").read_text(encoding="utf-8"))
    assert SCRIPT in page.text
    assert BREAKS in page.text
    assert "{{ 7 * 7 }}{% raw %}" in page.text


def test_numbers_of_the_page_are_those_of_the_file(hostile: Prepared) -> None:
    page = check_harmless((hostile.output / "report.html").read_text(encoding="utf-8"))
    report = json.loads((hostile.output / "report.json").read_text())
    words = set(page.text.split())
    for corpus in report["corpora"].values():
        documents = corpus["documents"]
        for count in (documents["found"], documents["read"], documents["kept"], *corpus["tokens"].values()):
            assert f"{count:,}" in words
        for step in corpus["funnel"]:
            assert f"{step['left']:,}" in words
    for digest in ("configuration", "manifest", "tokenizer"):
        assert report["made_from"][digest] in words


def report_that_says(text: str, count: int) -> Report:
    """A report that has a text wherever one can be, and a number wherever one can be."""
    sample = Sample(text, text, text, text, count, text, text)
    both, documents = ReadAndKept(count, count), Documents(count, count, count, count, count)
    corpus = CorpusReport(
        source=text, licence=text, reader=text, language=text, raw_files=count, raw_bytes=count,
        documents=documents, characters=both, bytes=both, tokens=Tokens(count, count, count, count),
        tokens_per_word=1.5, bytes_per_token=3.5, held_out_gzip_bytes=count, held_out_xz_bytes=count,
        funnel=[Step(text, count, {text: 0}, count, {text: count})],
        duplicates=dict.fromkeys(("duplicate", "near_duplicate", "duplicate_paragraphs"), count), contaminated=count,
        lengths=[LengthBin(10**9, None, count, count)],
        languages=Languages("filter", {text: count}, {text: count}),
        domains=Domains(both, both, [Host(text, count, count)]), samples=Samples([sample], {text: [sample]}),
    )  # fmt: skip
    made_from = MadeFrom(text, 1, text, text, text, count, {text: text})
    return Report(made_from, mixture_of({"name": 1.0}, {"name": count}), {"name": corpus})


@given(st.text(st.characters(), max_size=60) | st.sampled_from([SCRIPT, BREAKS, ODD]), st.integers(1000, 10**15))
def test_no_text_breaks_out_anywhere(text: str, count: int) -> None:
    report = report_that_says(text, count)
    page = page_of(report)
    found = check_harmless(page)
    elements = [tag for tag, _ in found.elements]
    plain = [tag for tag, _ in check_harmless(page_of(report_that_says("x", count))).elements]
    assert [tag for tag in elements if tag not in ("bdi", "small")] == [
        tag for tag in plain if tag not in ("bdi", "small")
    ]  # empty texts leave these out
    assert json.loads(report.as_text()) == json.loads(json.dumps(report.as_json()))
    assert dataclasses.asdict(report)["corpora"]["name"]["source"] == text


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


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), min_size=1, max_size=30))
def test_bars_are_as_high_as_their_counts(counts: list[tuple[int, int]]) -> None:
    bins = [LengthBin(number, number + 1, *both) for number, both in enumerate(counts)]
    drawing = ElementTree.fromstring(histogram(bins, "lengths"))
    rectangles = drawing.findall("rect")
    flat = [count for both in counts for count in both]
    heights = [float(rectangle.attrib["height"]) for rectangle in rectangles]
    assert len(heights) == len(flat)
    scale = max(heights) / max(1, *flat)
    assert heights == pytest.approx([count * scale for count in flat], abs=0.02)
    assert all(float(r.attrib["x"]) + float(r.attrib["width"]) <= 720 for r in rectangles)
    assert all(float(r.attrib["y"]) >= 0 for r in rectangles)


def test_parts_of_a_bar_stand_side_by_side() -> None:
    kept, lost = ElementTree.fromstring(bar(("kept", 0.25), ("lost", 0.5))).findall("rect")
    assert (kept.attrib["x"], kept.attrib["width"], lost.attrib["x"], lost.attrib["width"]) == (
        "0.00",
        "250.00",
        "250.00",
        "500.00",
    )
