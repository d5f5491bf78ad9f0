"""A worker of a cluster: a run that never publishes, over slices of somebody else's plan.

In: the calls of the coordinator (messages.py), on any thread. Out: replies; documents read, embedded and stored in a
folder of its own, named in the journal there before they are answered. One thread of its own does the work, so calls
return at once, or in the case of `collect` after WAIT_S.
Not here: the processes and threads around it, which Ray or a test starts (ray_transport.py).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from embedcli.cluster.answers import Answers
from embedcli.cluster.job import VERSION, Job
from embedcli.cluster.messages import Answer, Collected, Facts, Slice, pack_error, pack_reply, unpack
from embedcli.cluster.worker_run import open_run
from embedcli.cluster.writer import begin_writer
from embedcli.errors import EmbedcliError, Mismatch, Stopped
from embedcli.index.leftovers import Leftover
from embedcli.report import Report
from embedcli.run.begin_work import Work
from embedcli.run.outcome import outcome_of
from embedcli.run.pending import Ended
from embedcli.run.record import Run
from embedcli.run.stream import stream_tasks
from embedcli.run.tasks import Task

WAIT_S = 5.0
LOOK_S = 0.2


class Worker:
    """The calls. `last_asked_s`: when the coordinator asked last, by time.monotonic."""

    def __init__(self, *, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._out = _Out()
        self._offers: queue.SimpleQueue[Slice] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self.thread: threading.Thread | None = None
        self.last_asked_s = time.monotonic()

    def call(self, method: str, message: bytes) -> bytes:
        """One call of the coordinator. What it must know, an error or a bug, is the reply."""
        self.last_asked_s = time.monotonic()
        calls: dict[str, Callable[[bytes], object]] = {
            "open": self._open, "offer": self._offer, "collect": self._collect, "stop": self._stop,
        }  # fmt: skip
        try:
            return pack_reply(calls[method](message))
        except EmbedcliError as error:
            return pack_error(error)
        except _Bug as bug:
            return pack_error(str(bug))

    def _open(self, message: bytes) -> Facts:
        version, job = unpack(message)
        if version != VERSION:
            raise Mismatch(
                f"embedcli {VERSION} is installed there, the run is of embedcli {version}",
                "install the same version on every machine",
            )
        self.thread = threading.Thread(target=self._work, args=(unpack(job),), name="embedcli-worker", daemon=True)
        self.thread.start()
        return self._out.wait_for_facts()

    def _offer(self, message: bytes) -> None:
        self._offers.put(unpack(message))

    def _collect(self, _: bytes) -> Collected:
        return self._out.collect(self._wait_s)

    def _stop(self, _: bytes) -> None:
        self._stopping.set()

    def _work(self, job: Job) -> None:
        """The life of the worker's thread."""
        try:
            _Working(job, self._out, self._offers, self._stopping).work()
        except Stopped:
            pass
        except EmbedcliError as error:
            self._out.failure = error
        finally:
            self._out.end(sys.exception())


class _Bug(Exception):
    """The worker's thread ended by an exception that is no EmbedcliError; the text is its traceback."""


