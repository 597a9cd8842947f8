"""`make acceptance PART=page`: the web page in headless Chromium, against a real server.

Needs Debian's `chromium` (or another at CHROMIUM) and `pip install playwright`; a picture is left in $PICTURES.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.serving import Server, serving

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def page(server: Server) -> Iterator[object]:
    """The page with an empty memory; what it asks for and complains about is looked at in the end."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 860})
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        # A refusal is told by Chromium itself, too.
        refused = "Failed to load resource"
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(server.address)
        page.get_by_test_id("message").wait_for()
        yield page
        elsewhere = [url for url in asked if not url.startswith((server.address, "data:", "blob:"))]
        browser.close()
    assert not elsewhere and not [said for said in complaints if not said.startswith(refused)]
    assert any("/v1/chat/completions" in url for url in asked)


def say(page: object, text: str, most: int = 24) -> None:
    """A message, and the whole answer."""
    tab = page.get_by_role("tab", name="Settings")
    if tab.get_attribute("aria-selected") != "true":
        tab.click()
    page.locator("#set-max_tokens").fill(str(most))
    page.get_by_test_id("message").fill(text)
    page.get_by_test_id("send").click()
    page.get_by_test_id("stop").wait_for(state="hidden", timeout=60_000)


def test_send_stream_and_the_picture_of_the_state(page: object) -> None:
    say(page, "Hello there")
    assert page.get_by_test_id("message-user").last.inner_text().startswith("You\nHello there")
    answer = page.get_by_test_id("message-assistant").last
    assert len(answer.inner_text().strip()) > 10 and "24 tokens" in answer.inner_text()
    say(page, "And more")
    page.get_by_role("tab", name="State").click()
    page.get_by_test_id("half-lives").locator("svg").wait_for()
    # A row for the names and one for each layer, and its numbers for those who do not see them.
    assert page.get_by_test_id("half-lives").locator("table tr").count() == 3
    assert page.get_by_test_id("changes").locator("table tr").count() == 3
    if folder := os.environ.get("PICTURES"):
        page.screenshot(path=str(Path(folder) / "page.png"))


def test_stop(page: object) -> None:
    page.get_by_role("tab", name="Settings").click()
    page.locator("#set-max_tokens").fill("16000")
    page.get_by_test_id("message").fill("Go on and on")
    page.get_by_test_id("send").click()
    while len(page.get_by_test_id("message-assistant").last.inner_text()) < 60:
        page.wait_for_timeout(50)
    page.get_by_test_id("stop").click()
    page.get_by_test_id("stop").wait_for(state="hidden", timeout=10_000)
    assert "Stopped" in page.get_by_test_id("message-assistant").last.inner_text()
    assert page.get_by_test_id("message").is_enabled()


def test_fork_retry_undo_and_what_is_kept(page: object, server: Server) -> None:
    say(page, "First")
    say(page, "Second")
    page.get_by_test_id("retry").last.click()
    page.get_by_test_id("stop").wait_for(state="hidden", timeout=60_000)
    assert "2/2" in page.get_by_test_id("message-assistant").last.inner_text()
    page.get_by_test_id("fork").first.click()
    say(page, "Another way")
    assert page.get_by_test_id("message-user").last.inner_text().startswith("You\nAnother way")
    page.get_by_role("tab", name="Branches").click()
    tree = page.get_by_test_id("branches").get_by_role("treeitem")
    assert tree.count() >= 7
    tree.filter(has_text="Second").first.click()
    page.get_by_test_id("message-user").filter(has_text="Second").wait_for()
    page.get_by_test_id("undo").click()
    assert page.get_by_test_id("message-user").filter(has_text="Second").count() == 0
    page.reload()
    page.get_by_test_id("message-user").filter(has_text="First").wait_for()
    assert server.web.get("/health").status_code == 200


def test_a_refusal_is_one_sentence_and_nothing_is_lost(page: object, server: Server) -> None:
    say(page, "Hello")
    page.locator("#set-temperature").fill("1.5")
    page.get_by_test_id("message").fill("x" * 200_000)
    page.get_by_test_id("send").click()
    alert = page.get_by_test_id("alert")
    alert.wait_for()
    assert "tokens" in alert.inner_text()
    server.is_well()
