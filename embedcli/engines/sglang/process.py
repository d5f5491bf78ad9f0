"""Our side of an engine host: start its process, send batches, get answers, notice its death, leave nothing behind.

In: a job (which Engine, with which arguments), then batches. Out: a Future for each batch; when the host is gone, all
batches in flight fail with EngineDied, or with EngineOutOfMemory where its last lines say so. The host has a session of
its own, so no signal of the terminal reaches it, and a folder of its own for sockets and the log, which can be removed.
Not here: starting a process, messages (processes.py); what runs in the host (guard.py, host.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

import numpy as np

from embedcli.engines.sglang.guard import (
    FOLDER,
    LOG,
    group_members,
    remove_traces,
    remove_traces_of_the_dead,
    wait_for_group,
)
from embedcli.engines.sglang.wire import JOB, READY, ROWS, VECTORS, Frame, pack_rows, receive_frame, send_frame
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from embedcli.processes import last_words, spawn
from embedcli.report import Say

GUARD = "embedcli.engines.sglang.guard"

END_TIMEOUT_S = 10.0
LAST_WORDS_BYTES = 1 << 16
QUOTED_LINES = 12
FOLLOW_S = 0.3
LOOK_S = 0.5
SOCKET_FOLDER = "/tmp"
"""The path of a socket has 107 bytes at most: TMPDIR may be too long."""

MEMORY_HINT = "`nvidia-smi` lists who else uses the card; `--batch-tokens` makes batches smaller"
DEBUG_HINT = "`--debug` shows all that SGLang logs"
RESOURCES_HINT = "make room (`free`, `ulimit -u`, `df /tmp` show where), then run the same command again"

_MEMORY_WORDS = re.compile(r"out of memory|OutOfMemoryError|leave no GPU memory", re.I)
_ERROR_LINE = re.compile(r"^\s*(?:(?:\w+\.)*\w*(?:Error|Exception)\b|Fatal Python error)")
_CRASH_LINE = re.compile(r"crashed with exit code")
_WARNING = re.compile(r"^.*:\d+: \w*Warning: .*(?:\n[ \t]+\S.*)?", re.M)
"""A warning as Python writes it, with the line of source that it quotes."""


class _InFlight:
    """The futures of the batches that the host has, by number; after its death, the error that every new batch gets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[int, Future[np.ndarray]] = {}
        self._last_number = 0
        self._death: EngineError | None = None

    def begin(self) -> tuple[int, Future[np.ndarray]]:
        """A number and a future for one more batch; the number is 0 and the future has failed once the host is dead."""
        future: Future[np.ndarray] = Future()
        future.set_running_or_notify_cancel()  # a batch that was sent cannot be cancelled: SGLang would go on with it
        with self._lock:
            if self._death is not None:
                future.set_exception(self._death)
                return 0, future
            self._last_number += 1
            self._futures[self._last_number] = future
            return self._last_number, future

    def end(self, number: int) -> Future[np.ndarray] | None:
        """The future of an answered batch; None if the batch has failed meanwhile."""
        with self._lock:
            return self._futures.pop(number, None)

    def fail(self, cause: EngineError) -> tuple[EngineError, list[Future[np.ndarray]]]:
        """Returns (the death, which is the cause of the first call; the futures that the caller fails with it)."""
        with self._lock:
            self._death = self._death or cause
            lost, self._futures = list(self._futures.values()), {}
            return self._death, lost


class _Log:
    """What the host's processes write. `said_bytes` is what they had written when the host became ready.

    They and this process have it open, and with that locked: as soon as it has its name, nobody takes them for dead.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG
        self.said_bytes = 0
        new = folder / "new"
        self.stream = new.open("ab")
        with contextlib.suppress(OSError):  # a filesystem without locks: then nobody can take this one
            fcntl.flock(self.stream, fcntl.LOCK_EX)
        new.rename(self.path)

    def last_words(self) -> str:
        with contextlib.suppress(OSError), self.path.open("rb") as stream:
            words = last_words(stream.fileno(), most_bytes=LAST_WORDS_BYTES, since_byte=self.said_bytes)
            return words.decode("utf-8", "replace")
        return ""

    def follow(self, show_log: Say, over: threading.Event) -> None:
        """Hand on each line as it is written, to the last one."""
        with self.path.open(encoding="utf-8", errors="replace") as stream:
            ended = False
            while not ended:
                ended = over.wait(FOLLOW_S)
                for line in stream:
                    show_log(line.rstrip("\n"))


class _Group:
    """The host's processes: the guard that leads them, all that were ever seen, and the folder they use."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self._members: set[int] = set()

    def note_members(self) -> None:
        """Remember the processes that run now: the semaphores of those that die are removed at the end."""
        self._members |= group_members(self.process.pid)

    def kill(self) -> None:
        """Kill all of them, and wait until their guard is gone."""
        self.note_members()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # the id stays ours until the process is waited for
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_TIMEOUT_S)
        if self.process.stdin is not None:
            self.process.stdin.close()

    def remove_traces(self) -> None:
        remove_traces(self.folder, self._members)


