"""One reader a format: each turns a file into documents, one at a time, in bounded memory.

A reader raises `UserError` with the file and the place for what it cannot read; it never skips damage.
"""

import glob
import importlib
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from framework.corpus.documents import Document
from framework.corpus.readers.book import read_book
from framework.corpus.readers.jsonl import read_jsonl
from framework.corpus.readers.mediawiki import read_mediawiki
from framework.corpus.readers.warc import read_warc
from framework.errors import UserError

Reader = Callable[[Path], Iterator[Document]]

READERS: dict[str, Reader] = {
    "warc": read_warc,
    "mediawiki": read_mediawiki,
    "book": read_book,
    "jsonl": read_jsonl,
}
# The packages that decide what text comes out: distribution and module.
LIBRARIES: dict[str, dict[str, str]] = {
    "warc": {"FastWARC": "fastwarc", "Resiliparse": "resiliparse"},
    "mediawiki": {"mwxml": "mwxml", "mwparserfromhell": "mwparserfromhell"},
    "book": {"EbookLib": "ebooklib", "Resiliparse": "resiliparse"},
    "jsonl": {},
}


def library_versions(reader: str) -> dict[str, str]:
    """Version of every package that `reader` extracts with.

    Raises:
        UserError: one of them is not installed.
    """
    found = {}
    for distribution, module in LIBRARIES[reader].items():
        try:
            importlib.import_module(module)
            found[distribution] = version(distribution)
        except (ImportError, PackageNotFoundError) as error:
            raise UserError(f"reader {reader} needs {distribution}; pip install 'loam[corpus]'") from error
    return found


def find_files(field_name: str, patterns: list[str]) -> list[Path]:
    """The files that the patterns name, sorted, each once; `**` crosses directories.

    Raises:
        UserError: a pattern matches no file, or a file is empty.
    """
    found: set[Path] = set()
    for pattern in patterns:
        matches = [Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file()]
        if not matches:
            raise UserError(f"{field_name}: {pattern!r} matches no file; give files or glob patterns that exist")
        found.update(matches)
    for path in found:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: is empty; fetch it again or take it out of {field_name}")
    return sorted(found)


def read_documents(reader: str, path: Path) -> Iterator[Document]:
    """Every document of one file, rejected ones too.

    Raises:
        UserError: the file is damaged, or holds nothing that the reader knows.
    """
    nothing = True
    for document in READERS[reader](path):
        nothing = False
        yield document
    if nothing:
        raise UserError(f"{path}: reader {reader} finds no document in it; check the file and the corpus's reader")
