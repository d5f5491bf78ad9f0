"""A server in a process of its own, and plain requests to it.

In: the arguments of `serve`, the fault of its engine. Out: its address, its answers.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

HERE = Path(__file__).resolve().parent.parent
KILLER = "likes"


class Server:
    """`said` are the lines on its stderr so far."""

    def __init__(self, folder: Path, fault: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        command = [sys.executable, str(HERE / "serve_driver.py"), fault, "serve", *arguments, "--port", "0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stderr=log, env={**os.environ, **environment})
        self.address = ""

    def wait_for(self, text: str, seconds: float = 180.0) -> re.Match[str]:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            said = self.log.read_text()
            if found := re.search(text, said):
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"`{text}` was not said: {self.log.read_text()}")

    def get(self, path: str, **named: Any) -> httpx.Response:
        return httpx.get(self.address + path, timeout=60, **named)

    def post(self, path: str, body: Any, **named: Any) -> httpx.Response:
        content = body if isinstance(body, bytes | Iterator) else json.dumps(body).encode()
        return httpx.post(self.address + path, content=content, timeout=60, **named)

    def embed(self, text: Any, **fields: Any) -> httpx.Response:
        return self.post("/v1/embeddings", {"model": "minilm", "input": text, **fields})

    def go(self) -> None:
        """The engine may do what it holds back."""
        (self.folder / "go").touch()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        return self.process.wait(180)


@contextmanager
def serving(
    folder: Path, *arguments: str, fault: str = "sound", wait: str = "ready: ", **environment: str
) -> Iterator[Server]:
    """Ends with the block, whatever happens."""
    server = Server(folder, fault, arguments, environment)
    try:
        server.address = server.wait_for(r"http://\S+?(?=;)")[0]
        server.wait_for(wait)
        yield server
    finally:
        server.go()
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(60)


def vectors(answer: httpx.Response) -> np.ndarray:
    """float32 [texts, dim] of an answer in floats."""
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return np.array([item["embedding"] for item in data], np.float32)


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, in OpenAI's form."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}
    found: dict[str, Any] = body["error"]
    return found
