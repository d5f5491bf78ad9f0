"""One reading process, from both sides: the handle its watcher holds, and the loop it runs.

In: a pickled Work with its Limits, then one (task, with_forms) after the other. Out: the reply to each task, or Hung or
Died. The child belongs to no terminal, ignores SIGINT and SIGTERM, and dies with us. Its stdout and stderr go to a file
that only its watcher reads.
Not here: starting a process, messages (processes.py); which task goes to which child, what is tried again (pool.py);
what the work is (rows.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from embedcli.errors import EmbedcliError, UnreadableSource
from embedcli.processes import (
    HEAD_BYTES,
    die_with,
    ignore_stops,
    last_words,
    message_bytes,
    receive,
    receive_message,
    send_message,
    spawn,
)
from embedcli.records import Beat
from embedcli.vault.disk import temporary_file

NICENESS = 5
LAST_WORDS_BYTES = 4096
EXIT_SECONDS = 2.0

FRUGAL = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""A thread would take 64 MB of the address space that a child is allowed, and one process a core is parallel enough;
Arrow's own allocator would reserve a gigabyte at its first byte."""

_MEMORY_WORDS = re.compile(rb"out of memory|bad_alloc|MemoryError|memory allocation of|annot allocate memory", re.I)
_ABORT_WORDS = re.compile(rb"\w\(\): |corrupt|\*\*\*|assert|panicked", re.I)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task may take: seconds without a beat and in all, bytes of address space more than at the start."""

    page_seconds: float = 20.0
    file_seconds: float = 300.0
    memory_bytes: int = 1 << 30

    def of(self, size_bytes: int) -> Limits:
        """The limits of a file of this size. A text of 256 MB is in memory twice, at up to 4 bytes a character, and the
        slowest tokenizer on a busy core makes half a megabyte a second."""
        size_mb = size_bytes / 1e6
        return Limits(
            self.page_seconds + 0.25 * size_mb, self.file_seconds + 4 * size_mb, self.memory_bytes + 8 * size_bytes
        )


class WorkFailed(Exception):
    """A bug in the work, or a child that does not start. The text is its traceback or its last words."""


class Hung(Exception):
    """The child gave no beat for too long, or took too long in all. The text names both limits."""


class Died(Exception):
    """The child is gone. `args` are the reason that its task gets, and the detail."""

    @property
    def unreadable(self) -> UnreadableSource:
        """The result of the task that it had."""
        return UnreadableSource(*self.args)


class _NoMoreTasks(Exception):
    """The parent has closed the socket, or is gone."""


class Child:
    """The handle of one process, used by the thread that started it; any thread may call `kill`."""

    def __init__(self, work: bytes, limits: Limits) -> None:
        self._limits = limits  # those of the task that the child has
        self._ready = False
        self._words = temporary_file(buffering=0)
        # truncated before each task, so the child must write at the end, wherever that is
        fcntl.fcntl(self._words, fcntl.F_SETFL, os.O_APPEND)
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = spawn(
                __name__, "serve", theirs, stdin=subprocess.DEVNULL, output=self._words.fileno(),
                environment={**os.environ, **FRUGAL},
            )  # fmt: skip
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        # wait_until_ready notices a child that is dead already
        with contextlib.suppress(OSError):
            send_message(self._socket, work)

    def ask(self, task: object, limits: Limits, *, with_forms: bool) -> tuple[Any, bool]:
        """The reply to a task, and whether the child has grown so large that it should go. Raises Hung, Died."""
        self._words.truncate(0)
        self._limits = limits
        started = last_beat = time.monotonic()
        page = 0
        self._send(pickle.dumps((task, limits.memory_bytes, with_forms)))
        while True:
            by_page, by_file = last_beat + self._limits.page_seconds, started + self._limits.file_seconds
            kind, value, fat = self._receive(min(by_page, by_file), after=f"page {page}")
            if kind == "reply":
                return value, fat
            last_beat, page = time.monotonic(), value

    def wait_until_ready(self) -> None:
        """Return when the child can take a task. Raises Hung, Died, and what the work's start raised."""
        if not self._ready:
            self._receive(time.monotonic() + self._limits.file_seconds, after="the start")
            self._ready = True
        elif self._process.poll() is not None:
            # it was killed between two tasks: the next one must not be blamed
            raise self._died()

    def kill(self) -> None:
        """Kill it; its watcher notices that it died."""
        self._process.kill()

    def end(self) -> None:
        """Kill it if it still runs, reap it, and close its socket and its log."""
        self.kill()
        self._process.wait()
        self._socket.close()
        self._words.close()

    def _send(self, data: bytes) -> None:
        try:
            send_message(self._socket, data)
        except OSError as error:
            # a message that it sent before it ended says more than that it ended
            self._receive(time.monotonic(), after="the last task")
            raise self._died() from error

    def _receive(self, deadline: float, *, after: str) -> tuple[str, Any, bool]:
        size_bytes = message_bytes(self._read(HEAD_BYTES, deadline, after))
        kind, value, fat = pickle.loads(self._read(size_bytes, time.monotonic() + self._limits.page_seconds, after))
        if kind == "bug":
            raise value
        return kind, value, fat

    def _read(self, size_bytes: int, deadline: float, after: str) -> bytearray:
        data = receive(self._socket, size_bytes, wait=lambda: self._await_data(deadline, after))
        if data is None:
            raise self._died()
        return data

    def _await_data(self, deadline: float, after: str) -> None:
        wait_s = max(0.0, deadline - time.monotonic())
        # the second poll: this process may have been stopped itself while the data came
        if not self._poll.poll(wait_s * 1000) and not self._poll.poll(0):
            limits = self._limits
            raise Hung(f"over {limits.page_seconds:g} s a page or {limits.file_seconds:g} s in all, after {after}")

    def _died(self) -> Died:
        try:
            status = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return Died("reader_crashed", "closed its socket and lived on")
        words = last_words(self._words.fileno(), most_bytes=LAST_WORDS_BYTES)
        text = f"exit status {status}; {words.decode('utf-8', 'replace')}".rstrip("; \n")
        return Died(reason_of_death(status, words), text)


