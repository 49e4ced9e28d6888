"""Web crawls: WARC files (pages) and WET files (text that Common Crawl extracted)."""

from collections.abc import Iterator
from typing import Any

from framework.corpus.documents import Document
from framework.corpus.readers.streams import open_stream
from framework.errors import UserError

MAXIMUM_BYTES = 64 << 20  # a larger record is no page; reading it whole would not be bounded
_PAGES = ("text/html", "application/xhtml+xml")


def read_warc(location: str) -> Iterator[Document]:
    """The pages of a crawl: the main content of each HTML response, the text of each WET conversion.

    Navigation, banners and footers are left out by Resiliparse's rules (Bevendorff et al., 2018). The
    encoding is the one that HTTP or the page declares, else a detected one.

    Turned down here: responses with another status than 200 ("http_status"), that are not HTML
    ("not_html"), larger than 64 MiB ("too_large") or not sound as HTTP ("bad_http").

    Raises:
        UserError: the file is damaged or cut off; the message names the last sound record.
    """
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    wanted = WarcRecordType.response | WarcRecordType.conversion
    last = "the start of the file"
    with open_stream(location) as stream:
        try:
            for record in ArchiveIterator(stream, record_types=wanted, parse_http=False):
                yield _document(record)
                last = f"record {record.record_id}"
        except (OSError, EOFError) as error:
            raise UserError(f"{location}: damaged after {last} ({error}); fetch the file again") from error


def _document(record: Any) -> Document:
    url = record.headers.get("WARC-Target-URI") or ""
    document = Document(id=record.record_id.strip("<>"), url=url)
    declared = record.content_length
    if declared > MAXIMUM_BYTES:
        document.rejected = "too_large"
        return document
    block = record.reader.read()
    if len(block) < declared:  # FastWARC gives what there is without a word
        raise EOFError(f"{url} has {len(block):,} of its {declared:,} bytes")
    if record.headers.get("WARC-Type") == "conversion":
        document.text = block.decode("utf-8", errors="replace")
    elif record.is_http:
        _read_response(document, block)
    else:
        document.rejected = "not_html"
    return document


def _read_response(document: Document, block: bytes) -> None:
    """Fill `document` from an HTTP response, or say why not."""
    from fastwarc.warc import WarcRecord

    response = WarcRecord()  # apart from the crawl's own record: bad HTTP would stop the iteration over the file
    response.set_bytes_content(block)
    response.is_http = True
    try:
        response.parse_http(auto_decode="all", quirks_mode=True)
        page = response.reader.read()
    except OSError:
        document.rejected = "bad_http"
        return
    status = response.http_headers.status_code
    if status != 200:
        document.rejected = "http_status" if status else "bad_http"
    elif response.http_content_type not in _PAGES:
        document.rejected = "not_html"
    else:
        document.title, document.text = extract_html(page, response.http_charset)


def extract_html(page: bytes, charset: str | None) -> tuple[str, str]:
    """Title and main content of a page, as plain text with its line structure."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5
    from resiliparse.parse.html import HTMLTree

    # Browsers know a fixed list of names (WHATWG); servers send others, and some that Python has no text codec for.
    encoding = charset and map_encoding_to_html5(charset, fallback_utf8=False)
    encoding = encoding or detect_encoding(page, from_html_meta=True)
    tree = HTMLTree.parse(bytes_to_str(page, encoding or "utf-8"))
    return tree.title or "", extract_plain_text(tree, main_content=True, alt_texts=False)
