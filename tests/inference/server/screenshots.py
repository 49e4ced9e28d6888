"""Take the pictures of docs/serving.md anew.

python -m tests.inference.server.screenshots runs/demo/model runs/demo-definitions/model runs/topics/model
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.inference.server.running import running
from tests.inference.server.test_page import CHROMIUM, Visit
from tests.launch import ROOT

IMAGES = ROOT / "docs" / "images"
TOPIC = (
    "The comet will pass within forty million miles of the Earth in March, and should be visible to the naked eye for "
    "about three weeks, low in the western sky after sunset."
)


def writing(browser, model: Path) -> None:
    """A text written on, on a desk."""
    with running(model, "name=runs/demo/model") as server:
        one = Visit(browser, server.url, viewport={"width": 1120, "height": 660}, color_scheme="light")
        one.page.wait_for_selector("#below:not([hidden])")
        one.settings(seed=3, max_tokens=160)
        one.say("It is a truth universally acknowledged, that")
        one.page.wait_for_selector(".under")
        one.page.screenshot(path=IMAGES / "serve-chat.png")


def conversation(browser, model: Path) -> None:
    """On a phone, in the dark."""
    with running(model, "name=runs/demo-definitions/model") as server:
        phone = {"viewport": {"width": 390, "height": 720}, "has_touch": True, "is_mobile": True}
        one = Visit(browser, server.url, color_scheme="dark", **phone)
        one.page.wait_for_selector("#below:not([hidden])")
        one.page.click("#view-chat")
        one.settings(temperature=0, max_tokens=40)
        for number, question in enumerate(["What is a river?", "And a stone?"], 1):
            one.say(question)
            one.page.wait_for_function(f"document.querySelectorAll('.under').length == {number}")
        one.page.evaluate("document.activeElement.blur()")
        one.page.screenshot(path=IMAGES / "serve-phone.png")


def bars(browser, model: Path) -> None:
    """A classifier."""
    with running(model, "name=runs/topics/model") as server:
        one = Visit(browser, server.url, viewport={"width": 760, "height": 860}, color_scheme="light")
        one.page.wait_for_selector("#judge:not([hidden])")
        one.page.fill("#judged-text", TOPIC)
        one.page.get_by_role("button", name="Classify").click()
        one.page.wait_for_selector(".judged")
        one.page.screenshot(path=IMAGES / "serve-classifier.png")


if __name__ == "__main__":
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for take, model in zip((writing, conversation, bars), sys.argv[1:], strict=True):
            take(browser, Path(model))