def reason_of_death(status: int, last_words: bytes) -> str:
    """`out_of_memory` where the evidence points to it, else `reader_crashed`. `status` is Popen's: minus the signal.

    A SIGKILL that we did not send is the kernel's, short of memory. pdfium aborts and prints nothing when it is refused
    memory; other libraries name the cause; an abort of the C library or of an assertion prints what it found.
    """
    if status == -signal.SIGKILL or _MEMORY_WORDS.search(last_words):
        return "out_of_memory"
    if status == -signal.SIGABRT and not _ABORT_WORDS.search(last_words):
        return "out_of_memory"
    return "reader_crashed"


def serve(channel: int, parent_pid: int) -> None:
    """The child's life: one work, task after task, until the parent closes the socket or is gone."""
    ignore_stops()
    die_with(parent_pid)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
    # never closed: the excepthook sends through it
    parent = socket.socket(fileno=channel)
    sys.excepthook = _report_to(parent)
    with contextlib.suppress(_NoMoreTasks):
        _serve(parent)


def _serve(parent: socket.socket) -> None:
    work, limits = _request(parent)
    work.start()
    fat_bytes = _resident_bytes() + limits.memory_bytes // 4
    start_bytes = _statm()[0]
    send_message(parent, pickle.dumps(("ready", None, False)))
    beat = _beat_to(parent, interval_s=min(1.0, limits.page_seconds / 10))
    while True:
        task, memory_bytes, with_forms = _request(parent)
        _limit_memory(start_bytes + memory_bytes)
        send_message(parent, _reply(work, task, beat, with_forms=with_forms, fat_bytes=fat_bytes))


def _report_to(
    parent: socket.socket,
) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """An excepthook that sends the exception: a bug needs no broad `except`, and errors for the user arrive whole."""

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        bug = error if isinstance(error, EmbedcliError) else WorkFailed(text)
        send_message(parent, pickle.dumps(("bug", bug, False)))

    return report


def _request(parent: socket.socket) -> Any:
    message = receive_message(parent)
    if message is None:
        raise _NoMoreTasks
    return pickle.loads(message)


def _reply(work: Any, task: object, beat: Beat, *, with_forms: bool, fat_bytes: int) -> bytes:
    try:
        try:
            value = work(task, beat, with_forms=with_forms)
        except UnreadableSource as error:
            value = error
        return pickle.dumps(("reply", value, _resident_bytes() > fat_bytes), protocol=5)
    except MemoryError:
        # the memory that is left is in pieces: a new process is cheaper
        return pickle.dumps(("reply", UnreadableSource("out_of_memory"), True))


def _beat_to(parent: socket.socket, *, interval_s: float) -> Beat:
    """A beat that wakes the parent once an interval at most, however fast the pages go by."""
    sent = 0.0

    def beat(page: int) -> None:
        nonlocal sent
        now = time.monotonic()
        if now - sent >= interval_s:
            sent = now
            send_message(parent, pickle.dumps(("beat", page, False)))

    return beat


def _limit_memory(total_bytes: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = total_bytes if hard == resource.RLIM_INFINITY else min(total_bytes, hard)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _resident_bytes() -> int:
    """The resident size now. Not its peak: on Linux a child's peak includes the parent's size before the exec."""
    return _statm()[1]


def _statm() -> tuple[int, int]:
    """Bytes of address space and resident bytes; outside Linux the peak of resident bytes stands for both."""
    if sys.platform != "linux":
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak_bytes, peak_bytes
    with open("/proc/self/statm", "rb") as stream:
        fields = stream.read().split()
    page_bytes = resource.getpagesize()
    return int(fields[0]) * page_bytes, int(fields[1]) * page_bytes
