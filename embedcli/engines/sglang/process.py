"""Our side of an engine host: start its process, send lists, get answers, learn of its death, leave nothing behind.

In: a job (which Engine, with which arguments), then rows. Out: a Future a list; EngineDied for all that are in
flight when the host is gone, EngineOutOfMemory where its last words say so.
The host has a session of its own, so no signal of the terminal reaches it, and a folder of its own for sockets
and the log, so all of it can be removed. Not here: what runs in there (guard.py, host.py).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

import numpy as np

from embedcli.engines.sglang.guard import group_members, remove_traces, wait_for_group
from embedcli.engines.sglang.wire import JOB, READY, ROWS, VECTORS, Frame, pack_rows, receive_frame, send_frame
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from embedcli.report import Say

END_TIMEOUT_S = 10.0
LAST_WORDS_BYTES = 1 << 16
QUOTED_LINES = 12
FOLLOW_S = 0.3
LOOK_S = 0.5
SOCKET_FOLDER = "/tmp"
"""A socket's path holds 107 bytes: TMPDIR may be too long."""

MEMORY_HINT = "`nvidia-smi` tells who else holds the card; smaller batches with `--batch-tokens`"
DEBUG_HINT = "`--debug` shows all that SGLang says"
RESOURCES_HINT = "make room (`free`, `ulimit -u`, `df /tmp` tell where), then run the same command again"

_MEMORY_WORDS = re.compile(r"out of memory|OutOfMemoryError|leave no GPU memory", re.I)
_ERROR_LINE = re.compile(r"^\s*(?:(?:\w+\.)*\w*(?:Error|Exception)\b|Fatal Python error)")
_CRASH_LINE = re.compile(r"crashed with exit code")
_WARNING = re.compile(r"^.*:\d+: \w*Warning: .*(?:\n[ \t]+\S.*)?", re.M)
"""As Python writes it, with the line of source that it quotes."""


