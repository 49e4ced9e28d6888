"""Books: plain text and EPUB, one document a chapter.

A book is cut at its chapters because the held-out split is drawn by document: six novels as six
documents could hardly be split at all, and a document should not be far longer than a training row.
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from framework.corpus.documents import Document
from framework.corpus.readers.streams import read_lines
from framework.errors import UserError

# "CHAPTER IV", "Chapter 12.", "Chapter 3: The Inn" - alone on a line after an empty one
_HEADING = re.compile(r"\s*chapter\s+(?:[ivxlcdm]+|\d+)\s*(?:[.:\u2013\u2014-].*)?", re.IGNORECASE)


def read_book(path: Path) -> Iterator[Document]:
    """The chapters of a book (.epub, or UTF-8 .txt, compressed or not).

    Raises:
        UserError: the file is damaged, is not UTF-8, or is neither text nor EPUB.
    """
    if path.suffix == ".epub":
        return _read_epub(path)
    if ".txt" in path.suffixes:
        return _read_text(path)
    raise UserError(f"{path}: is neither .epub nor .txt; convert it or take it out of the corpus")


def _read_text(path: Path) -> Iterator[Document]:
    """What stands before the first heading is a document too: title page, preface."""
    book = path.name.split(".")[0]
    lines: list[str] = []
    heading, number, after_empty = "", 0, True
    for _, line in read_lines(path):
        if after_empty and _HEADING.fullmatch(line):
            yield _chapter(path, number, f"{book} {heading}", "\n".join(lines))
            lines, heading, number = [], line.strip(), number + 1
        lines.append(line)
        after_empty = not line.strip()
    yield _chapter(path, number, f"{book} {heading}", "\n".join(lines))


def _read_epub(path: Path) -> Iterator[Document]:
    """The spine's XHTML items in reading order; the navigation is turned down ("navigation").

    The archive is read whole: an EPUB is a few megabytes.
    """
    from ebooklib import epub
    from lxml.etree import LxmlError  # type: ignore[import-untyped]
    from resiliparse.extract.html2text import extract_plain_text

    try:
        book = epub.read_epub(path, {"ignore_ncx": True})
        title = book.title or path.stem
        for number, (reference, _linear) in enumerate(book.spine):
            item = book.get_item_with_id(reference)
            if item is None:
                raise UserError(f"{path}: the spine names {reference!r}, which is not in the book; repair the EPUB")
            chapter = _chapter(path, number, title, "")
            if isinstance(item, epub.EpubNav):
                chapter.rejected = "navigation"
            else:
                html = item.get_content().decode("utf-8")
                chapter.text = extract_plain_text(html, main_content=False, alt_texts=False)
            yield chapter
    except (epub.EpubException, zipfile.BadZipFile, zlib.error, LxmlError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no sound EPUB ({error}); fetch the file again") from error


def _chapter(path: Path, number: int, title: str, text: str) -> Document:
    return Document(id=f"{path.name}#{number}", title=title.strip(), text=text)
