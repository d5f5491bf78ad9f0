"""A pool of reading processes: tasks in, one outcome a task out, whatever the files do to their readers.

In: a Work, the tasks and the limits. Out: (task, result) or (task, UnreadableSource), in the order they
finish; a crash, a hang or a memory bomb costs the one task it happened in. Not here: what a task is and how
it is read.

Each child (process.py) has one thread of ours that starts it, feeds it, watches it and puts another in its
place.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from embedcli.errors import UnreadableSource
from embedcli.reading.process import Child, Died, Hung, Limits, WorkFailed

__all__ = ["Limits", "Pool", "Returned", "Work", "WorkFailed"]

Task = TypeVar("Task")
Result = TypeVar("Result")
TaskIn = TypeVar("TaskIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)

Returned = tuple[Task, Result | UnreadableSource]

START_ATTEMPTS = 3


class Work(Protocol[TaskIn, ResultOut]):
    """What a child does; pickled into each child, so it is defined at the top of an importable module."""

    def start(self) -> None:
        """Imports and tokenizer loading, once a child; what it takes is not counted as a task's memory."""

    def __call__(self, task: TaskIn, beat: Callable[[int], None], *, with_forms: bool) -> ResultOut:
        """Do one task, with a `beat(page)` at each page; UnreadableSource and MemoryError are answers."""


class _Closing(Exception):
    """The pool is being closed: no new child."""


class Pool(Generic[Task, Result]):
    """Children that start at once and wait for `feed`; whoever takes results slowly makes them wait."""

    def __init__(
        self,
        work: Work[Any, Result],
        *,
        processes: int,
        limits: Limits,
        size_of: Callable[[Task], int] = lambda _: 0,
        message_of: Callable[[Task], Any] = lambda task: task,
    ) -> None:
        """`size_of` a task in bytes: the limits grow with it. `message_of` a task is what is pickled for the child."""
        self._work = pickle.dumps((work, limits))
        self._limits = limits
        self._size_of = size_of
        self._message_of = message_of
        # a watcher holds one more result while it waits for room: 2 x processes in all
        self._room = processes
        self._waiting: deque[Returned[Task, Result]] = deque()
        self._changed = threading.Condition()
        self._pulling = threading.Lock()
        self._tasks: Iterator[Task] | None = None
        self._closed = False
        self._children: set[Child] = set()
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="reader")
        self._watchers = [self._threads.submit(self._watch) for _ in range(processes)]
        for watcher in self._watchers:
            watcher.add_done_callback(self._watcher_ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def feed(self, tasks: Iterator[Task]) -> None:
        """Name the tasks, once; they are pulled one at a time by whichever child is free."""
        with self._changed:
            if self._tasks is not None:
                raise ValueError("a pool is fed once")
            self._tasks = tasks
            self._changed.notify_all()

    @property
    def done(self) -> bool:
        """Whether every outcome has been taken; never after a bug, which `get` raises."""
        ended = all(watcher.done() for watcher in self._watchers)
        return ended and not self._waiting and self._bug() is None

    def get(self, timeout: float | None) -> Returned[Task, Result] | None:
        """The next outcome; None: not in `timeout` seconds, or none to come. Raises a child's bug."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._bug() or self.done, timeout)
            bug = self._bug()
            if bug is not None:
                raise bug
            if not self._waiting:
                return None
            outcome = self._waiting.popleft()
            self._changed.notify_all()
            return outcome

    def close(self) -> None:
        """Kill what runs, drop what waits, and come back when nothing of it is left."""
        with self._changed:
            self._closed = True
            for child in self._children:
                child.kill()
            self._changed.notify_all()
        self._threads.shutdown(wait=True)
        self._waiting.clear()

    def _bug(self) -> BaseException | None:
        ended = (watcher for watcher in self._watchers if watcher.done())
        return next((bug for watcher in ended if (bug := watcher.exception()) is not None), None)

    def _watcher_ended(self, watcher: Future[None]) -> None:
        with self._changed:
            self._closed = self._closed or watcher.exception() is not None
            self._changed.notify_all()

    def _watch(self) -> None:
        """One thread's life. It starts its own children: a child dies with the thread that started it."""
        with contextlib.suppress(_Closing), _Seat(self._start_child, self._end_child) as seat:
            with self._changed:
                self._changed.wait_for(lambda: self._tasks is not None or self._closed)
            for task in self._pulled():
                self._deliver(task, seat.do(self._message_of(task), self._limits.of(self._size_of(task))))

    def _start_child(self) -> Child:
        if self._closed:
            raise _Closing
        child = Child(self._work, self._limits)
        with self._changed:
            self._children.add(child)
            if self._closed:
                child.kill()
        return child

    def _end_child(self, child: Child) -> None:
        with self._changed:
            self._children.discard(child)
        child.end()

    def _pulled(self) -> Iterator[Task]:
        while True:
            with self._pulling:
                if self._closed or self._tasks is None:
                    return
                try:
                    task = next(self._tasks)
                except StopIteration:
                    return
            yield task

    def _deliver(self, task: Task, reply: Result | UnreadableSource) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._room or self._closed)
            if not self._closed:
                self._waiting.append((task, reply))
                self._changed.notify_all()


class _Seat:
    """A place that always has a child in it, the next one already starting when one had to go."""

    def __init__(self, start_child: Callable[[], Child], end_child: Callable[[Child], None]) -> None:
        self._start_child = start_child
        self._end_child = end_child
        self._child = start_child()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._end_child(self._child)

    def do(self, task: object, limits: Limits) -> Any:
        """The reply to a task: tried again without form values if it hangs, never after a death."""
        detail = ""
        for with_forms in (True, False):
            self._wait_until_ready()
            try:
                reply, fat = self._child.ask(task, limits, with_forms=with_forms)
            except Hung as hung:
                detail = str(hung)
                self._replace()
                continue
            except Died as died:
                self._replace()
                return died.unreadable
            if fat:
                self._replace()
            return reply
        return UnreadableSource("timeout", detail)

    def _wait_until_ready(self) -> None:
        for attempt in range(START_ATTEMPTS):
            try:
                return self._child.wait_until_ready()
            except Hung as hung:
                raise WorkFailed(f"a reading process does not start: {hung}") from hung
            except Died as died:
                self._replace()
                if attempt + 1 == START_ATTEMPTS:
                    raise WorkFailed(f"a reading process dies at its start: {died.unreadable}") from died

    def _replace(self) -> None:
        self._end_child(self._child)
        self._child = self._start_child()
