"""What documents are like as a whole: counts that are merged over tasks, in bounded memory."""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from framework.corpus.cleaning import clean_text
from framework.corpus.hosts import host_of
from framework.corpus.report.frequent import FrequentItems

# Where the bins of lengths begin, in characters; the last one has no end.
LENGTHS = (0, *(step * 10**power for power in range(9) for step in (1, 2, 5)), 10**9)
HOSTS = 1000  # that are counted at a time, in each task and over all
_URL, _HOST = 4096, 253  # characters that are looked at, and that a host can have (RFC 1035, section 2.3.4)


@dataclass
class DocumentStatistics:
    """Counts over documents; those of two sets of documents can be added.

    Attributes:
        documents: how many there are.
        characters: of their text, in Unicode code points.
        bytes: of their text in UTF-8; a lone surrogate, which UTF-8 cannot say, counts as three.
        lengths: documents by the start of the bin of `LENGTHS` that their characters fall into.
        languages: documents by the language that a filter has found in them; others are not counted.
        hosts: of the URLs, where documents have one.

    Memory: `HOSTS` names, and a number for each bin and language.
    """

    documents: int = 0
    characters: int = 0
    bytes: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    hosts: FrequentItems = field(default_factory=lambda: FrequentItems(HOSTS))

    def add(self, text: str, metadata: dict[str, Any]) -> None:
        """Count one more document; `url` and `language` of its metadata are looked at, if it has them."""
        self.documents += 1
        self.characters += len(text)
        self.bytes += len(text.encode(errors="surrogatepass"))
        self.lengths[LENGTHS[bisect_right(LENGTHS, len(text)) - 1]] += 1
        if language := metadata.get("language"):
            self.languages[language] += 1
        host = host_of(clean_text((metadata.get("url") or "")[:_URL]))
        if 0 < len(host) <= _HOST:
            self.hosts.add(host)

    def merge(self, other: "DocumentStatistics") -> None:
        """Add the counts of other documents."""
        self.documents += other.documents
        self.characters += other.characters
        self.bytes += other.bytes
        self.lengths.update(other.lengths)
        self.languages.update(other.languages)
        self.hosts.merge(other.hosts)

    def as_json(self) -> dict[str, Any]:
        """Everything, for `from_json`; the same content gives the same text."""
        return {
            "documents": self.documents,
            "characters": self.characters,
            "bytes": self.bytes,
            "lengths": {str(start): self.lengths[start] for start in sorted(self.lengths)},
            "languages": dict(sorted(self.languages.items())),
            "hosts": self.hosts.as_json(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "DocumentStatistics":
        """What `as_json` gave."""
        return cls(
            value["documents"],
            value["characters"],
            value["bytes"],
            Counter({int(start): count for start, count in value["lengths"].items()}),
            Counter(value["languages"]),
            FrequentItems.from_json(value["hosts"]),
        )
