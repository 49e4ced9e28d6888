"""Reads a page as a browser would, and makes sure that it can do no harm."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "base"}
ALLOWED = {"html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section", "article", "div"}
ALLOWED |= {"p", "h1", "h2", "h3", "h5", "a", "small", "span", "bdi", "code", "br", "dl", "dt", "dd", "details"}
ALLOWED |= {"summary", "figure", "figcaption", "table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
ALLOWED |= {"svg", "rect", "line", "text", "path", "pre"}
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
