"""Which documents are kept, and what is done to their text."""

import hashlib
import re

from framework.config import CorpusConfig
from framework.corpus.documents import Document

RULES = ("no_text", "minimum_characters", "no_score", "minimum_score", "duplicate")

_NEWLINES = re.compile("\r\n|[\r\u0085\u2028\u2029]")
# Control characters but tab and newline; lone surrogates, which JSON can spell and UTF-8 cannot; byte order marks.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")


def clean_text(text: str) -> str:
    """The text as it goes into a shard.

    Every line end becomes "\\n"; control characters, lone surrogates and byte order marks go; white
    space at both ends goes. U+2581 becomes "_": SentencePiece writes the space with that character, so
    it is the one that could not survive the round trip. Nothing else is changed.
    """
    text = _NEWLINES.sub("\n", text)
    return _UNWANTED.sub("", text).replace("\u2581", "_").strip()


class Cleaner:
    """Cleans the documents of one corpus and turns down those that break a rule.

    Exact duplicates are found by the 16 first bytes of a SHA-256; the set of them takes about 100 bytes
    a document, which is the only memory that grows with the corpus.
    """

    def __init__(self, corpus: CorpusConfig) -> None:
        self._corpus = corpus
        self._seen: set[bytes] = set()

    def clean(self, document: Document) -> str:
        """Clean `document.text` in place; the name of the rule that drops the document, or "" to keep it."""
        if document.rejected:
            return document.rejected
        document.text = clean_text(document.text)
        if not document.text:
            return "no_text"
        if len(document.text) < self._corpus.minimum_characters:
            return "minimum_characters"
        if self._corpus.minimum_score is not None:
            if document.score is None:
                return "no_score"
            if document.score < self._corpus.minimum_score:
                return "minimum_score"
        digest = hashlib.sha256(document.text.encode()).digest()[:16]
        if digest in self._seen:
            return "duplicate"
        self._seen.add(digest)
        return ""


def is_held_out(text: str, fraction: float) -> bool:
    """Whether a text belongs to the validation split.

    It hangs on the text alone, so the same text is on the same side in every corpus and every run.
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[-8:]) < fraction * 2**64
