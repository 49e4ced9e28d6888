"""What each reader makes of small files of its format."""

import bz2
import gzip
import lzma
import sys
from pathlib import Path

import pytest

from framework.corpus.documents import Document
from framework.corpus.readers import library_versions, read_documents
from framework.corpus.readers.places import find_files
from framework.errors import UserError
from tests.corpus.texts import http, page, warc_record, wiki, wiki_page


def read(reader: str, path: Path, content: bytes | str) -> list[Document]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_documents(reader, str(path)))


def one_page(tmp_path: Path, response: bytes) -> Document:
    [document] = read("warc", tmp_path / "crawl.warc", warc_record("response", "http://a.example/", response))
    return document


def test_warc_keeps_the_article_and_leaves_navigation_out(tmp_path: Path) -> None:
    document = one_page(tmp_path, http(page("Rain falls.").encode()))
    assert document.title == "A title"
    assert document.url == "http://a.example/"
    assert document.text.startswith("Heading")
    assert document.text.count("Rain falls.") == 2
    assert "Next" not in document.text
    assert "Imprint" not in document.text


@pytest.mark.parametrize(
    ("encoding", "header", "meta"),
    [
        ("iso-8859-1", "text/html; charset=ISO-8859-1", ""),
        ("windows-1251", "text/html", "<meta charset='windows-1251'>"),
        ("utf-8", "text/html; charset=no-such-thing", "<meta charset='utf-8'>"),
        ("utf-8", "text/html; charset=hex", "<meta charset='utf-8'>"),
        ("utf-8", "text/html; charset=undefined", ""),
        ("shift_jis", 'text/html; charset="Shift_JIS"', ""),
    ],
)
def test_warc_decodes_pages_as_they_declare(tmp_path: Path, encoding: str, header: str, meta: str) -> None:
    words = {
        "iso-8859-1": "Größe, café.",
        "windows-1251": "Привет, мир.",
        "utf-8": "Žluťoučký kůň.",
        "shift_jis": "日本語の文。",
    }
    html = page(words[encoding]).replace("<head>", f"<head>{meta}")
    assert words[encoding] in one_page(tmp_path, http(html.encode(encoding), content_type=header)).text


def test_warc_undoes_transfer_and_content_encodings(tmp_path: Path) -> None:
    packed = gzip.compress(page("Packed words.").encode())
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
    response = http(chunked, more="Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n")
    assert "Packed words." in one_page(tmp_path, response).text


@pytest.mark.parametrize(
    ("response", "rule"),
    [
        (http(b"gone", status="404 Not Found"), "http_status"),
        (http(b"%PDF-1.4", content_type="application/pdf"), "not_html"),
        (http(b"not gzip", more="Content-Encoding: gzip\r\n"), "bad_http"),
        (b"\x00\x01\x02 this is no HTTP at all", "bad_http"),
    ],
)
def test_warc_rejects_by_rule_what_is_no_page(tmp_path: Path, response: bytes, rule: str) -> None:
    assert one_page(tmp_path, response).rejected == rule


def test_warc_survives_an_empty_page(tmp_path: Path) -> None:
    document = one_page(tmp_path, http(b""))
    assert (document.rejected, document.text) == ("", "")


