import pytest
from datatrove.data import Document

from framework.corpus.filters.personal_data import (
    MaskPersonalData,
    mask_credit_cards,
    mask_emails,
    mask_ip_addresses,
    mask_phones,
)
from framework.corpus.filters.settings import PersonalDataSettings


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to jane.doe+news@mail.example.co.uk.", "write to <EMAIL>."),
        ("<bob@example.org>, o'neill@example.org", "<<EMAIL>>, <EMAIL>"),
        ("jürgen@münchen.example", "<EMAIL>"),
        ("no@address, @handle, a@b.c, 3@4.5, git@ host", "no@address, @handle, a@b.c, 3@4.5, git@ host"),
    ],
)
def test_emails(text: str, masked: str) -> None:
    assert mask_emails(text) == (masked, masked.count("<EMAIL>"))


@pytest.mark.parametrize(
    "public", ["8.8.8.8", "151.101.2.132", "2001:4860:4860::8888", "2a00:1450:4001:80b::200e", "2606:4700:4700::1111"]
)
def test_public_addresses_are_masked(public: str) -> None:
    assert mask_ip_addresses(f"from {public}, port 80") == ("from <IP_ADDRESS>, port 80", 1)


@pytest.mark.parametrize(
    "other",
    [  # RFC 1918, loopback, documentation (RFC 5737 and 3849), link-local, unspecified
        *("10.0.0.1", "192.168.1.1", "127.0.0.1", "203.0.113.7", "2001:db8::1", "fe80::1", "::1", "::"),
        # and what only looks alike
        *("256.1.1.1", "1.2.3.4.5", "std::vector", "a::b", "bad::cafe", "12:30:45", "08:00:2b:01:02:03", "8.8.8"),
    ],
)
def test_other_addresses_stay(other: str) -> None:
    assert mask_ip_addresses(f"at {other} then") == (f"at {other} then", 0)


def test_section_numbers_are_no_addresses() -> None:
    text = "6.1.2.1.\xa0A heading\n12.1.1.1. Another\nsee Section 6.1.2.1 of version 1.1.1.1\n"
    assert mask_ip_addresses(text) == (text, 0)
    log = "66.249.65.107 - - [08/Oct]\nfrom 66.249.65.107. Then"
    assert mask_ip_addresses(log) == (log.replace("66.249.65.107", "<IP_ADDRESS>"), 2)


# Numbers that card networks and payment processors publish for tests.
CARDS = ["4111111111111111", "4012888888881881", "4222222222222", "5555555555554444", "2223003122003222"]
CARDS += ["378282246310005", "371449635398431", "6011111111111117", "3530111333300000", "30569309025904"]


@pytest.mark.parametrize("card", CARDS)
def test_credit_cards(card: str) -> None:
    assert mask_credit_cards(f"pay {card} by 12/25") == ("pay <CREDIT_CARD> by 12/25", 1)
    for digit in "0123456789":  # the checksum finds every single wrong digit
        if digit != card[-1]:
            assert mask_credit_cards(f"pay {card[:-1]}{digit} now")[1] == 0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4111 1111 1111 1111 12/25", 1),
        ("4111-1111-1111-1111 5555-5555-5555-4444", 2),
        ("3782 822463 10005", 1),
        ("4111 1111-1111 1111", 0),
        ("0.4111111111111111", 0),
        ("41111111111111110000000", 0),
        ("a4111111111111111", 0),
        ("1111111111111117", 0),  # a valid checksum of no network
    ],
)
def test_grouping_of_credit_cards(text: str, count: int) -> None:
    assert mask_credit_cards(text)[1] == count


def test_phones() -> None:
    text = (
        "Call (212) 736-5000 or +44 20 7219 4272.\nISBN 978-0-306-40615-7, 2020-10-12 10:20:30, 1999-2000, 3.14159265"
    )
    masked = text.replace("(212) 736-5000", "<PHONE_NUMBER>").replace("+44 20 7219 4272", "<PHONE_NUMBER>")
    assert mask_phones(text, ["US"]) == (masked, 2)
    assert mask_phones(text, [])[1] == 1
    assert mask_phones("020 7219 4272 and (212) 736-5000", ["GB", "US"]) == ("<PHONE_NUMBER> and <PHONE_NUMBER>", 2)


def test_the_step_masks_what_is_asked_for_and_counts_it() -> None:
    text = "a@example.org 8.8.8.8 4111111111111111 +1 212 736 5000 b@example.org"
    step = MaskPersonalData(PersonalDataSettings(phones=False))
    [document] = step.run([Document(text, "1")])
    assert document.text == "<EMAIL> <IP_ADDRESS> <CREDIT_CARD> +1 212 736 5000 <EMAIL>"
    stats = step.stats.to_dict()["stats"]
    assert stats["masked_emails"]["total"] == 2
    assert (stats["masked_ip_addresses"], stats["masked_credit_cards"]) == (1, 1)
    assert "masked_phones" not in stats
    [again] = MaskPersonalData(PersonalDataSettings()).run([document])
    assert again.text == "<EMAIL> <IP_ADDRESS> <CREDIT_CARD> <PHONE_NUMBER> <EMAIL>"


@pytest.mark.parametrize("run", ["a", "a.", "a@", "x@a.", "1 ", "1-", "1:", "1.", "4111 "])
def test_long_runs_end(run: str) -> None:
    settings = PersonalDataSettings()
    [document] = MaskPersonalData(settings).run([Document(run * 50_000, "1")])
    assert len(document.text) > 40_000
