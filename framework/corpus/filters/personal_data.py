"""E-mail and IP addresses, telephone and credit card numbers give way to fixed placeholders."""

import ipaddress
from collections.abc import Callable
from typing import Any

import regex
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.typeshelper import StatHints

from framework.corpus.filters.settings import PersonalDataSettings

PLACEHOLDERS = {
    "emails": "<EMAIL>",
    "ip_addresses": "<IP_ADDRESS>",
    "credit_cards": "<CREDIT_CARD>",
    "phones": "<PHONE_NUMBER>",
}

# "++" and the bounds on repetition keep the time linear on long runs that are no address.
_EMAIL = regex.compile(
    r"(?<![\w.+%'-])[\w.+%'-]{1,64}+@(?:[\p{L}\p{N}](?:[\p{L}\p{N}-]{0,61}[\p{L}\p{N}])?\.){1,8}\p{L}{2,63}(?![\w@])"
)
_IPV4 = regex.compile(  # but no section number, at the start of its heading ("6.1.2.1. Title") or named as one
    r"(?m)(?<![\w.])(?<!\b(?:section|chapter|version)\s)(?!^(?:\d{1,3}\.){4}\s)(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)",
    regex.IGNORECASE,
)
_IPV6 = regex.compile(
    r"(?<![\w:.])[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:]{2,36}+(?:(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])", regex.ASCII
)
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # the only part of IPv6 that is given out: RFC 4291, section 2.4
_CARD = regex.compile(  # in fours, as American Express and Diners Club group, or without a gap
    r"(?<![\w.]|\d-)(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{4,5}|\d{12,19})(?!\w|[.-]\d)",
    regex.ASCII,
)
# First digits and lengths of the card networks (ISO/IEC 7812 issuer ranges: American Express, Diners Club,
# JCB, Visa, Mastercard, Discover, Maestro, UnionPay). One digit string in ten has a valid checksum by chance.
_ISSUER = regex.compile(
    r"3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|4\d{12}(?:\d{3}){0,2}"
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12,15}|(?:50|5[6-8]|6[0-9])\d{10,17}"
)
_ENOUGH_DIGITS = regex.compile(r"\d(?:\D{0,3}\d){6}")  # no telephone number is shorter or has wider gaps


def mask_emails(text: str) -> tuple[str, int]:
    """A text with its e-mail addresses masked, and how many they were."""
    return _EMAIL.subn(PLACEHOLDERS["emails"], text) if "@" in text else (text, 0)


def mask_ip_addresses(text: str) -> tuple[str, int]:
    """A text with its public IPv4 and IPv6 addresses masked, and how many they were.

    Private, loopback, documentation and other special ranges identify nobody and stay.
    """
    text, version_4 = _mask_where(_IPV4, _is_public, PLACEHOLDERS["ip_addresses"], text)
    text, version_6 = _mask_where(_IPV6, _is_public, PLACEHOLDERS["ip_addresses"], text)
    return text, version_4 + version_6


def mask_credit_cards(text: str) -> tuple[str, int]:
    """A text with its credit card numbers masked (a known issuer and a valid Luhn checksum), and their count."""
    return _mask_where(_CARD, _is_card, PLACEHOLDERS["credit_cards"], text)


def mask_phones(text: str, regions: list[str]) -> tuple[str, int]:
    """A text with its valid telephone numbers masked, by Google's libphonenumber, and how many they were.

    Args:
        text: it is searched line by line; a number does not cross a line.
        regions: countries (ISO 3166) whose numbers may lack their "+" and country code.
    """
    from phonenumbers import Leniency, PhoneNumberMatcher

    lines, count = text.split("\n"), 0
    for index, line in enumerate(lines):
        if not _ENOUGH_DIGITS.search(line):
            continue
        for region in regions or ["ZZ"]:  # libphonenumber's "no country": only with "+"
            found = list(PhoneNumberMatcher(line, region, Leniency.STRICT_GROUPING))
            for match in reversed(found):
                line = line[: match.start] + PLACEHOLDERS["phones"] + line[match.end :]
            count += len(found)
        lines[index] = line
    return "\n".join(lines), count


class MaskPersonalData(PipelineStep):
    """Masks personal data in every document and counts it by kind in its statistics.

    Memory: one document.
    """

    type = "formatter"
    name = "personal_data"

    def __init__(self, settings: PersonalDataSettings) -> None:
        super().__init__()
        self._settings = settings

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield every document, masked."""
        for document in data:
            self.stat_update(StatHints.total)
            with self.track_time():
                for kind, masked in self._mask(document).items():
                    self.stat_update(f"masked_{kind}", value=masked)
            yield document

    def _mask(self, document: Any) -> dict[str, int]:
        """Mask `document.text`; how often each kind that was found is in it.

        Cards go before telephone numbers: parts of a card number can pass for one.
        """
        maskers: dict[str, Callable[[str], tuple[str, int]]] = {
            "emails": mask_emails,
            "ip_addresses": mask_ip_addresses,
            "credit_cards": mask_credit_cards,
            "phones": lambda text: mask_phones(text, self._settings.phone_regions),
        }
        counts = {}
        for kind, mask in maskers.items():
            if getattr(self._settings, kind):
                document.text, counts[kind] = mask(document.text)
        return {kind: count for kind, count in counts.items() if count}


def _mask_where(pattern: Any, accept: Callable[[str], bool], placeholder: str, text: str) -> tuple[str, int]:
    count = 0

    def replace(match: Any) -> str:
        nonlocal count
        if not accept(match[0]):
            return match[0]
        count += 1
        return placeholder

    return pattern.sub(replace, text), count


def _is_public(candidate: str) -> bool:
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return False
    return address.is_global and (address.version == 4 or address in _GLOBAL_UNICAST)


def _is_card(candidate: str) -> bool:
    digits = candidate.replace(" ", "").replace("-", "")
    if not _ISSUER.fullmatch(digits):
        return False
    total = 0  # Luhn: ISO/IEC 7812-1, annex B
    for position, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * 2 if position % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0
