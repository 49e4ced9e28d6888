"""The page: whatever documents say is shown as text, and nothing leaves the page."""

import base64
import dataclasses
import hashlib
import json
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.corpus.report.charts import histogram
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
from tests.page.harmless import check_harmless


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


@settings(deadline=None)
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
