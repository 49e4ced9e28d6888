"""Pages of blocked domains."""

from functools import cache
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from framework.corpus.filters.sample import DroppedSample
from framework.corpus.filters.settings import BlocklistSettings
from framework.corpus.hosts import ascii_domain, host_of
from framework.errors import UserError


class BlocklistFilter(BaseFilter):
    """Drops documents whose `url` is on a listed domain or on a subdomain of one.

    datatrove's URLFilter brings lists of its own and fetches the public suffix list; here the file that the
    user names decides alone. A document without a URL stays.

    Memory: the listed names, about 100 bytes each, once in each process.

    Raises:
        UserError: the file is missing, or a line of it is no domain.
    """

    name = "blocklist"

    def __init__(self, settings: BlocklistSettings, sample: DroppedSample | None = None) -> None:
        super().__init__(sample)
        self._path = settings.path
        read_domains(self._path)  # a mistake shows before the first document

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether the document stays, else `blocked_domain`."""
        host = host_of(doc.metadata.get("url") or "")
        blocked = read_domains(self._path)
        labels = host.split(".")
        suffixes = (".".join(labels[start:]) for start in range(len(labels)))
        return (False, "blocked_domain") if any(suffix in blocked for suffix in suffixes) else True


@cache
def read_domains(path: str) -> frozenset[str]:
    """The domains of a blocklist file.

    Raises:
        UserError: the file cannot be read, or a line is no domain.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"blocklist.path: {path}: {error}; give a UTF-8 file with one domain a line") from error
    domains = set()
    for number, line in enumerate(lines, 1):
        domain = line.partition("#")[0].strip().rstrip(".")
        if not domain:
            continue
        if "/" in domain or ":" in domain or len(domain.split()) != 1:
            raise UserError(f"blocklist.path: {path}, line {number}: {domain!r} is no domain; write it as example.org")
        domains.add(ascii_domain(domain))
    return frozenset(domains)
