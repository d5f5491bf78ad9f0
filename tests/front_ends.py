"""Engines over SGLang's own front-end for tests: its host, sockets, handlers and watchers, a scheduler of ours.

In: the name of an opener of fake_scheduler.py. Out: a started engine, or the error of its start; what it leaves behind.
A start takes half a minute of a core: SGLang is imported twice.
Not here: any expectation.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from embedcli.engines.nvml import Card
from embedcli.engines.sglang.engine import SGLangEngine, start_engine
from embedcli.engines.sglang.guard import SHARED_MEMORY
from embedcli.engines.sglang.settings import GIB, SGLangSettings
from embedcli.engines.sglang.wire import INSTANCE
from embedcli.models.folder import Model

CARD = Card(0, "GPU-1", "NVIDIA H100", (9, 0), 80 * GIB, 79 * GIB, "580.65", (13, 0))
DIM = 16
START_S = 300.0
ANSWER_S = 60.0
KILL_ID, HANG_ID, RAISE_ID, NO_MEMORY_ID, NAN_ID = range(201, 206)
"""As fake_scheduler.py has them, which is for the host to import, not for us."""

needs_sglang = pytest.mark.skipif(
    find_spec("sglang") is None, reason="SGLang is not installed; .ci/sglang makes an environment that has it"
)


def shared_memory() -> list[Path]:
    """What all SGLangs of this machine hold there."""
    return [*SHARED_MEMORY.glob("sglang_loads_*")]


def open_front_end(model: Model, name: str = "open_sglang", *, settings: SGLangSettings | None = None) -> SGLangEngine:
    factory, settings = f"tests.fake_scheduler:{name}", settings or SGLangSettings()
    return start_engine(model, dim=DIM, card=CARD, settings=settings, factory=factory, timeout_s=START_S)


def left_behind(pid: int | None = None) -> set[Path]:
    """The folders of hosts that this process (or that one) started, and shared memory whose host has no folder."""
    folders = {*Path("/tmp").glob(f"embedcli-{pid or os.getpid()}-*")}
    named = {file.name.removeprefix(INSTANCE) for file in Path("/tmp").glob(f"embedcli-*/{INSTANCE}*")}
    shared = {file for file in shared_memory() if file.name.split("_")[2] not in named}
    return folders | shared
