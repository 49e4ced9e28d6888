"""What is done to every text, and which split it belongs to."""

import hashlib
import re

_NEWLINES = re.compile("\r\n|[\r\u0085\u2028\u2029]")
# Control characters but tab and newline; lone surrogates, which JSON can spell and UTF-8 cannot; byte order marks.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
_CHANGED = re.compile(f"{_UNWANTED.pattern}|[\u2028\u2029]")  # the other line ends are control characters


def clean_text(text: str) -> str:
    """The text as it goes into a shard.

    Every line end becomes "\\n"; control characters, lone surrogates and byte order marks go; white
    space at both ends goes. U+2581 becomes "_": SentencePiece writes the space with that character, so
    it is the one that could not survive the round trip. Nothing else is changed.
    """
    if _CHANGED.search(text):  # in most texts there is nothing
        text = _UNWANTED.sub("", _NEWLINES.sub("\n", text))
    return text.replace("\u2581", "_").strip()


def is_held_out(text: str, fraction: float) -> bool:
    """Whether a text belongs to the validation split.

    It hangs on the text alone, so the same text is on the same side in every corpus and every run.
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[-8:]) < fraction * 2**64
