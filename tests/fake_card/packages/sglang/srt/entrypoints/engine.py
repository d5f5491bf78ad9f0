"""An SGLang that a host takes for the real one: starts at once, answers at once, and does as its environment says.

FAKE_ARGUMENTS is a file for what it was started with, FAKE_DELAY are seconds for a list, FAKE_START seconds for the
start, FAKE_DEATH what it dies of then, FAKE_POOL the tokens that it has room for; as long as the file FAKE_HANG exists
no list is answered. It can be held (held.py) before it answers `list N`.
Vectors are bytes, as our scheduler sends them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.fake_engines import vector
from tests.held import hold

CHATTER = "SGLang says what nobody wants to hear"


class TokenizerManager:
    signal_handler_class: Any = None
    lists = 0

    async def generate_request(self, request: Any, _: Any) -> AsyncIterator[list[dict[str, Any]]]:
        self.lists += 1
        await asyncio.to_thread(hold, f"list {self.lists}")
        await asyncio.sleep(float(os.environ.get("FAKE_DELAY", 0)))
        while os.path.exists(os.environ.get("FAKE_HANG", "/none")):
            await asyncio.sleep(0.1)
        yield [{"embedding": vector(np.array(row), request.dimensions).tobytes()} for row in request.input_ids]


class Engine:
    def __init__(self, **arguments: Any) -> None:
        print(CHATTER, file=sys.stderr, flush=True)
        if "FAKE_ARGUMENTS" in os.environ:
            seen = {name: os.environ.get(name, "") for name in ("CUDA_VISIBLE_DEVICES", "PATH", "TRITON_CACHE_DIR")}
            Path(os.environ["FAKE_ARGUMENTS"]).write_text(json.dumps({**arguments, "environment": seen}))
        time.sleep(float(os.environ.get("FAKE_START", 0)))
        if "FAKE_DEATH" in os.environ:
            raise RuntimeError(os.environ["FAKE_DEATH"])
        tokens = int(os.environ.get("FAKE_POOL", 60_000))
        self.loop = asyncio.new_event_loop()
        self.tokenizer_manager = TokenizerManager()
        self.server_args = SimpleNamespace(page_size=None, resolved_dict=lambda: {"page_size": 1})
        self._scheduler_init_result = SimpleNamespace(scheduler_infos=[{"max_total_num_tokens": tokens}])
