"""Bytes in, text out as early as it is certain: whole characters, and nothing that may yet be a stop text."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the bytes of successive tokens into text that ends before the stop text that is whole first.

    Of several that are whole with the same character, the longest counts: what the tokens' borders are does not matter.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = [text for text in stop if text]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False  # a stop text was met; nothing more will come

    def push(self, data: bytes) -> str:
        """The text that is certain after these bytes, which may be none."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """What was held back, once no more bytes come; an unfinished character becomes U+FFFD."""
        text = self._release(self._decoder.decode(b"", final=True))
        if self.stopped:
            return text
        text, self._held = text + self._held, ""
        return text

    def _release(self, new: str) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)[1]]
        certain = len(text) - self._possible_stop(text)
        self._held = text[certain:]
        return text[:certain]

    def _possible_stop(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop text."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
