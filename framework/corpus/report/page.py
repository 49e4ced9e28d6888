"""`report.html`: the report as one page that needs nothing but itself, made as `framework.page` makes pages."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from framework.corpus.filters.rules import RULES
from framework.corpus.report.charts import bin_range, histogram
from framework.corpus.report.content import CONTAMINATED, DUPLICATES
from framework.corpus.report.schema import Report
from framework.page.render import environment_of, render, write

REPORTS = ("report.html", "report.json")
_HERE = Path(__file__).parent
_PASSES = {
    "first_corpus_read": "until one corpus has been read once",
    "as_many_as_there_are": "as many tokens as there are",
    "every_corpus_read": "until every corpus has been read once",
}


def write_report(directory: Path, report: Report) -> Path:
    """Write `report.json` and `report.html`, each whole or not at all; where the page is."""
    for name, text in (("report.json", report.as_text()), ("report.html", page_of(report))):
        write(directory / name, text)
    return directory / "report.html"


def page_of(report: Report) -> str:
    """The page; the same report gives the same text."""
    return render(_environment(), report=report, total=_totals(report))


@cache
def _environment() -> Environment:
    environment = environment_of(_HERE)
    environment.filters["bin_range"] = bin_range
    environment.globals |= {
        "histogram": histogram,
        "rules": RULES,
        "passes": _PASSES,
        "duplicate_rules": DUPLICATES,
        "contaminated_rule": CONTAMINATED,
    }
    return environment


def _totals(report: Report) -> dict[str, Any]:
    corpora = report.corpora.values()
    return {
        "found": sum(corpus.documents.found for corpus in corpora),
        "kept": sum(corpus.documents.kept for corpus in corpora),
        "bytes_read": sum(corpus.bytes.read for corpus in corpora),
        "bytes_kept": sum(corpus.bytes.kept for corpus in corpora),
        "tokens_read": sum(corpus.tokens.read for corpus in corpora),
        "tokens_kept": sum(corpus.tokens.kept for corpus in corpora),
        "tokens_train": sum(corpus.tokens.train for corpus in corpora),
        "duplicates": sum(sum(corpus.duplicates.values()) for corpus in corpora),
        "contaminated": sum(corpus.contaminated for corpus in corpora),
    }