@dataclass
class _Out:
    """What the worker's thread leaves for the calls."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    facts: Facts | None = None
    answers: list[Answer] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    tokens: int = 0
    failure: EmbedcliError | _Bug | None = None
    ended: bool = False

    def say(self, line: str) -> None:
        self.lines.append(line)

    def ready(self, facts: Facts) -> None:
        with self.changed:
            self.facts = facts
            self.changed.notify_all()

    def answer(self, answers: list[Answer], tokens: int) -> None:
        with self.changed:
            self.tokens = tokens
            self.answers += answers
            if answers:
                self.changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        with self.changed:
            if error is not None:
                self.failure = _Bug("".join(traceback.format_exception(error)))
            self.ended = True
            self.changed.notify_all()

    def wait_for_facts(self) -> Facts:
        """Raises what ended the worker before it was ready."""
        with self.changed:
            self.changed.wait_for(lambda: self.facts is not None or self.ended)
            if self.failure is not None:
                raise self.failure
            if self.facts is None:
                raise Stopped(signal.SIGTERM)
            return self.facts

    def collect(self, timeout_s: float) -> Collected:
        """What has come since the last call. Raises what ended the worker, once the answers before it are taken."""
        with self.changed:
            self.changed.wait_for(lambda: self.answers or self.ended, timeout_s)
            if self.failure is not None and not self.answers:
                raise self.failure
            collected = Collected(tuple(self.answers), self.tokens, tuple(self.lines), self.ended and not self.failure)
            self.answers, self.lines = [], []
            return collected


class _Working:
    """The work itself: as ingest.py tells it, with slices for a plan and answers for a publish."""

    def __init__(self, job: Job, out: _Out, offers: queue.SimpleQueue[Slice], stopping: threading.Event) -> None:
        self._job = job
        self._out = out
        self._offers = offers
        self._stopping = stopping
        self._over = threading.Event()
        self._begun: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._number = job.header.number
        self._lent: set[str] = set()
        self._answers = Answers()
        self._offered: list[Slice] = []

    def work(self) -> None:
        """Until the run says stop. What is stored by then is answered, whatever ended it."""
        run = open_run(self._job, Report(quiet=True, log=self._out.say), self._stop_signal)
        work = begin_writer(run, self._job, self._answers)
        try:
            work.embedder.open()
            with work.checkpoints, stream_tasks(run, work, self._tasks()) as passes:
                try:
                    for documents in passes:
                        self._pass(run, work, documents)
                finally:
                    self._over.set()
        finally:
            self._out.answer(self._answers.take_rest(work.checkpoints.staging.shards), work.embedder.tokens)
            run.index.disk.leave(work.checkpoints.staging.folder)

    def _stop_signal(self) -> int | None:
        """With nothing in hand the work ends by itself, as there are no more tasks."""
        return signal.SIGTERM if self._stopping.is_set() and self._answers.any_open else None

    def _tasks(self) -> Iterator[Task]:
        """What the slices consist of, as they come; pulled by a thread of the pool."""
        while not self._over.is_set() and not self._stopping.is_set():
            with contextlib.suppress(queue.Empty):
                yield self._begun.get(timeout=LOOK_S)

    def _pass(self, run: Run, work: Work, documents: list[Ended]) -> None:
        if self._out.facts is None and work.tally.progress.embedding_since is not None:
            self._out.ready(_facts(run, work))
        for document in documents:
            finished = outcome_of(document, run.rules, run.fingerprints, changed_in=self._number)
            work.checkpoints.add(finished)
            self._answers.count(document, finished)
        self._answers.note_left(run.plan.gone, run.plan.cleared)
        run.plan.gone.clear()
        run.plan.cleared.clear()
        work.checkpoints.settle()
        self._out.answer(self._answers.take(work.checkpoints.staging.shards), work.embedder.tokens)
        work.checkpoints.write_if_due(is_awaited=self._answers.any_to_store)  # the engine does not wait for the disk
        self._begin_offered(run, work)

    def _begin_offered(self, run: Run, work: Work) -> None:
        """What is on its way for a slice that the run has closed is waited for: a source is read once at a time."""
        while not self._offers.empty():
            self._offered.append(self._offers.get())
        for new in list(self._offered):
            if self._answers.owes(new):
                continue
            self._offered.remove(new)
            self._number = new.number
            for name in set(new.lend) - self._lent:
                run.index.disk.update(run.index.staging / name)
                Leftover(run.index.staging / name, self._job.header).lend_unread(work.vectors)
            self._lent |= set(new.lend)
            self._answers.begin(new)
            for task in new.tasks:
                self._begun.put(task)


def _facts(run: Run, work: Work) -> Facts:
    assert work.embedder.reference is not None
    return Facts(
        writer=work.checkpoints.staging.folder.name,
        device=run.device,
        precisions=tuple(work.embedder.precisions),
        niceness=os.nice(0),
        probe=work.embedder.reference.vectors,
    )
