"""Workers without Ray: in threads of this process, or each in a process of its own that can be killed or suspended.

In: how many, and what goes wrong. Out: a Workforce for Tools; the tools of a worker, with an engine of a fixed speed.
Not here: any expectation; Ray's workers (tests/ray_cluster.py).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np

from embedcli.cluster.messages import Collected, pack, pack_reply, unpack, unpack_reply
from embedcli.cluster.transport import WorkerLost
from embedcli.cluster.worker import Worker
from embedcli.config import index_folder, workers_folder
from embedcli.errors import UnreadableSource
from embedcli.models import resolve
from embedcli.processes import die_with, receive_message, send_message, spawn
from embedcli.run.tasks import Task
from embedcli.run.tools import Tools
from embedcli.vault.disk import Disk
from tests.fake_engines import KILLER, FakeEngine
from tests.faults import KillAt, StopAt, Watching, faulty, is_first
from tests.held import GIVEN_UP_S, later
from tests.workshop import ReadsHere, SplitsHere

H = TypeVar("H")
"""The handle of a worker."""


# ---- the tools of a worker


class SpeedEngine(FakeEngine):
    """Takes as long for a batch as a card of `tokens_per_s` would, in a thread of its own; 0: no time at all.

    `held`: a list with a killer in it is answered only when this file is there.
    """

    def __init__(self, dim: int, tokens_per_s: float, log_file: Path | None, held: Path | None = None) -> None:
        super().__init__(dim=dim, batch_tokens=4_096, batch_rows=256 if held is None else 1, depth=2)
        self.vocabulary = None
        self._tokens_per_s = tokens_per_s
        self._log_file = log_file
        self._held = held
        self._thread = ThreadPoolExecutor(1, "engine")

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        if self._log_file is not None:
            with self._log_file.open("a") as file:
                file.write("".join(f"{row.tobytes().hex()}\n" for row in rows))
        if self._held is not None and any(KILLER in row for row in rows):
            return later(lambda: self._when_let_go(rows, self._held))
        if not self._tokens_per_s:
            return super().submit(rows)
        return self._thread.submit(self._work, rows)

    def _when_let_go(self, rows: Sequence[np.ndarray], held: Path) -> np.ndarray:
        while not held.exists():
            time.sleep(0.01)
        return self.embed(rows)

    def _work(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        until_s = time.monotonic() + sum(row.size for row in rows) / self._tokens_per_s
        answer = super().submit(rows).result()
        time.sleep(max(0.0, until_s - time.monotonic()))
        return answer

    def close(self) -> None:
        super().close()
        self._thread.shutdown(wait=False)


@dataclass(frozen=True)
class Double:
    """How the workers of a test differ from real ones. It travels as a pickle.

    `once`: a file that the first worker makes which comes to the fault; without it, all of them have it.
    `kill_at`: before the n-th operation of this name on the disk. `killer`: reading a file with this name kills the
    worker, not only its reader.
    """

    tokens_per_s: float = 0.0
    log_file: Path | None = None
    reading_processes: bool = False
    once: Path | None = None
    kill_at: tuple[str | None, int] | None = None
    stop_at: tuple[str, int] | None = None
    """The same, but the worker is suspended there."""
    url: str = ""
    """Where the index lies, if it is in a vault."""
    hosts: Path | None = None
    """Each worker's process has a cache below this folder, as if it were on a host of its own; None: that of its
    environment."""
    record: Path | None = None
    """Where the names of the operations on the disk are written."""
    read_log: Path | None = None
    """Where the path of each source is written that a worker reads."""
    killer: str = ""
    model: str = "minilm"
    facts_file: Path | None = None
    """Where the worker writes what its process is like."""
    blind: str = ""
    """A file that the worker does not see."""
    spoil: float = 0.0
    """How much of another direction the vectors of this worker have."""
    precision: str = "float32"
    held: Path | None = None
    """UNFINISHED gets its vectors only when this file is there: until then the run is not over."""
    go_when_loose: bool = False
    """A worker makes that file when it has begun to store vectors of documents that are not finished."""
    gate: Path | None = None
    """No worker goes on from its first shard before two have one in their journals: each makes a file in this
    folder."""

    def tools(
        self, say: Callable[[str], None], *, stop_signal: Callable[[], int | None],
        seconds_left: Callable[[], float], warn: Callable[[str], None],
    ) -> Tools:  # fmt: skip
        if self.hosts is not None:
            os.environ["EMBEDCLI_CACHE"] = str(self.hosts / f"{os.getpid()}")
        if self.facts_file is not None:
            facts = {
                "nice": os.nice(0), "omp": os.environ.get("OMP_NUM_THREADS"), "pid": os.getpid(),
                "cards": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "oom": Path("/proc/self/oom_score_adj").read_text().strip(),
            }  # fmt: skip
            with self.facts_file.open("a") as file:
                file.write(json.dumps(facts) + "\n")
        reads = functools.partial(_ReadsOrDies, double=self)
        return Tools(
            resolve=lambda asked, memory: resolve.resolve(self.model, report=lambda _: None),
            device_kind=lambda _: "cpu",
            open_engine=lambda model, settings, _: self._engine(settings.dim),
            stop_signal=stop_signal,
            seconds_left=seconds_left,
            disk=self._disk(),
            make_pool=None if self.reading_processes else reads,
            make_splitter=None if self.reading_processes else SplitsHere,
        )

    def _disk(self) -> Disk | None:
        fault: Watching | None = Noting(self.record) if self.record else None
        if self.kill_at:
            fault = KillAt(*self.kill_at, once=self.once)
        elif self.stop_at:
            fault = StopAt(*self.stop_at, once=self.once)
        elif self.gate:
            fault = Together(self.gate)
        if self.held and self.go_when_loose:
            fault = GoesWhenLoose(self.held, fault or Watching())
        if fault is None or not self.url:
            return fault
        return faulty(workers_folder(index_folder(self.url)), fault)

    def _engine(self, dim: int) -> SpeedEngine:
        engine = SpeedEngine(dim, self.tokens_per_s, self.log_file, self.held)
        engine.precision = self.precision
        if self.spoil and is_first(self.once):
            sound = engine.embed

            def embed(rows: Sequence[np.ndarray]) -> np.ndarray:
                vectors = np.array(sound(rows))
                vectors[:, 0] += self.spoil
                return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

            engine.embed = embed  # type: ignore[method-assign]
        return engine


class _ReadsOrDies(ReadsHere):
    """Reads in the worker itself, which dies of the killer. Tasks come while it reads, so it waits for them."""

    def __init__(self, work: Any, *, double: Double, **given: Any) -> None:
        super().__init__(work, **given)
        self.double = double
        self.waiting: Future[Any] | None = None
        self.puller = ThreadPoolExecutor(1, "puller")

    def __exit__(self, *_: object) -> None:
        self.puller.shutdown(wait=True)

    def get(self, timeout: float) -> Any:
        self.waiting = self.waiting or self.puller.submit(next, self.tasks, None)
        try:
            task = self.waiting.result(timeout)
        except TimeoutError:
            return None
        self.waiting = None
        if task is not None and (read := self._read_otherwise(task)) is not None:
            return task, read
        self.tasks, rest = iter([] if task is None else [task]), self.tasks
        returned = super().get(timeout)
        self.tasks = rest
        return returned

    def _read_otherwise(self, task: Any) -> UnreadableSource | None:
        double, name = self.double, str(task.message)
        if double.read_log is not None and isinstance(task, Task):
            with double.read_log.open("a") as file:
                file.write(f"{task.source.path}\n")
        if double.killer and double.killer in name:
            os.kill(os.getpid(), signal.SIGKILL)
        return UnreadableSource("vanished") if double.blind and double.blind in name else None


class Noting(Watching):
    """Writes the name of each operation into a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def at(self, name: str) -> None:
        with self.file.open("a") as file:
            file.write(f"{name}\n")