class Host:
    """One host, from its start to its end."""

    def __init__(self, job: Mapping[str, Any], *, environment: Mapping[str, str], show_log: Say | None = None) -> None:
        self._started_s = time.monotonic()
        self._ready: Future[dict[str, Any]] = Future()
        self._in_flight = _InFlight()
        self._over = threading.Event()
        self._closing = threading.Lock()  # taken by the first `close`, never given back
        self._outbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        with _system_errors(), contextlib.ExitStack() as unless_started:
            folder = _own_folder()
            unless_started.callback(remove_traces, folder, ())
            self._log = _Log(folder)
            unless_started.callback(self._log.stream.close)
            self._channel, theirs = socket.socketpair()
            unless_started.callback(self._channel.close)
            with theirs:
                # stdin is the lifeline: nothing is ever written to it, and its end closes with this process
                process = spawn(
                    GUARD, "main", theirs, stdin=subprocess.PIPE, output=self._log.stream.fileno(),
                    environment={**environment, "TMPDIR": str(folder)},
                )  # fmt: skip
            self._group = _Group(process, folder)
            unless_started.pop_all()
        self._outbox.put((0, JOB, 0, json.dumps(dict(job)).encode()))
        _begin(self._send)
        _begin(self._receive)
        self._follower = None if show_log is None else _begin(lambda: self._log.follow(show_log, self._over))

    # What the engine calls.

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._started_s

    def wait_until_ready(self, timeout_s: float, stop: threading.Event | None = None) -> dict[str, Any]:
        """Wait for the host's facts (host.py). Raises EngineError or EngineDied, with the last lines of the log, where
        the host does not start, and EngineDied soon after `stop` is set."""
        give_up_s = time.monotonic() + timeout_s
        while time.monotonic() < give_up_s and not (stop and stop.is_set()):
            with contextlib.suppress(FutureTimeout):
                return self._ready.result(min(LOOK_S, timeout_s))
        words = quote(self._log.last_words())
        raise EngineDied(f"SGLang was not ready after {self.age_s:.0f} s{words}", DEBUG_HINT)

    def submit(self, batch: Sequence[np.ndarray]) -> Future[np.ndarray]:
        number, future = self._in_flight.begin()
        if not future.done():
            self._outbox.put((number, ROWS, len(batch), pack_rows(batch)))
        return future

    def close(self) -> None:
        """Kill the group and remove its files. What is in flight fails with EngineDied."""
        self._die(EngineDied("the engine was closed"))
        if not self._closing.acquire(blocking=False):
            return
        self._group.kill()
        self._outbox.put(None)
        wait_for_group(self._group.process.pid, END_TIMEOUT_S)
        if self._follower is not None:  # the log is shown to its last line
            self._follower.join(END_TIMEOUT_S)
        self._group.remove_traces()
        self._log.stream.close()

    # What the threads do.

    def _send(self) -> None:
        while (frame := self._outbox.get()) is not None:
            try:
                send_frame(self._channel, frame)
            except OSError:
                return  # the receiving thread notices it too, and fails what is in flight

    def _receive(self) -> None:
        while (frame := receive_frame(self._channel)) is not None:
            number, kind, count, data = frame
            if kind == READY:
                self._note_ready(json.loads(data))
            elif (future := self._in_flight.end(number)) is None:
                continue
            elif kind == VECTORS:
                future.set_result(np.frombuffer(data, dtype=np.float32).reshape(count, -1))
            else:
                future.set_exception(EngineDied(f"SGLang refused a batch: `{data.decode(errors='replace')}`"))
        self._channel.close()
        self._die(self._cause())

    def _note_ready(self, facts: dict[str, Any]) -> None:
        self._group.note_members()
        self._log.said_bytes = facts["said_bytes"]
        with contextlib.suppress(InvalidStateError):  # closed meanwhile
            self._ready.set_result(facts)

    def _die(self, cause: EngineError) -> None:
        death, lost = self._in_flight.fail(cause)
        self._over.set()
        with contextlib.suppress(InvalidStateError):
            self._ready.set_exception(death)
        for future in lost:
            future.set_exception(death)

    def _cause(self) -> EngineError:
        """Why the host is gone. A start that raised would raise again; a host that was killed may work next time."""
        words = self._log.last_words()
        if _MEMORY_WORDS.search(words):
            return EngineOutOfMemory(f"the card ran out of memory: `{telling_line(words)}`", MEMORY_HINT)
        if self._ready.done():
            return EngineDied(f"SGLang died: `{telling_line(words)}`", DEBUG_HINT)
        if "Traceback" in words and "scheduler died" not in words:
            return EngineError(f"SGLang does not start{quote(words)}", DEBUG_HINT)
        return EngineDied(f"SGLang died while it started{quote(words)}", DEBUG_HINT)


def _begin(run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run, name="embedcli-host", daemon=True)
    thread.start()
    return thread


def telling_line(words: str) -> str:
    """The line that names the cause: out of memory, else the last error, else a crash that SGLang noticed, else the
    last line that is no warning of Python's. (A warning about leaked resources follows each death.)"""
    lines = [line.strip() for line in _WARNING.sub("", words).splitlines() if line.strip()]
    for wanted in (_MEMORY_WORDS, _ERROR_LINE, _CRASH_LINE):
        for line in reversed(lines):
            if wanted.search(line):
                return line
    return lines[-1] if lines else "killed, no output"


def quote(words: str) -> str:
    """The telling line, and below it the last lines."""
    lines = [line.rstrip() for line in words.splitlines() if line.strip()][-QUOTED_LINES:]
    return ": `" + telling_line(words) + "`" + "".join(f"\n  | {line}" for line in lines)


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineDied(f"the engine's process cannot be started: {error}", RESOURCES_HINT) from error


def _own_folder() -> Path:
    base = SOCKET_FOLDER if os.access(SOCKET_FOLDER, os.W_OK) else tempfile.gettempdir()
    remove_traces_of_the_dead(Path(base))
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=base))
