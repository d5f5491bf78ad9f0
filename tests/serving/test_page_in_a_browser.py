"""A person searches on the page, in a real browser, with scripts switched off."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.browser import CHROMIUM, Browser, browsing
from tests.serving.client import Server, serving
from tests.workshop import Workshop

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
SAMPLES = Path(__file__).resolve().parent.parent.parent / "samples"
SHOTS = os.environ.get("EMBEDCLI_SCREENSHOTS")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    shop = Workshop(tmp_path_factory.mktemp("samples"), index="handbooks")
    shutil.copytree(SAMPLES, shop.docs, dirs_exist_ok=True)
    shop.ingest(max_tokens=200)
    with serving(tmp_path_factory.mktemp("server"), str(shop.index), "--files") as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as found:
        yield found


def shot(browser: Browser, name: str) -> None:
    if SHOTS:
        browser.screenshot(Path(SHOTS) / f"{name}.png")


def test_type_see_passages_and_follow_one(server: Server, browser: Browser) -> None:
    browser.do("Emulation.setScriptExecutionDisabled", value=True)
    browser.go(server.address)
    shot(browser, "empty")
    assert browser.ask("document.activeElement.name") == "q"
    browser.type('light "slow blinking"')
    browser.until("document.querySelectorAll('li').length > 0")
    shot(browser, "light")
    assert "manual.md" in browser.ask("document.querySelector('li').innerText")
    assert "blinking" in browser.ask("[...document.querySelectorAll('mark')].map(mark => mark.innerText.toLowerCase())")
    assert browser.ask("getComputedStyle(document.querySelector('h1')).fontSize") == "16.8px", "the style counts"
    browser.ask("document.querySelector('li a').click()")
    browser.until("location.pathname.startsWith('/files/') && document.contentType === 'text/plain'")
    assert browser.ask("document.body.innerText") == (SAMPLES / "manual.md").read_text()


def test_a_question_in_chinese_in_the_dark(server: Server, browser: Browser) -> None:
    browser.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.go(server.address)
    browser.type('指示灯什么时候 "绿色常亮"')
    browser.until("document.querySelectorAll('li').length > 0")
    shot(browser, "dark")
    assert browser.ask("document.querySelector('[name=q]').value") == '指示灯什么时候 "绿色常亮"'
    assert "manual-zh.md" in browser.ask("document.querySelector('li').innerText")
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 27)"


def test_a_narrow_screen_scrolls_in_one_direction_only(server: Server, browser: Browser) -> None:
    browser.do("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    browser.go(f"{server.address}/?q=battery")
    shot(browser, "narrow")
    assert browser.ask("document.documentElement.scrollWidth") <= 360
    browser.do("Emulation.clearDeviceMetricsOverride")


def test_a_link_to_a_pdf_names_the_page(server: Server, browser: Browser) -> None:
    browser.go(f"{server.address}/?q=two+columns&folder=&n=100")
    links = browser.ask("[...document.querySelectorAll('li a')].map(link => link.href)")
    assert any(".pdf#page=" in link for link in links)
