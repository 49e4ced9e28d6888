"""Small raw files, made with the standard library alone."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

ODD_TEXTS = [
    "plain",
    " leading and trailing ",
    "two  spaces,   three    and four",
    "\ttabs\t\tand\tmore",
    "line\nline\n\n\nline\n",
    "    def f(x):\n        return x  # indented\n",
    "naïve café, e\u0301 combining, ﬁ ligature, \uff21 fullwidth, ½",
    "漢字かな交じり文。한국어 العربية עברית ไทย",
    "emoji 👩\u200d👩\u200d👧 🏳️\u200d🌈 \U0001d518\U0001d52b",
    "1234567890 3.14159 0x1F",
    "<|endoftext|><|pad|> <|user|>hi<|end|>",
    "<|fim_prefix|>a<|fim_suffix|>c<|fim_middle|>b <|mask|>",
    "<0x0A> <unk> <s> </s>",
    "non\u00a0breaking\u2003space\u3000ideographic",
    "a" * 5000,
    "word " * 3000,
]


def random_documents(count: int, seed: int, words: int = 120) -> list[dict[str, Any]]:
    """`count` documents of random made-up words over several lines; the same for the same seed."""
    chance = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "an", "el", "is")]
    vocabulary = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(800)]
    return [
        {
            "id": f"{seed}-{number}",
            "text": "\n".join(" ".join(chance.choices(vocabulary, k=12)) for _ in range(chance.randint(1, words // 6))),
        }
        for number in range(count)
    ]


def write_jsonl(path: Path, documents: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(document) + "\n" for document in documents).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def warc_record(kind: str, url: str, block: bytes, content_type: str = "application/http; msgtype=response") -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2020-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:test:{url}>\r\nContent-Type: {content_type}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def http(body: bytes, status: str = "200 OK", content_type: str = "text/html", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{more}\r\n".encode() + body


def page(sentence: str) -> str:
    paragraphs = f"<p>{sentence} " + "This sentence makes the paragraph long enough to be content. " * 5 + "</p>"
    return (
        "<html><head><title>A title</title></head><body><nav><a href='/'>Home</a> <a href='/next'>Next</a></nav>"
        f"<article><h1>Heading</h1>{paragraphs}{paragraphs}</article>"
        "<footer>Imprint</footer></body></html>"
    )


def wiki(pages: str, language: str = "en", category: str = "Category", file: str = "File") -> str:
    return (
        f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="{language}">'
        f"<siteinfo><sitename>W</sitename><dbname>w</dbname><base>b</base><generator>g</generator><case>first-letter"
        f'</case><namespaces><namespace key="0" case="first-letter"/><namespace key="1" case="first-letter">Talk'
        f'</namespace><namespace key="6" case="first-letter">{file}</namespace>'
        f'<namespace key="14" case="first-letter">{category}</namespace></namespaces></siteinfo>{pages}</mediawiki>'
    )


def wiki_page(number: int, title: str, *texts: str, namespace: int = 0, redirect: str = "") -> str:
    revisions = "".join(
        f"<revision><id>{number}{n}</id><timestamp>2020-01-0{n + 1}T00:00:00Z</timestamp>"
        f"<model>wikitext</model><format>text/x-wiki</format><text>{text}</text></revision>"
        for n, text in enumerate(texts)
    )
    target = f'<redirect title="{redirect}"/>' if redirect else ""
    return f"<page><title>{title}</title><ns>{namespace}</ns><id>{number}</id>{target}{revisions}</page>"
