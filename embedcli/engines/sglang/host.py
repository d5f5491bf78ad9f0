"""The host: a process that runs SGLang's Engine and nothing else, and answers batches over a socket.

In: one job (JSON), then batches of token ids. Out: `ready` (JSON), then one answer for each batch: float32 vectors, or
why there are none. When its scheduler dies, SGLang kills every child of the process that runs the Engine: so this
process has no other children.
Not here: starting and ending the process (process.py, guard.py), the Engine's arguments
(settings.py), restarting (engines/feeder.py).
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import json
import os
import queue
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from embedcli.engines.sglang.scheduler import GC_THRESHOLD, run_scheduler
from embedcli.engines.sglang.wire import FAILED, INSTANCE, READY, VECTORS, Frame, receive_frame, send_frame, unpack_rows

ENGINE_FACTORY = "embedcli.engines.sglang.host:open_sglang"
LAST_ANSWERS_S = 2.0


# ---- SGLang


class Hosted(Protocol):
    """The engine that a host runs."""

    loop: asyncio.AbstractEventLoop

    def call_on_death(self, call: Callable[[], None]) -> None:
        """Have `call` called, in the loop, when the engine can answer no more. To be used before the first `embed`."""

    async def embed(self, rows: list[list[int]], dim: int) -> np.ndarray:
        """float32 [rows, dim]."""

    def facts(self) -> dict[str, int]:
        """`pool_tokens` and `page_tokens`: the sizes of SGLang's pool and of a page. A row that together with one page
        is not smaller than the pool would wait for ever."""


def open_sglang(arguments: dict[str, Any]) -> SGLang:
    from sglang.srt.entrypoints.engine import Engine

    engine = without_detokenizer(Engine)
    engine.run_scheduler_process_func = staticmethod(run_scheduler)
    return SGLang(engine(**arguments))


def without_detokenizer(engine: Any) -> Any:
    """The class `engine` without its detokenizer: that takes a gigabyte and 20 s of a core, and vectors need none."""

    class HostedEngine(engine):  # type: ignore[misc]  # untyped
        @classmethod
        def _launch_detokenizer_subprocesses(cls, *, port_args: Any, **_: Any) -> tuple[list[Any], list[str]]:
            # the scheduler leaves files with this name in shared memory: guard.remove_traces has to find them
            (Path(tempfile.gettempdir()) / f"{INSTANCE}{port_args.instance_id}").touch()
            return [], []

    return HostedEngine


class SGLang:
    """SGLang's Engine, through the few parts of its interface that we use."""

    def __init__(self, engine: Any) -> None:
        from sglang.srt.managers.io_struct import EmbeddingReqInput

        self._engine = engine
        self._request = EmbeddingReqInput
        self.loop: asyncio.AbstractEventLoop = engine.loop

    def call_on_death(self, call: Callable[[], None]) -> None:
        self._engine.tokenizer_manager.signal_handler_class = functools.partial(_Handlers, call)

    async def embed(self, rows: list[list[int]], dim: int) -> np.ndarray:
        request = self._request(input_ids=rows, dimensions=dim)
        out: list[dict[str, Any]] = await self._engine.tokenizer_manager.generate_request(request, None).__anext__()
        vectors = b"".join(answer["embedding"] for answer in out)  # the scheduler's `answer_with_bytes` made bytes
        return np.frombuffer(vectors, dtype=np.float32).reshape(len(rows), -1)

    def facts(self) -> dict[str, int]:
        """The page size is read from the resolved arguments: the given ones keep None."""
        info = self._engine._scheduler_init_result.scheduler_infos[0]
        resolved = self._engine.server_args.resolved_dict()
        return {"pool_tokens": int(info["max_total_num_tokens"]), "page_tokens": int(resolved["page_size"])}


class _Handlers:
    """Signal handlers in the place of SGLang's, which would kill this process. A dying scheduler sends SIGQUIT."""

    def __init__(self, call: Callable[[], None], _tokenizer_manager: Any) -> None:
        self._call = call

    def sigterm_handler(self, *_: object) -> None:
        """Ignore it: only the parent ends the host."""

    def running_phase_sigquit_handler(self, *_: object) -> None:
        self._call()


# ---- the host


def host(channel: socket.socket) -> None:
    """Run the host from its job to its end. In the main thread, where SGLang must install its signal handlers."""
    frame = receive_frame(channel)
    if frame is None:
        return
    job = json.loads(frame[3])
    module, _, name = job["factory"].partition(":")
    engine: Hosted = getattr(importlib.import_module(module), name)(job["arguments"])
    serving = Serving(engine, channel, dim=job["dim"])
    engine.loop.run_until_complete(serving.serve(job["warm_up"]))


class Serving:
    """Takes batches from the socket and sends answers. It runs in the engine's event loop, so nothing may block."""

    def __init__(self, engine: Hosted, channel: socket.socket, *, dim: int) -> None:
        self._engine = engine
        self._channel = channel
        self._dim = dim
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        engine.call_on_death(self._over.set)

    async def serve(self, warm_up: Sequence[tuple[int, int]]) -> None:
        """Serve until the engine is dead or the parent hangs up; answers that are ready are sent before the end."""
        writer = threading.Thread(target=self._write, daemon=True)
        writer.start()
        started = asyncio.create_task(self._start(warm_up))
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait({started, over}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            started.result()
            await over
        self._answers.put(None)
        writer.join(LAST_ANSWERS_S)

    async def _start(self, warm_up: Sequence[tuple[int, int]]) -> None:
        for rows, length in warm_up:
            await self._embed([[1] * length] * rows)
        # without this the garbage collector took two thirds of this process's time, for objects that are never freed
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        # what was logged during the start is not quoted as the cause of a later death
        facts = {**self._engine.facts(), "said_bytes": os.fstat(sys.stderr.fileno()).st_size}
        self._answers.put((0, READY, 0, json.dumps(facts).encode()))
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), daemon=True).start()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        while (frame := receive_frame(self._channel)) is not None:
            number, _, count, data = frame
            loop.call_soon_threadsafe(self._accept, number, unpack_rows(data, count))
        loop.call_soon_threadsafe(self._over.set)

    def _accept(self, number: int, rows: list[list[int]]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(number, rows))
        self._tasks.add(task)  # the loop itself has only a weak reference
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, rows: list[list[int]]) -> None:
        try:
            vectors = await self._embed(rows)
        except Exception as error:  # noqa: BLE001 - whatever SGLang raises is the answer to this batch
            self._answers.put((number, FAILED, len(rows), f"{type(error).__name__}: {error}".encode()))
        else:
            self._answers.put((number, VECTORS, len(rows), vectors.tobytes()))

    async def _embed(self, rows: list[list[int]]) -> np.ndarray:
        vectors = await self._engine.embed(rows, self._dim)
        if vectors.shape != (len(rows), self._dim):
            raise ValueError(f"{list(vectors.shape)} for {len(rows)} rows of {self._dim}")
        return vectors

    def _write(self) -> None:
        while (answer := self._answers.get()) is not None:
            try:
                send_frame(self._channel, answer)
            except OSError:
                return
