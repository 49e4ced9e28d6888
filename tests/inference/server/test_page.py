"""The page at /, in a real browser."""

import re
import shutil
from pathlib import Path

import pytest

from tests.inference.server.running import running

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page, and what it asked for and complained of."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.asked, self.wrong = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.set_default_timeout(30_000)
        self.page.goto(url + "/")

    def settings(self, **fields):
        for name, value in fields.items():
            self.page.locator(f"#settings [name={name}]").fill(str(value))

    def say(self, text):
        self.page.fill("#input", text)
        self.page.click("#send")


@pytest.fixture
def visit(browser, server):
    visits = []

    def open_page(url=server.url, **options):
        visits.append(Visit(browser, url, **options))
        return visits[-1]

    yield open_page
    for one in visits:
        one.context.close()


def test_a_conversation(visit, server):
    one = visit()
    page = one.page
    page.wait_for_selector("#below:not([hidden])")
    page.click("#view-chat")
    one.settings(temperature=0, max_tokens=12, system="the soil")
    words = "the <img src=x onerror=alert(1)> river"
    one.say(words)
    page.wait_for_selector(".under")
    assert page.locator(".user .said").inner_text() == words
    assert page.locator("#log img").count() == 0
    messages = [{"role": "system", "content": "the soil"}, {"role": "user", "content": words}]
    asked = {"messages": messages, "temperature": 0, "max_tokens": 12, "top_p": 0.95}
    with server.client() as client:
        first = client.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"]
        assert page.locator(".model .said").text_content() == first
        one.say("stone")
        page.wait_for_selector(".model:nth-of-type(4) .under")
        asked["messages"] += [{"role": "assistant", "content": first}, {"role": "user", "content": "stone"}]
        second = client.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"]
    assert page.locator(".model .said").last.text_content() == second
    assert re.match(r"12 tokens, \d+ a second · cut at its length", page.locator(".under span").last.inner_text())
    assert page.locator("#status").text_content() == "The answer is complete."
    page.get_by_role("button", name="New").click()
    assert page.locator(".turn").count() == 0
    assert {url.removeprefix(server.url).partition("?")[0] for url in one.asked if not url.startswith("data:")} == {
        "/",
        "/v1/models",
        "/v1/chat/completions",
    }
    assert not one.wrong


def test_a_text_is_written_on(visit, server):
    one = visit()
    page = one.page
    page.wait_for_selector("#below:not([hidden])")
    assert page.locator("#view-text").get_attribute("aria-pressed") == "true"  # as the model has no template of its own
    one.settings(temperature=0, max_tokens=5)
    page.click("#input")
    page.keyboard.type("the river")
    page.keyboard.press("Enter")
    page.wait_for_selector(".under")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".given")).not_to_have_text("the river")
    page.wait_for_selector(".under")
    with server.client() as client:
        asked = {"prompt": "the river", "temperature": 0, "max_tokens": 5, "top_p": 0.95}
        first = client.post("/v1/completions", json=asked).json()["choices"][0]["text"]
        asked["prompt"] += first
        second = client.post("/v1/completions", json=asked).json()["choices"][0]["text"]
    assert page.locator(".text .said").text_content() == "the river" + first + second
    assert not one.wrong


def test_stop_ends_the_answer_and_frees_its_row(visit, server):
    one = visit()
    page = one.page
    page.wait_for_selector("#below:not([hidden])")
    one.settings(temperature=0, max_tokens=4000)
    one.say("the river")
    expect(page.locator(".said")).to_have_text(re.compile(".{30}", re.S))
    assert page.locator("#send").inner_text() == "Stop"
    page.keyboard.press("Escape")
    page.wait_for_selector(".under")
    assert "stopped by you" in page.locator(".under span").inner_text()
    assert page.locator("#send").inner_text() == "Write"
    page.wait_for_timeout(300)
    assert server.metric("loam_running") == 0


def test_what_the_server_refuses_is_shown(visit):
    one = visit()
    one.page.wait_for_selector("#below:not([hidden])")
    one.settings(max_tokens=9999)
    one.say("the river")
    assert "max_tokens: is 9999" in one.page.get_by_role("alert").inner_text()