class GoesWhenLoose(Watching):
    """Does what `other` does, and lets UNFINISHED have its vectors from the first operation on loose ones."""

    def __init__(self, held: Path, other: Watching) -> None:
        self.held = held
        self.other = other

    def at(self, name: str) -> None:
        self.other.at(name)
        if "loose" in name:
            self.held.touch()


class Together(Watching):
    """Waits once this worker has a shard in its journal until another one has, too: neither does all the work."""

    def __init__(self, gate: Path) -> None:
        self.gate = gate
        self.has_shard = self.is_open = False

    def at(self, name: str) -> None:
        self.has_shard = self.has_shard or name == "step shard stored"
        if self.is_open or not self.has_shard or name != "step after journal":
            return
        self.is_open = True
        self.gate.mkdir(exist_ok=True)
        (self.gate / str(os.getpid())).touch()
        give_up_s = time.monotonic() + GIVEN_UP_S
        while len(list(self.gate.iterdir())) < 2 and time.monotonic() < give_up_s:
            time.sleep(0.01)


@dataclass
class _Workforce(Generic[H]):
    """So many workers, and another one for each that is lost."""

    count: int
    double: Double = field(default_factory=Double)
    least: int = 1
    wait_s: float = 120.0
    handles: list[H] = field(default_factory=list)
    leaving: set[str] = field(default_factory=set)

    @property
    def tools_there(self) -> Callable[..., Tools]:
        return self.double.tools

    def start(self, device: str) -> Self:
        self.wanted = self.count
        return self

    def arrived(self) -> list[H]:
        new = [self._new(len(self.handles) + number) for number in range(1, self.wanted + 1)]
        self.wanted = 0
        self.handles += new
        return new

    def draining(self) -> set[str]:
        """Those that are to leave, by their names; a test puts them there."""
        return self.leaving

    def replace(self) -> None:
        self.wanted += 1

    def _new(self, number: int) -> H:
        raise NotImplementedError


