"""One reading process, from both sides: the handle its watcher holds, and the loop it runs.

In: a pickled Work with its Limits, then one (task, with_forms) after the other. Out: its reply, or what
became of the child: Hung, Died. Not here: which task goes where, what is tried again (pool.py); what the
work is.

The child belongs to no terminal, hears no SIGINT or SIGTERM and dies with us. It is started by `python -c`,
so it imports the work's module and never our `__main__`. Its stdout and stderr go to a file that only its
watcher reads.
"""

from __future__ import annotations

import contextlib
import ctypes
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
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO

from embedcli.errors import EmbedcliError, UnreadableSource

Beat = Callable[[int], None]

NICENESS = 5
LAST_WORDS_BYTES = 4096
EXIT_SECONDS = 2.0
PR_SET_PDEATHSIG = 1

FRUGAL = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Of the address space allowed, a thread would take 64 MB, and a process a core is parallelism enough; Arrow's own
allocator would reserve a gigabyte at its first byte."""

_MEMORY_WORDS = re.compile(rb"out of memory|bad_alloc|MemoryError|memory allocation of|annot allocate memory", re.I)
_ABORT_WORDS = re.compile(rb"\w\(\): |corrupt|\*\*\*|assert|panicked", re.I)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task may take: seconds without a beat and in all, bytes of address space beyond the start's."""

    page_seconds: float = 20.0
    file_seconds: float = 300.0
    memory_bytes: int = 1 << 30

    def of(self, size_bytes: int) -> Limits:
        """What a file of this size may take. A text of 256 MB is in memory twice, at up to 4 bytes a character, and
        the slowest tokenizer on a busy core makes half a megabyte a second."""
        size_mb = size_bytes / 1e6
        return Limits(
            self.page_seconds + 0.25 * size_mb, self.file_seconds + 4 * size_mb, self.memory_bytes + 8 * size_bytes
        )


class WorkFailed(Exception):
    """A bug in the work, or a child that does not start; the text is its traceback or its last words."""


class Hung(Exception):
    """No beat for too long, or too long in all; the text says which."""


class Died(Exception):
    """The child is gone; `args` are the reason it stands for and the detail."""

    @property
    def unreadable(self) -> UnreadableSource:
        """What its task comes to."""
        return UnreadableSource(*self.args)


class _NoMoreTasks(Exception):
    """The parent has closed the socket."""


class Child:
    """The handle of one process, for the one thread that started it; only `kill` may come from others."""

    def __init__(self, work: bytes, limits: Limits) -> None:
        self._limits = limits  # of the task in hand
        self._ready = False
        self._words = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        # truncated before each task, so the child must write at the end, wherever that is
        fcntl.fcntl(self._words, fcntl.F_SETFL, os.O_APPEND)
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = _spawn(theirs.fileno(), self._words.fileno())
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        # one that is dead already is noticed by wait_until_ready
        with contextlib.suppress(OSError):
            send(self._socket, work)

    def ask(self, task: object, limits: Limits, *, with_forms: bool) -> tuple[Any, bool]:
        """The reply to a task, and whether the child is now so fat that it should go. Raises Hung, Died."""
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
        """Come back when it can take a task. Raises Hung, Died, and what the work's start raised."""
        if not self._ready:
            self._receive(time.monotonic() + self._limits.file_seconds, after="the start")
            self._ready = True
        elif self._process.poll() is not None:
            # killed between two tasks: no fault of the next one
            raise self._died()

    def kill(self) -> None:
        """End it now; its watcher sees that it died."""
        self._process.kill()

    def end(self) -> None:
        """Kill it if need be, and leave nothing of it behind."""
        self.kill()
        self._process.wait()
        self._socket.close()
        self._words.close()

    def _send(self, data: bytes) -> None:
        try:
            send(self._socket, data)
        except OSError as error:
            # what it said before it went is more than that it went
            self._receive(time.monotonic(), after="the last task")
            raise self._died() from error

    def _receive(self, deadline: float, *, after: str) -> tuple[str, Any, bool]:
        size = int.from_bytes(self._read(8, deadline, after), "little")
        kind, value, fat = pickle.loads(self._read(size, time.monotonic() + self._limits.page_seconds, after))
        if kind == "bug":
            raise value
        return kind, value, fat

    def _read(self, size: int, deadline: float, after: str) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self._await_data(deadline, after)
            try:
                count = self._socket.recv_into(view)
            except ConnectionError:
                count = 0
            if not count:
                raise self._died()
            view = view[count:]
        return data

    def _await_data(self, deadline: float, after: str) -> None:
        wait_s = max(0.0, deadline - time.monotonic())
        # the second look: we may have been stopped ourselves while the data came
        if not self._poll.poll(wait_s * 1000) and not self._poll.poll(0):
            limits = self._limits
            raise Hung(f"over {limits.page_seconds:g} s a page or {limits.file_seconds:g} s in all, after {after}")

    def _died(self) -> Died:
        try:
            status = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return Died("reader_crashed", "closed its socket and lived on")
        start = max(0, os.fstat(self._words.fileno()).st_size - LAST_WORDS_BYTES)
        words = os.pread(self._words.fileno(), LAST_WORDS_BYTES, start)
        text = f"exit status {status}; {words.decode('utf-8', 'replace')}".rstrip("; \n")
        return Died(reason_of_death(status, words), text)