def test_warc_reads_wet_conversions_and_skips_other_records(tmp_path: Path) -> None:
    records = (
        warc_record("warcinfo", "file", b"software: x\r\n", "application/warc-fields"),
        warc_record("request", "http://a.example/", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request"),
        warc_record("conversion", "http://a.example/", "Wörter\nzweite Zeile".encode(), "text/plain"),
    )
    for name, content in (("a.wet", b"".join(records)), ("a.wet.gz", b"".join(map(gzip.compress, records)))):
        [document] = read("warc", tmp_path / name, content)
        assert document.text == "Wörter\nzweite Zeile"


ARTICLE = """'''Rain''' is [[water|wet stuff]] from [[cloud]]s.{{Infobox|a={{b}}}}&lt;ref&gt;A source&lt;/ref&gt;
{| class="wikitable"
| cell
|}
[[File:Rain.jpg|thumb|A [[photograph]] of rain]]
== History ==
* first &amp;amp; last
[https://a.example/ an address]
[[Category:Weather]]"""


def test_mediawiki_gives_words_without_markup(tmp_path: Path) -> None:
    [document] = read("mediawiki", tmp_path / "w.xml", wiki(wiki_page(7, "Rain", "an older text", ARTICLE)))
    assert (document.id, document.title) == ("7", "Rain")
    words = " ".join(document.text.split())
    assert words == "Rain is wet stuff from clouds. History first & last an address"


def test_mediawiki_knows_the_wikis_own_namespace_names(tmp_path: Path) -> None:
    text = "Regen ist nass. [[Datei:Regen.jpg|mini|Bild]] [[Kategorie:Wetter]] [[Bild:x.jpg]] [[Wolke]]"
    export = wiki(wiki_page(1, "Regen", text), language="de", category="Kategorie", file="Datei")
    [document] = read("mediawiki", tmp_path / "w.xml", export)
    assert "Kategorie" not in document.text
    assert "Datei" not in document.text
    assert document.text.startswith("Regen ist nass.")
    assert document.text.endswith("Wolke")


def test_mediawiki_rejects_redirects_and_other_namespaces(tmp_path: Path) -> None:
    pages = (
        wiki_page(1, "A", "text"),
        wiki_page(2, "B", "#REDIRECT [[A]]", redirect="A"),
        wiki_page(3, "Talk:A", "chatter", namespace=1),
    )
    documents = read("mediawiki", tmp_path / "w.xml.bz2", bz2.compress(wiki("".join(pages)).encode()))
    assert [document.rejected for document in documents] == ["", "redirect", "namespace"]


@pytest.mark.parametrize(
    ("wikitext", "words"),
    [
        ("He said {{lang|fr|bonjour}} twice.", "He said bonjour twice."),
        ("It is {{convert|5|km|mi|abbr=on}} away.", "It is 5 km away."),
        ("A {{nowrap|long [[word|phrase]]}} stays.", "A long phrase stays."),
        ("The {{Infobox|name={{lang|fr|x}}}}box goes.", "The box goes."),
        ("So &lt;math&gt;a^2 + b^2&lt;/math&gt; holds.", "So holds."),
        ("Seen.&lt;ref name=x /&gt; Again.&lt;ref&gt;A {{cite|book}}&lt;/ref&gt;", "Seen. Again."),
        ("&lt;gallery&gt;\nFile:A.jpg|Caption\n&lt;/gallery&gt;Text.__NOTOC__", "Text."),
        ("A bird: \\__O__/", "A bird: \\__O__/"),
        ("One\n{| class=x\n|\n{|\n| deep\n|}\n|}\ntwo.", "One two."),
    ],
)
def test_mediawiki_templates_tables_and_references(tmp_path: Path, wikitext: str, words: str) -> None:
    [document] = read("mediawiki", tmp_path / "w.xml", wiki(wiki_page(1, "A", wikitext)))
    assert " ".join(document.text.split()) == words


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("#REDIRECT [[Rain]]", "redirect"),
        (" #Weiterleitung [[Regen]] {{R from move}}", "redirect"),
        ("#WEITERLEITUNG: [[Regen]]", "redirect"),
        ("# first [[item]] of a list\n# second", ""),
        ("#REDIRECT is a word of [[wikis]]", ""),
        ("#item [[x]] " + "of a long article " * 100, ""),
    ],
)
def test_mediawiki_knows_redirects_of_old_dumps_by_their_text(tmp_path: Path, text: str, rule: str) -> None:
    [document] = read("mediawiki", tmp_path / "w.xml", wiki(wiki_page(1, "A", text)))
    assert document.rejected == rule


NOVEL = """A NOVEL

by Nobody

CHAPTER I

It began.
chapter 2 is mentioned here, within a paragraph.

Chapter 2. The Middle

It went on.

CHAPTER III

It ended.
"""


@pytest.mark.parametrize("name", ["novel.txt", "novel.txt.gz", "novel.txt.xz"])
def test_text_books_are_cut_at_headings(tmp_path: Path, name: str) -> None:
    pack = {"txt": bytes, "gz": gzip.compress, "xz": lzma.compress}[name.rsplit(".", 1)[1]]
    documents = read("book", tmp_path / name, pack(NOVEL.encode()))
    assert [document.title for document in documents] == [
        "novel",
        "novel CHAPTER I",
        "novel Chapter 2. The Middle",
        "novel CHAPTER III",
    ]
    assert "\n".join(document.text for document in documents) == NOVEL.rstrip("\n")


def test_a_text_without_headings_is_one_document(tmp_path: Path) -> None:
    [document] = read("book", tmp_path / "essay.txt", "Only this.\r\nAnd that.\r\n")
    assert document.text == "Only this.\nAnd that."


def test_epub_chapters_follow_the_spine(tmp_path: Path) -> None:
    from ebooklib import epub

    book = epub.EpubBook()
    book.set_identifier("x")
    book.set_title("A Book")
    chapters = []
    for name in ("zebra", "aardvark"):  # not in alphabetical order
        chapter = epub.EpubHtml(title=name, file_name=f"{name}.xhtml")
        chapter.content = f"<h1>{name}</h1><p>One &amp; two.</p><p>Three.</p>"
        book.add_item(chapter)
        chapters.append(chapter)
    book.add_item(epub.EpubNcx())
    book.add_item(epub.EpubNav())
    book.spine = ["nav", *chapters]
    epub.write_epub(str(tmp_path / "a.epub"), book)
    documents = list(read_documents("book", str(tmp_path / "a.epub")))
    assert [document.rejected for document in documents] == ["navigation", "", ""]
    assert [document.text.split() for document in documents[1:]] == [
        ["zebra", "One", "&", "two.", "Three."],
        ["aardvark", "One", "&", "two.", "Three."],
    ]
    assert documents[1].title == "A Book"


def test_jsonl_fields_and_defaults(tmp_path: Path) -> None:
    lines = (
        '\ufeff{"text": "a", "id": 5, "score": 2, "title": "t", "url": "u"}\n\n{"text": "b", "title": null, "more": []}'
    )
    first, second = read("jsonl", tmp_path / "x.jsonl", lines)
    assert first == Document(id="5", text="a", title="t", url="u", score=2)
    assert second == Document(id="x.jsonl:3", text="b")


def test_find_files_sorts_and_takes_each_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/er/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_files("corpora.x.paths", [f"{tmp_path}/**/*.txt", f"{tmp_path}/a.txt"])
    assert [str(Path(file.location).relative_to(tmp_path)) for file in found] == ["a.txt", "b.txt", "deep/er/c.txt"]


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastwarc", None)
    with pytest.raises(UserError, match=r"reader warc needs FastWARC; pip install 'loam\[corpus\]'"):
        library_versions("warc", [])