# ---- workers in threads


@dataclass
class Threads(_Workforce["ThreadHandle"]):
    """A workforce of threads. `chaos`: what happens to the messages; None: nothing."""

    chaos: random.Random | None = None
    losses_left: int = 1
    """Of chaos: two would be enough to blame a document."""
    sent_version: str | None = None
    bytes_by_method: Counter[str] = field(default_factory=Counter)

    def _new(self, number: int) -> ThreadHandle:
        return ThreadHandle(f"thread-{number}", self)

    def close(self) -> None:
        for handle in self.handles:
            handle.worker.call("stop", b"")
        for handle in self.handles:
            handle.end()


class ThreadHandle:
    """A worker in this process. Killing it makes it deaf, not dead: it works on, as after a wrong belief of Ray's."""

    def __init__(self, name: str, threads: Threads) -> None:
        self.name = name
        self.worker = Worker(wait_s=0.3)
        self.dead = False
        self._threads = threads
        self._calls = ThreadPoolExecutor(4, name)
        self._held: list[Any] = []
        self._late: list[Any] = []

    def call(self, method: str, message: bytes) -> Future[bytes]:
        return self._calls.submit(self._call, method, message)

    def _call(self, method: str, message: bytes) -> bytes:
        if self.dead:
            raise WorkerLost("the double is deaf")
        if method == "open" and self._threads.sent_version:
            message = pack((self._threads.sent_version, unpack(message)[1]))
        reply = self.worker.call(method, message)
        if self.dead:
            raise WorkerLost("the double became deaf")
        self._threads.bytes_by_method[method] += len(message) + len(reply)
        return self._disturbed(reply) if method == "collect" and self._threads.chaos else reply

    def _disturbed(self, reply: bytes) -> bytes:
        """Some answers come later, in another order, twice, or never: then the worker is taken for dead."""
        chaos = self._threads.chaos
        assert chaos is not None
        kind, collected = unpack(reply)
        if kind != "reply":
            return reply
        answers = [*collected.answers, *self._held]
        chaos.shuffle(answers)
        self._held = [answer for answer in answers if chaos.random() < 0.3 and not collected.ended]
        now = [answer for answer in answers if answer not in self._held]
        again = [answer for answer in self._late if chaos.random() < 0.5]
        self._late += now  # a repetition is not kept: there would be half as many again at every call
        if collected.answers and self._threads.losses_left and chaos.random() < 0.2:
            self._threads.losses_left -= 1
            self.dead = True
            raise WorkerLost("the double lost an answer")
        fields = {**vars(collected), "answers": (*now, *again)}
        return pack_reply(type(collected)(**fields))

    def kill(self) -> None:
        self.dead = True

    def end(self) -> None:
        if self.worker.thread is not None:
            self.worker.thread.join(30)
        self._calls.shutdown(wait=False)