def reason_of_death(status: int, last_words: bytes) -> str:
    """`out_of_memory` where that can be told, else `reader_crashed`; status is Popen's, minus the signal.

    A SIGKILL that is not ours is the kernel short of memory. pdfium aborts without a word when it is refused
    memory, other libraries name it; the aborts of the C library and of assertions say what they found.
    """
    if status == -signal.SIGKILL or _MEMORY_WORDS.search(last_words):
        return "out_of_memory"
    if status == -signal.SIGABRT and not _ABORT_WORDS.search(last_words):
        return "out_of_memory"
    return "reader_crashed"


def send(channel: socket.socket, data: bytes) -> None:
    """One message: its length, then itself."""
    channel.sendall(len(data).to_bytes(8, "little"))
    channel.sendall(data)


def _spawn(channel: int, words: int) -> subprocess.Popen[bytes]:
    path = f"import sys; sys.path[:] = {sys.path!r}"
    code = f"{path}; from embedcli.reading.process import serve; serve({channel}, {os.getpid()})"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=words,
        stderr=words,
        pass_fds=(channel,),
        start_new_session=True,
        env={**os.environ, **FRUGAL},
    )


def serve(channel: int, parent_pid: int) -> None:
    """The child's life: one work, task after task, until the parent closes the socket or is gone."""
    _belong_to(parent_pid)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
    # left open to the end: the excepthook speaks through it
    parent = socket.socket(fileno=channel)
    sys.excepthook = _report_to(parent)
    with parent.makefile("rb") as requests, contextlib.suppress(_NoMoreTasks):
        _serve(parent, requests)


def _serve(parent: socket.socket, requests: BinaryIO) -> None:
    work, limits = _request(requests)
    work.start()
    fat_bytes = _resident_bytes() + limits.memory_bytes // 4
    start_bytes = _statm()[0]
    send(parent, pickle.dumps(("ready", None, False)))
    beat = _beat_to(parent, interval_s=min(1.0, limits.page_seconds / 10))
    while True:
        task, memory_bytes, with_forms = _request(requests)
        _limit_memory(start_bytes + memory_bytes)
        send(parent, _reply(work, task, beat, with_forms=with_forms, fat_bytes=fat_bytes))


def _belong_to(parent_pid: int) -> None:
    # SIGTERM reaches every process of a stopped service; what is in hand must still be finished
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        # it died before we asked to die with it
        os._exit(1)


def _report_to(
    parent: socket.socket,
) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """An excepthook, so that a bug needs no broad `except`: errors meant for the user travel whole."""

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        bug = error if isinstance(error, EmbedcliError) else WorkFailed(text)
        send(parent, pickle.dumps(("bug", bug, False)))

    return report


def _request(requests: BinaryIO) -> Any:
    size = requests.read(8)
    if len(size) < 8:
        raise _NoMoreTasks
    return pickle.loads(requests.read(int.from_bytes(size, "little")))


def _reply(work: Any, task: object, beat: Beat, *, with_forms: bool, fat_bytes: int) -> bytes:
    try:
        try:
            value = work(task, beat, with_forms=with_forms)
        except UnreadableSource as error:
            value = error
        return pickle.dumps(("reply", value, _resident_bytes() > fat_bytes), protocol=5)
    except MemoryError:
        # what is left of the memory is in pieces: a new process is cheaper
        return pickle.dumps(("reply", UnreadableSource("out_of_memory"), True))


def _beat_to(parent: socket.socket, *, interval_s: float) -> Beat:
    """A beat that costs the parent one wake-up an interval, however fast the pages go by."""
    sent = 0.0

    def beat(page: int) -> None:
        nonlocal sent
        now = time.monotonic()
        if now - sent >= interval_s:
            sent = now
            send(parent, pickle.dumps(("beat", page, False)))

    return beat


def _limit_memory(total_bytes: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = total_bytes if hard == resource.RLIM_INFINITY else min(total_bytes, hard)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _resident_bytes() -> int:
    """Now, not at the peak: Linux counts the parent's size before exec into a child's peak."""
    return _statm()[1]


def _statm() -> tuple[int, int]:
    """Bytes of address space, and resident ones; elsewhere than on Linux the peak of the latter for both."""
    if sys.platform != "linux":
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak_bytes, peak_bytes
    with open("/proc/self/statm", "rb") as stream:
        fields = stream.read().split()
    page_bytes = resource.getpagesize()
    return int(fields[0]) * page_bytes, int(fields[1]) * page_bytes
