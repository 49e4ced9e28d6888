"""Take the pictures of docs/serving.md anew: a language model and a classifier of topics, by their directories.

python -m tests.inference.server.screenshots runs/demo/model runs/demo-topics/model
"""

import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.inference.server.running import running
from tests.inference.server.test_page import CHROMIUM, Visit
from tests.launch import ROOT

IMAGES = ROOT / "docs" / "images"
PHONE = {"viewport": {"width": 390, "height": 720}, "has_touch": True, "is_mobile": True}
TOPIC = (
    "The comet will pass within forty million miles of the Earth in March, and should be visible to the naked eye for "
    "about three weeks, low in the western sky after sunset."
)


def writing(browser, model: Path) -> None:
    """A text written on, on a desk; another on a phone, in the dark, while it is written."""
    with running(model, "name=runs/demo/model") as server:
        desk = Visit(browser, server.url, viewport={"width": 1120, "height": 660}, color_scheme="light")
        desk.page.wait_for_selector("#below:not([hidden])")
        desk.settings(seed=3, max_tokens=160)
        desk.say("It is a truth universally acknowledged, that")
        desk.page.wait_for_selector(".under")
        desk.page.screenshot(path=IMAGES / "serve-chat.png")
        phone = Visit(browser, server.url, color_scheme="dark", **PHONE)
        phone.page.wait_for_selector("#below:not([hidden])")
        phone.page.get_by_role("button", name="Settings").click()
        phone.settings(seed=1, max_tokens=900)
        phone.page.get_by_role("button", name="Close").click()
        phone.say("The river was high that spring, and")
        phone.page.wait_for_timeout(2500)
        expect(phone.page.locator("#send")).to_have_text("Stop")
        phone.page.screenshot(path=IMAGES / "serve-phone.png")


def bars(browser, model: Path) -> None:
    """The probabilities of a text's classes."""
    with running(model, "name=runs/demo-topics/model") as server:
        one = Visit(browser, server.url, viewport={"width": 760, "height": 780}, color_scheme="light")
        one.page.wait_for_selector("#judge:not([hidden])")
        one.page.fill("#judged-text", TOPIC)
        one.page.get_by_role("button", name="Classify").click()
        one.page.wait_for_selector(".judged")
        one.page.screenshot(path=IMAGES / "serve-classifier.png")


if __name__ == "__main__":
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        writing(browser, Path(sys.argv[1]))
        bars(browser, Path(sys.argv[2]))
