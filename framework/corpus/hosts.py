"""Hosts of URLs, as blocklists, deduplication and the report count them."""

from urllib.parse import urlsplit


def host_of(url: str) -> str:
    """The host of a URL in lower case, without port or final dot; "" where there is none."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # crawled pages link to such things as http://[broken
        return ""
    return ascii_domain(host.rstrip("."))


def ascii_domain(domain: str) -> str:
    """A domain as the network spells it: Unicode labels in their xn-- form, where they have one."""
    try:
        return domain.lower().encode("idna").decode() if not domain.isascii() else domain.lower()
    except UnicodeError:
        return domain.lower()
