"""What a run over workers costs the run itself, so that `bench` can say how many workers one run can feed.

In: the index that a run has just made, its tools. Out: the CPU seconds of the thread that plans, adopts and publishes,
measured in a run over one worker, which is in a thread of this process: it reads everything again, and every vector
is known. No several workers are run, on this or any machine: what follows for them is a projection.
Not here: what the worker does (cluster/), printing (cli/machine.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from io import StringIO
from typing import Any

from embedcli.cluster.worker import Worker
from embedcli.config import Options
from embedcli.errors import EmbedcliError, Stopped
from embedcli.ingest import ingest
from embedcli.report import Report
from embedcli.run.tools import Tools

WAIT_S = 1.0
"""The worker is there at once, and its engine is open: where it is lost there will be no other."""

POLL_S = 0.5


def coordinator_cpu_s(asked: Options, tools: Tools) -> float | None:
    """CPU seconds for all documents of `asked`, whose index is there; None where the run did not come to its end."""
    began_s = time.thread_time()
    with _Here(tools) as workforce:
        try:
            ingest(
                dataclasses.replace(asked, rebuild=True),
                tools=dataclasses.replace(tools, workforce=workforce),
                report=Report(quiet=True, stream=StringIO()),
            )
        except Stopped:
            raise
        except EmbedcliError:
            return None
    return time.thread_time() - began_s


_TOOLS: dict[int, Tools] = {}
"""Of the workers in this process: a job travels as a pickle, which an open engine cannot."""


class _Here:
    """One worker in a thread of this process: the workforce, its transport and its handle (cluster/transport.py)."""

    name = "here"
    least = 1
    wait_s = WAIT_S

    def __init__(self, tools: Tools) -> None:
        self._worker = Worker(wait_s=POLL_S)
        self._calls = ThreadPoolExecutor(4, "calls")
        self._coming = [self]
        _TOOLS[id(self)] = tools

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: object) -> None:
        del _TOOLS[id(self)]

    @property
    def tools_there(self) -> Callable[..., Tools]:
        return partial(_tools_here, id(self))

    def start(self, device: str) -> _Here:
        return self

    def arrived(self) -> list[_Here]:
        coming, self._coming = self._coming, []
        return coming

    def draining(self) -> tuple[()]:
        return ()

    def replace(self) -> None:
        """There is no other one: a run that loses it ends when it has waited."""

    def call(self, method: str, message: bytes) -> Future[bytes]:
        return self._calls.submit(self._worker.call, method, message)

    def kill(self) -> None:
        self._worker.call("stop", b"")

    def close(self) -> None:
        self.kill()
        if self._worker.thread is not None:
            self._worker.thread.join()
        self._calls.shutdown()


def _tools_here(number: int, *_: object, **seams: Any) -> Tools:
    known = ("stop_signal", "seconds_left")
    return dataclasses.replace(_TOOLS[number], **{name: seams[name] for name in known})