# ---- workers in processes


@dataclass
class Processes(_Workforce["ProcessHandle"]):
    """A workforce of processes, each with a socket. Some may be forked before the run, which spares their start."""

    forked: list[ProcessHandle] = field(default_factory=list)

    def _new(self, number: int) -> ProcessHandle:
        return self.forked.pop() if self.forked else ProcessHandle(f"process-{number}")

    def close(self) -> None:
        for handle in [*self.handles, *self.forked]:
            if not handle.is_cut_off:
                handle.end()


class ProcessHandle:
    """`is_cut_off`: it cannot be reached, neither by a call nor to kill it; whoever cuts it off has to end it."""

    is_cut_off = False

    def __init__(self, name: str, *, fork: bool = False) -> None:
        self.name = name
        self._socket, theirs = socket.socketpair()
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._calls: dict[int, Future[bytes]] = {}
        self._gone = False
        with theirs:
            self.process = _Forked(theirs, self._socket) if fork else _spawned(theirs)
        self.receiver = threading.Thread(target=self._receive, daemon=True)
        self.receiver.start()

    def call(self, method: str, message: bytes) -> Future[bytes]:
        future: Future[bytes] = Future()
        with self._sending:
            number = next(self._numbers)
            self._calls[number] = future
            try:
                send_message(self._socket, pickle.dumps((number, method, message)))
            except OSError:
                self._gone = True
        if self._gone or self.is_cut_off:
            self._fail()
        return future

    def _receive(self) -> None:
        while (data := receive_message(self._socket)) is not None:
            number, reply = pickle.loads(data)
            if (call := self._calls.pop(number, None)) is not None:
                call.set_result(reply)
        self.lose("its process is gone")

    def lose(self, reason: str) -> None:
        self._gone = True
        self._fail(reason)

    def cut_off(self, reason: str) -> None:
        """Believe that it is gone, as Ray does of a machine that does not answer."""
        self.is_cut_off = True
        self._fail(reason)

    def collect(self) -> Collected:
        """What it has to say, once it can be reached again. Raises what ended it."""
        self.is_cut_off = False
        collected: Collected = unpack_reply(self.call("collect", b"").result(60))
        return collected

    @property
    def is_suspended(self) -> bool:
        with contextlib.suppress(OSError):  # it has ended
            return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return False

    def _fail(self, reason: str = "its process is gone") -> None:
        with self._sending:
            calls, self._calls = self._calls, {}
        for future in calls.values():
            future.set_exception(WorkerLost(reason))

    def kill(self) -> None:
        if not self.is_cut_off:
            self.process.kill()

    def end(self) -> None:
        """Wait for its process; nothing uses the socket any more."""
        self.process.kill()
        self.process.wait()
        self.receiver.join()
        self._socket.close()


def _spawned(theirs: socket.socket) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return spawn(__name__, "serve", theirs, stdin=subprocess.DEVNULL, output=2, environment=environment)


class _Forked:
    """A process as of Popen, forked from this one while it has one thread."""

    def __init__(self, theirs: socket.socket, ours: socket.socket) -> None:
        parent_pid = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            ours.close()
            try:
                serve(theirs.detach(), parent_pid)
            finally:
                os._exit(1)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def serve(channel: int, parent_pid: int) -> None:
    """The child's life: each call in a thread of its own."""
    die_with(parent_pid)
    parent = socket.socket(fileno=channel)
    worker, sending = Worker(), threading.Lock()

    def answer(number: int, method: str, message: bytes) -> None:
        reply = worker.call(method, message)
        with sending:
            send_message(parent, pickle.dumps((number, reply)))

    with ThreadPoolExecutor(4) as calls:
        while (data := receive_message(parent)) is not None:
            calls.submit(answer, *pickle.loads(data))
    os._exit(0)
