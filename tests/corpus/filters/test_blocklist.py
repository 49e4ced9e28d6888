from pathlib import Path

import pytest
from datatrove.data import Document

from framework.corpus.filters.blocklist import BlocklistFilter
from framework.corpus.filters.settings import BlocklistSettings
from framework.errors import UserError


@pytest.fixture
def step(tmp_path: Path) -> BlocklistFilter:
    path = tmp_path / "blocked.txt"
    path.write_text("# domains\nSpam.example\nads.shop.example   # a subdomain alone\n\nbücher.example.\n")
    return BlocklistFilter(BlocklistSettings(str(path)))


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://spam.example/page", False),
        ("https://www.SPAM.example:8080/?q=1", False),
        ("https://user@a.b.spam.example.", False),
        ("http://notspam.example", True),
        ("http://spam.example.org", True),
        ("http://shop.example/ads.shop.example", True),
        ("http://x.ads.shop.example", False),
        ("http://xn--bcher-kva.example/", False),
        ("http://www.bücher.example/", False),
        ("http://[broken", True),
        ("", True),
        (None, True),
    ],
)
def test_subdomains_match_and_other_names_do_not(step: BlocklistFilter, url: str | None, kept: bool) -> None:
    assert step.filter(Document("text", "1", metadata={"url": url})) == (True if kept else (False, "blocked_domain"))


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"blocklist\.path: .*none\.txt.*one domain a line"):
        BlocklistFilter(BlocklistSettings(str(tmp_path / "none.txt")))
    path = tmp_path / "urls.txt"
    path.write_text("a.example\nhttp://b.example/\n")
    with pytest.raises(UserError, match=r"urls\.txt, line 2: 'http://b\.example/' is no domain"):
        BlocklistFilter(BlocklistSettings(str(path)))