class Host:
    """One host, from its start to its end."""

    def __init__(self, job: Mapping[str, Any], *, environment: Mapping[str, str], show_log: Say | None = None) -> None:
        self._started = time.monotonic()
        self._ready: Future[dict[str, Any]] = Future()
        self._lock = threading.Lock()
        self._in_flight: dict[int, Future[np.ndarray]] = {}
        self._death: EngineError | None = None
        self._over = threading.Event()
        self._last_number = 0
        self._closed = False
        self._members: set[int] = set()
        self._said_bytes = 0
        self._outbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        with _system_errors(), contextlib.ExitStack() as unless_started:
            self._folder = _own_folder()
            unless_started.callback(remove_traces, self._folder, ())
            self._log = self._folder / "log"
            self._channel, theirs = socket.socketpair()
            unless_started.callback(self._channel.close)
            with theirs:
                self._process = _spawn(theirs.fileno(), self._log, {**environment, "TMPDIR": str(self._folder)})
            unless_started.pop_all()
        self._outbox.put((0, JOB, 0, json.dumps(dict(job)).encode()))
        _begin(self._send)
        _begin(self._receive)
        self._follower = None if show_log is None else _begin(functools.partial(self._follow, show_log))

    # What the engine calls.

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._started

    def wait_until_ready(self, timeout_s: float, stop: threading.Event | None = None) -> dict[str, Any]:
        """The host's facts; EngineError or EngineDied, with its last words, where it does not start.

        EngineDied too, soon, once `stop` is set.
        """
        give_up_s = time.monotonic() + timeout_s
        while time.monotonic() < give_up_s and not (stop and stop.is_set()):
            with contextlib.suppress(FutureTimeout):
                return self._ready.result(min(LOOK_S, timeout_s))
        words = quote(self._last_words())
        raise EngineDied(f"SGLang was not ready after {self.age_s:.0f} s{words}", DEBUG_HINT)

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        future: Future[np.ndarray] = Future()
        future.set_running_or_notify_cancel()  # what was sent cannot be taken back: SGLang would work on, for nobody
        with self._lock:
            if self._death is not None:
                future.set_exception(self._death)
                return future
            self._last_number += 1
            number = self._last_number
            self._in_flight[number] = future
        self._outbox.put((number, ROWS, len(rows), pack_rows(rows)))
        return future

    def close(self) -> None:
        """Kill the group, and leave nothing of it behind."""
        self._die(EngineDied("the engine was closed"))
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._members |= group_members(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its id is ours until we have waited for it
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_TIMEOUT_S)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._outbox.put(None)
        wait_for_group(self._process.pid, END_TIMEOUT_S)
        if self._follower is not None:  # whoever asked for the log gets it to the last line
            self._follower.join(END_TIMEOUT_S)
        remove_traces(self._folder, self._members)

    # What the threads do.

    def _send(self) -> None:
        while (frame := self._outbox.get()) is not None:
            try:
                send_frame(self._channel, frame)
            except OSError:
                return  # the receiver learns of it too, and tells

    def _receive(self) -> None:
        while (frame := receive_frame(self._channel)) is not None:
            number, kind, count, data = frame
            if kind == READY:
                self._members |= group_members(self._process.pid)  # who will have died when it comes to tidying up
                facts = json.loads(data)
                self._said_bytes = facts["said_bytes"]
                with contextlib.suppress(InvalidStateError):  # closed meanwhile
                    self._ready.set_result(facts)
                continue
            with self._lock:
                future = self._in_flight.pop(number, None)
            if future is None:
                continue
            if kind == VECTORS:
                future.set_result(np.frombuffer(data, dtype=np.float32).reshape(count, -1))
            else:
                future.set_exception(EngineDied(f"SGLang refused a list: `{data.decode(errors='replace')}`"))
        self._channel.close()
        self._die(self._cause())

    def _die(self, cause: EngineError) -> None:
        with self._lock:
            self._death = self._death or cause
            self._over.set()
            lost, self._in_flight = list(self._in_flight.values()), {}
        with contextlib.suppress(InvalidStateError):
            self._ready.set_exception(self._death)
        for future in lost:
            future.set_exception(self._death)

    def _follow(self, show_log: Say) -> None:
        """Hand on each line of the log as it comes, to the last."""
        with self._log.open(encoding="utf-8", errors="replace") as stream:
            ended = False
            while not ended:
                ended = self._over.wait(FOLLOW_S)
                for line in stream:
                    show_log(line.rstrip("\n"))

    # What is known of a death.

    def _cause(self) -> EngineError:
        """A start that ends in an exception would end so again; what is killed may do better next time."""
        words = self._last_words()
        if _MEMORY_WORDS.search(words):
            return EngineOutOfMemory(f"the card ran out of memory: `{telling_line(words)}`", MEMORY_HINT)
        if self._ready.done():
            return EngineDied(f"SGLang died: `{telling_line(words)}`", DEBUG_HINT)
        if "Traceback" in words and "scheduler died" not in words:
            return EngineError(f"SGLang does not start{quote(words)}", DEBUG_HINT)
        return EngineDied(f"SGLang died while it started{quote(words)}", DEBUG_HINT)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError), self._log.open("rb") as stream:
            stream.seek(max(self._said_bytes, stream.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            return stream.read().decode("utf-8", "replace")
        return ""


def _begin(run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run, name="embedcli-host", daemon=True)
    thread.start()
    return thread


def telling_line(words: str) -> str:
    """The line that names the cause: out of memory, else the last error, else a crash that was noticed, else the last
    line that is no warning of Python's: one of those comes after each death, for what the dead have left."""
    lines = [line.strip() for line in _WARNING.sub("", words).splitlines() if line.strip()]
    for wanted in (_MEMORY_WORDS, _ERROR_LINE, _CRASH_LINE):
        for line in reversed(lines):
            if wanted.search(line):
                return line
    return lines[-1] if lines else "killed without a word"


def quote(words: str) -> str:
    """The telling line, and the last lines below it."""
    lines = [line.rstrip() for line in words.splitlines() if line.strip()][-QUOTED_LINES:]
    return ": `" + telling_line(words) + "`" + "".join(f"\n  | {line}" for line in lines)


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineDied(f"the engine's process cannot be started: {error}", RESOURCES_HINT) from error


def _own_folder() -> Path:
    base = SOCKET_FOLDER if os.access(SOCKET_FOLDER, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix=f"embedcli-{os.getpid()}-", dir=base))


def _spawn(channel: int, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    path = f"import sys; sys.path[:] = {sys.path!r}"
    code = f"{path}; from embedcli.engines.sglang.guard import main; main({channel}, {os.getpid()})"
    with log.open("ab") as words:
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,  # the lifeline: never written, closed by our end
            stdout=words,
            stderr=words,
            pass_fds=(channel,),
            start_new_session=True,
            env=dict(environment),
        )
