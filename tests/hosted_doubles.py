"""Engines for the host's process that need no SGLang: they start at once and fail as their ids or names say.

In: the arguments of a job (none is looked at). Out: what an engine host serves (engine_host.Hosted), vectors as
those of tests.fake_engines. Not here: how SGLang itself fails (fake_scheduler.py).
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fake_engines import vector

KILL_ID, NO_MEMORY_ID, HANG_ID, BLOCK_ID, REFUSE_ID, LAST_WORDS_ID, ASSERT_ID, KILLED_ID = range(201, 209)
ASSERT = """Traceback (most recent call last):
  File "scheduler.py", line 1, in event_loop
RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx( handle, opa, opb)
[2026-11-26 05:00:10] Received sigquit from a child process."""
KILLED = "[2026-11-26 05:00:10] Subprocess scheduler_0 (pid=5868) crashed with exit code -9. Triggering SIGQUIT"
"""What a device assert and a killed scheduler said on an H100."""

OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


OUR_MODELS = "embedcli.engines.sglang.models"


class HostedDouble:
    """Answers at once."""

    pool_tokens = 50_000

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._call: Callable[[], None] = lambda: None

    def call_on_death(self, call: Callable[[], None]) -> None:
        self._call = call

    async def embed(self, rows: list[list[int]], dim: int) -> np.ndarray:
        await self.misbehave({token for row in rows for token in row})
        return np.stack([vector(np.array(row), dim) for row in rows])

    async def misbehave(self, ids: set[int]) -> None:
        if KILL_ID in ids:
            os.kill(os.getpid(), signal.SIGKILL)
        for token, words in ((NO_MEMORY_ID, OUT_OF_MEMORY), (ASSERT_ID, ASSERT), (KILLED_ID, KILLED)):
            if token in ids:
                print(words, file=sys.stderr)
                self._call()
        if LAST_WORDS_ID in ids:
            self._call()  # dead, but this list was answered in time
        if ids & {HANG_ID, NO_MEMORY_ID, ASSERT_ID, KILLED_ID}:
            await asyncio.Event().wait()
        if BLOCK_ID in ids:
            time.sleep(600)  # noqa: ASYNC251 - the loop itself hangs
        if REFUSE_ID in ids:
            raise ValueError("a batch that is refused")

    def facts(self) -> dict[str, int]:
        return {"pool_tokens": self.pool_tokens, "page_tokens": 1, "host_pid": os.getpid()}


class SoundDouble(HostedDouble):
    """To which every id is one like the others."""

    async def misbehave(self, ids: set[int]) -> None:
        """Never."""


class ChattyDouble(HostedDouble):
    """Its start complained of what did it no harm."""

    def __init__(self) -> None:
        super().__init__()
        print("ImportError: no module named that\nCUDA out of memory, trying another way", file=sys.stderr)


def open_double(_: dict[str, Any]) -> HostedDouble:
    return HostedDouble()


def open_chatty_double(_: dict[str, Any]) -> HostedDouble:
    return ChattyDouble()


def open_sound_double(_: dict[str, Any]) -> HostedDouble:
    return SoundDouble()


def open_double_with_child(_: dict[str, Any]) -> HostedDouble:
    """A child as SGLang's while it loads: it does not notice that its parent is gone."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return HostedDouble()


def open_double_that_loads(arguments: dict[str, Any]) -> HostedDouble:
    """Deep in a library, with a child of its own."""
    open_double_with_child(arguments)
    print("loading", file=sys.stderr, flush=True)
    time.sleep(600)
    raise AssertionError


def open_double_that_raises(_: dict[str, Any]) -> HostedDouble:
    raise RuntimeError("no weights here")


def open_double_without_memory(_: dict[str, Any]) -> HostedDouble:
    raise RuntimeError(OUT_OF_MEMORY)


def open_double_whose_scheduler_is_killed(_: dict[str, Any]) -> HostedDouble:
    raise RuntimeError("Rank 0 scheduler died during initialization (exit code: -9).")


def open_double_that_refuses_our_forward(_: dict[str, Any]) -> HostedDouble:
    if OUR_MODELS in os.environ.get("SGLANG_EXTERNAL_MODEL_PACKAGE", ""):
        raise ValueError("our forward pass needs: heads of 128")
    return HostedDouble()


def open_double_that_wants_our_forward(_: dict[str, Any]) -> HostedDouble:
    if os.environ.get("SGLANG_EXTERNAL_MODEL_PACKAGE") != OUR_MODELS:
        raise ValueError("our forward pass was not asked for")
    return HostedDouble()


def open_double_without_flash(arguments: dict[str, Any]) -> HostedDouble:
    if arguments["attention_backend"] == "fa3":
        raise RuntimeError("no kernel image is available for execution on the device")
    return HostedDouble()


def open_double_that_crashes_with_flash(arguments: dict[str, Any]) -> HostedDouble:
    """As a library that is loaded and not made for the card: no traceback but faulthandler's."""
    if arguments["attention_backend"] == "fa3":
        faulthandler.enable()
        os.kill(os.getpid(), signal.SIGSEGV)
    return HostedDouble()


def open_double_short_of_memory(arguments: dict[str, Any]) -> HostedDouble:
    if arguments["max_prefill_tokens"] > 10_000:
        raise RuntimeError(OUT_OF_MEMORY)
    return HostedDouble()


def open_double_with_small_pool(_: dict[str, Any]) -> HostedDouble:
    double = HostedDouble()
    double.pool_tokens = 32_000
    return double


def open_double_that_is_killed(_: dict[str, Any]) -> HostedDouble:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
