"""A pool of reading processes: tasks in, one result a task out, whatever the files do to their readers.

In: a Work, the tasks and the limits. Out: (task, result) or (task, UnreadableSource), in the order they finish. A
crash, a hang or a memory bomb costs only the task in which it happened. Each child (process.py) has one watcher, a
thread of ours that starts it, gives it tasks, watches it and replaces it.
Not here: what a task is and how it is read (rows.py).
"""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
    """What a child does. It is pickled into each child, so it is defined at the top of an importable module."""

    def start(self) -> None:
        """Import and load the tokenizer, once a child. The memory this takes counts for no task."""

    def __call__(self, task: TaskIn, beat: Callable[[int], None], *, with_forms: bool) -> ResultOut:
        """Do one task, with a `beat(page)` at each page. UnreadableSource and MemoryError are results, not bugs."""


class _Closing(Exception):
    """The pool is being closed: no child is started any more."""


class _Tasks(Generic[Task]):
    """The tasks, pulled one at a time: an iterator must not be entered by two threads at once."""

    def __init__(self) -> None:
        self._pulling = threading.Lock()
        self._iterator: Iterator[Task] | None = None

    @property
    def fed(self) -> bool:
        return self._iterator is not None

    def feed(self, tasks: Iterator[Task]) -> None:
        if self._iterator is not None:
            raise ValueError("a pool is fed once")
        self._iterator = tasks

    def pulled(self, closed: Callable[[], bool]) -> Iterator[Task]:
        """One task after the other, until there are no more or the pool is closed. Raises what the iterator raises."""
        while True:
            with self._pulling:
                if closed() or self._iterator is None:
                    return
                try:
                    task = next(self._iterator)
                except StopIteration:
                    return
            yield task


class _Results(Generic[Task, Result]):
    """The results that nobody has taken yet; a watcher with one more waits while there is no room for it."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._waiting: deque[Returned[Task, Result]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def has_room(self) -> bool:
        return len(self._waiting) < self._room

    def put(self, returned: Returned[Task, Result]) -> None:
        self._waiting.append(returned)

    def take(self) -> Returned[Task, Result]:
        return self._waiting.popleft()

    def clear(self) -> None:
        self._waiting.clear()


class Pool(Generic[Task, Result]):
    """Children that start at once and wait for `feed`; while the caller takes no results, they wait as well.

    `_changed` guards the results, the children and whether the pool is closed.
    """

    def __init__(
        self,
        work: Work[Any, Result],
        *,
        processes: int,
        limits: Limits,
        size_of: Callable[[Task], int] = lambda _: 0,
        message_of: Callable[[Task], Any] = lambda task: task,
        parts_of: Callable[[Task], Sequence[Any]] = lambda _: (),
    ) -> None:
        """`size_of` gives the size of a task in bytes, with which its limits grow; `message_of` what is pickled for the
        child. A task that kills its child is done again in parts, where `parts_of` gives such messages; the replies to
        them are tuples, which are joined."""
        self._work = pickle.dumps((work, limits))
        self._limits = limits
        self._size_of = size_of
        self._message_of = message_of
        self._parts_of = parts_of
        self._tasks: _Tasks[Task] = _Tasks()
        # each watcher has one more while it waits for room: 2 x processes in all
        self._results: _Results[Task, Result] = _Results(room=processes)
        self._changed = threading.Condition()
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
        """Give the pool its tasks, once; each child that becomes free gets the next one. ValueError the second time."""
        with self._changed:
            self._tasks.feed(tasks)
            self._changed.notify_all()

    @property
    def done(self) -> bool:
        """Whether the caller has taken every result; never after a bug, which `get` raises."""
        ended = all(watcher.done() for watcher in self._watchers)
        return ended and not self._results and self._bug() is None

    def get(self, timeout: float | None) -> Returned[Task, Result] | None:
        """The next result; None where none comes within `timeout` seconds, or none at all. Raises a child's bug."""
        with self._changed:
            self._changed.wait_for(lambda: self._results or self._bug() or self.done, timeout)
            bug = self._bug()
            if bug is not None:
                raise bug
            if not self._results:
                return None
            returned = self._results.take()
            self._changed.notify_all()
            return returned

    def close(self) -> None:
        """Kill the children, drop the results that wait, and return when nothing runs any more."""
        with self._changed:
            self._closed = True
            for child in self._children:
                child.kill()
            self._changed.notify_all()
        self._threads.shutdown(wait=True)
        self._results.clear()

    def _bug(self) -> BaseException | None:
        ended = (watcher for watcher in self._watchers if watcher.done())
        return next((bug for watcher in ended if (bug := watcher.exception()) is not None), None)

    def _watcher_ended(self, watcher: Future[None]) -> None:
        with self._changed:
            self._closed = self._closed or watcher.exception() is not None
            self._changed.notify_all()

    def _watch(self) -> None:
        """A watcher's life. It starts its own children: a child dies with the thread that started it."""
        with contextlib.suppress(_Closing), _Seat(self._start_child, self._end_child) as seat:
            with self._changed:
                self._changed.wait_for(lambda: self._tasks.fed or self._closed)
            for task in self._tasks.pulled(lambda: self._closed):
                self._deliver(task, self._do(seat, task))

    def _do(self, seat: _Seat, task: Task) -> Any:
        limits = self._limits.of(self._size_of(task))
        reply = seat.do(self._message_of(task), limits)
        parts = self._parts_of(task) if isinstance(reply, UnreadableSource) else ()
        if not parts:
            return reply
        replies = (seat.do(part, limits) for part in parts)
        return tuple(one if isinstance(one, UnreadableSource) else one[0] for one in replies)

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

    def _deliver(self, task: Task, reply: Result | UnreadableSource) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._results.has_room or self._closed)
            if not self._closed:
                self._results.put((task, reply))
                self._changed.notify_all()


class _Seat:
    """A watcher's child, and the next one, already starting, as soon as that child had to go."""

    def __init__(self, start_child: Callable[[], Child], end_child: Callable[[Child], None]) -> None:
        self._start_child = start_child
        self._end_child = end_child
        self._child = start_child()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._end_child(self._child)

    def do(self, task: object, limits: Limits) -> Any:
        """The reply to a task. One that hangs is tried again without form values; one that kills its child is not."""
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
