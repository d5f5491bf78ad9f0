"""Programs that are held at a named step until their test has done what it is about, however slow either of them is.

In: the name of a step. Out: for the test, the environment of the program, a wait until it is there, and its release;
for the program, a wait where it was told to.
Not here: the steps: `loading`, `reading` and `list N` of quick_embedcli.py, `list N` of crash_driver.py.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

LOOK_S = 0.01
GIVEN_UP_S = 600.0
"""A program that nobody lets go ends: a test that failed meanwhile would wait for it for ever."""

GIVEN_UP = 75

T = TypeVar("T")


class Held:
    """A program that stops at one step; `folder` is empty, and of no use to the program itself."""

    def __init__(self, folder: Path, step: str) -> None:
        self._folder = folder
        self.environment = {"HOLD_AT": step, "HOLD_IN": str(folder)}
        folder.mkdir()

    @property
    def is_there(self) -> bool:
        return (self._folder / "held").exists()

    def wait(self, process: subprocess.Popen[Any]) -> None:
        """Until the program is there. It must not have ended before."""
        while not self.is_there:
            assert process.poll() is None, "it ended before it came to the step"
            time.sleep(LOOK_S)

    def go(self) -> None:
        (self._folder / "go").touch()


def hold(step: str) -> None:
    """In the program: wait here, if the test holds this step."""
    if os.environ.get("HOLD_AT") != step:
        return
    folder = Path(os.environ["HOLD_IN"])
    (folder / "held").touch()
    given_up_s = time.monotonic() + GIVEN_UP_S
    while not (folder / "go").exists():
        if time.monotonic() > given_up_s:
            os._exit(GIVEN_UP)
        time.sleep(LOOK_S)


def after(step: str, answer: Callable[[], T]) -> Future[T]:
    """The answer of an engine, at once or, where the test holds this step, later; meanwhile the program goes on."""
    if os.environ.get("HOLD_AT") == step:
        return later(lambda: (hold(step), answer())[1])
    future: Future[T] = Future()
    future.set_result(answer())
    return future


def later(answer: Callable[[], T]) -> Future[T]:
    """The answer of an engine, from a thread of its own; meanwhile the program goes on, and it may end."""
    future: Future[T] = Future()
    threading.Thread(target=lambda: future.set_result(answer()), daemon=True).start()
    return future
