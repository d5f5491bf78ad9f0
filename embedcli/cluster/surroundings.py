"""The process in which Ray runs a worker, made fit for an engine; and its end when nobody needs it any more.

In: the process id of the raylet, which starts such processes. Out: the environment of a process that was started by
hand, for our children too; `os._exit` when the raylet or the run is gone.
Not here: the worker (worker.py), its card: Ray sets CUDA_VISIBLE_DEVICES, and the first card seen is its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

LOOK_S = 1.0
UNASKED_S = 120.0
"""A run asks every few seconds: one that has not for so long is gone, or cannot be reached."""

ORPHAN = 75
"""Our exit code then, as of EX_TEMPFAIL."""

PROC = Path("/proc")


def as_started_by_hand(raylet: int) -> None:
    """Undo what Ray does to the processes that it starts: one thread for OpenMP, and the first to be killed when memory
    is short, which our reading processes would inherit. Their niceness cannot be taken back without rights."""
    if b"OMP_NUM_THREADS" not in _environment_of(raylet):
        os.environ.pop("OMP_NUM_THREADS", None)
    with contextlib.suppress(OSError):
        adjusted = (PROC / str(raylet) / "oom_score_adj").read_text()
        (PROC / "self" / "oom_score_adj").write_text(adjusted)


def _environment_of(pid: int) -> set[bytes]:
    with contextlib.suppress(OSError):
        lines = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
        return {line.partition(b"=")[0] for line in lines}
    return set()


def end_with(raylet: int, last_asked_s: Callable[[], float]) -> None:
    """End this process, from a thread of its own, when the raylet is gone or the run has not asked for two minutes.

    Ray's own watch misses a raylet that is dead and not reaped: a worker then works on for nobody.
    """

    def watch() -> None:
        while _runs(raylet) and time.monotonic() - last_asked_s() < UNASKED_S:
            time.sleep(LOOK_S)
        os._exit(ORPHAN)

    threading.Thread(target=watch, name="embedcli-watchdog", daemon=True).start()


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
