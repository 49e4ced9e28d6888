"""One page that needs nothing but itself: no script, no network, no other file.

What it shows is hostile, as documents and models are: every text is escaped by the template engine, control characters
are replaced, and a policy in the page forbids the browser everything but the page's own style sheet, by its hash.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from framework.page import wording
from framework.page.charts import bar

_HERE = Path(__file__).parent


def environment_of(folder: Path) -> Environment:
    """What renders the `page.html` of a folder, with the macros of `parts.html`, filters for numbers, and `bar`."""
    environment = Environment(
        loader=FileSystemLoader([folder, _HERE]),
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
        "duration": wording.duration,
    }
    environment.globals["bar"] = bar
    return environment


def render(environment: Environment, **content: Any) -> str:
    """`page.html` with its `content`, and with `style` and the `policy` that admits it."""
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    template = environment.get_template("page.html")
    return template.render(style=Markup(style), policy=Markup(policy), **content) + "\n"


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)
