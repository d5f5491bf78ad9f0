"""A headless Chromium, driven by its own protocol: what a person does with a page.

In: addresses, keys. Out: what the page then is. Not here: what it should be (test_page_in_a_browser.py).
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
         "--no-first-run", "--disable-background-networking", "--window-size=900,1000")  # fmt: skip


class Refused(Exception):
    """The browser does not do what it was told."""


class Browser:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.do("Page.enable")

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=60))
            if message.get("id") == number:
                if "error" in message:
                    raise Refused(str(message["error"]))
                found: dict[str, Any] = message["result"]
                return found

    def ask(self, script: str) -> Any:
        found = self.do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return found["result"].get("value")

    def _holds(self, script: str) -> bool:
        try:
            return bool(self.ask(script))
        except Refused:  # one page goes and another one comes
            return False

    def go(self, address: str) -> None:
        before = self.ask("performance.timeOrigin")
        self.do("Page.navigate", url=address)
        self.until(f"performance.timeOrigin !== {before}")

    def until(self, script: str, seconds: float = 60.0) -> None:
        """Until this holds of a page that has come whole."""
        end = time.monotonic() + seconds
        while not self._holds(f"document.readyState === 'complete' && ({script})"):
            assert time.monotonic() < end, f"{script}: {self.ask('document.body.innerText')}"
            time.sleep(0.05)

    def type(self, text: str) -> None:
        """Into the field that has the focus by itself, and Enter."""
        self.until("document.activeElement.tagName === 'INPUT'")
        self.do("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.do("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    assert CHROMIUM is not None
    log = folder / "chromium.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"], stderr=out, stdout=out
        )
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"ws://([^/\s]+)/", log.read_text(errors="replace"))):
            assert process.poll() is None and time.monotonic() < end, log.read_text(errors="replace")
            time.sleep(0.05)
        (tab,) = (one for one in httpx.get(f"http://{found[1]}/json/list").json() if one["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=None) as connection:
            yield Browser(connection)
    finally:
        process.kill()
        process.wait(60)