def test_on_a_phone_nothing_is_wider_than_the_screen(visit):
    one = visit(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True, color_scheme="dark")
    page = one.page
    page.wait_for_selector("#below:not([hidden])")
    assert not page.locator("#settings").is_visible()
    page.get_by_role("button", name="Settings").click()
    assert page.locator("#settings").is_visible()
    one.settings(temperature=0, max_tokens=60)
    page.get_by_role("button", name="Close").click()
    one.say("the river " * 30 + "x" * 200)
    page.wait_for_selector(".under")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    box = page.locator("#send").bounding_box()
    assert box["x"] + box["width"] <= 360
    assert box["y"] + box["height"] <= 640


def test_every_control_has_a_name(visit):
    page = visit().page
    page.wait_for_selector("#below:not([hidden])")
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, textarea')].filter((control) => control.checkVisibility()
           && !control.textContent.trim() && ![...(control.labels ?? [])].some((label) => label.textContent.trim())
        ).map((control) => control.outerHTML)"""
    )
    assert unnamed == []
    for name in ("Temperature", "Top p", "Seed", "Maximum tokens", "Your text"):
        assert page.get_by_label(name).is_visible()


def test_the_page_may_load_nothing_from_elsewhere(visit, server):
    one = visit()
    with server.client() as client:
        policy = client.get("/").headers["Content-Security-Policy"]
        html = client.get("/").text
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=.(https?:)?//", html)
    one.page.wait_for_selector("#below:not([hidden])")
    blocked = "fetch('http://127.0.0.1:9/').then(() => 'let through', (error) => 'blocked')"
    assert one.page.evaluate(blocked) == "blocked"
    assert any("Content Security Policy" in line for line in one.wrong)


def test_a_classifier_shows_bars(visit, classifier):
    from framework.inference.classification import classify

    with running(classifier, "name=topics", key="sesame") as server:
        one = visit(server.url)
        page = one.page
        page.wait_for_selector("#lock:not([hidden])")
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#lock-wrong")).to_have_text("That key is not the server's.")
        page.fill("#key", "sesame")
        page.keyboard.press("Enter")
        page.wait_for_selector("#judge:not([hidden])")
        page.fill("#judged-text", "the tree of the river")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".judged")
        names = page.locator(".judged th").all_inner_texts()
        told = page.locator(".judged td:last-child").all_inner_texts()
        widths = page.locator(".track div").evaluate_all("bars => bars.map((bar) => parseFloat(bar.style.width))")
        row = classify(classifier, ["the tree of the river"])[0]
        order = (-row).argsort()
        assert names == [["soil", "stone, wet", "tree"][place] for place in order]
        assert told == [f"{100 * row[place]:.1f} %" for place in order]
        assert widths == pytest.approx([100 * float(row[place]) for place in order], abs=0.01)


def test_an_encoder_compares_lines(visit, encoder):
    import httpx
    import numpy as np

    lines = ["the tree of the river", "the river", "soil and stone", "the tree of the river"]
    with running(encoder, "name=encoder") as server:
        one = visit(server.url)
        page = one.page
        page.wait_for_selector("#judge:not([hidden])")
        page.fill("#judged-text", lines[0])
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_role("alert")).to_have_text("Give at least two lines.")
        page.fill("#judged-text", "\n\n".join(lines) + "\n")
        page.get_by_role("button", name="Compare").click()
        page.wait_for_selector(".judged")
        expect(page.get_by_role("alert")).to_have_count(0)
        answer = httpx.post(f"{server.url}/v1/embeddings", json={"input": lines}).json()
        told = dict(
            zip(
                page.locator(".judged th").all_inner_texts(),
                page.locator(".judged td:last-child").all_inner_texts(),
                strict=True,
            )
        )
        assert one.wrong == []
    vectors = np.array([row["embedding"] for row in answer["data"]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = {line: f"{value:.3f}" for line, value in zip(lines[1:], vectors[1:] @ vectors[0], strict=True)}
    assert told == likeness
    assert next(iter(told)) == lines[3]
    assert told[lines[3]] == "1.000"


def test_the_screenshots_are_small():
    images = Path(__file__).resolve().parents[3] / "docs" / "images"
    shown = [images / f"serve-{name}.png" for name in ("chat", "phone", "classifier")]
    assert all(0 < image.stat().st_size < 150_000 for image in shown)
