"""`report.html`: the report as one page that needs nothing but itself: no script, no network, no other file.

Documents are hostile: every text is escaped by the template engine, control characters are replaced, and a policy in
the page forbids the browser everything but the page's own style sheet, by its hash.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from framework.corpus.filters.rules import RULES
from framework.corpus.report import wording
from framework.corpus.report.charts import bar, bin_range, histogram
from framework.corpus.report.content import CONTAMINATED, DUPLICATES
from framework.corpus.report.schema import Report

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
        partial = directory / f".{name}.partial"
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(directory / name)
    return directory / "report.html"


def page_of(report: Report) -> str:
    """The page; the same report gives the same text."""
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    template = _environment().get_template("page.html")
    return template.render(report=report, total=_totals(report), style=Markup(style), policy=Markup(policy)) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=wording.printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": wording.number,
        "percent": wording.percent,
        "size": wording.size,
        "words": wording.words,
        "bin_range": bin_range,
    }
    environment.globals |= {
        "bar": bar,
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
