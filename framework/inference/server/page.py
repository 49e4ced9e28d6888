"""The page at /: one file without anything from elsewhere, which its headers forbid too."""

import base64
import hashlib
import re
from pathlib import Path

from starlette.responses import HTMLResponse


def page() -> HTMLResponse:
    """The page, allowed its own style and script, by their digests, and requests to this server; nothing else."""
    html = Path(__file__).with_name("chat.html").read_text(encoding="utf-8")
    policy = {
        "default-src": "'none'",
        "script-src": _digest(html, "script"),
        "style-src": _digest(html, "style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(html, headers=headers)


def _digest(html: str, element: str) -> str:
    found = re.search(f"<{element}>(.*?)</{element}>", html, re.S)
    assert found is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"
