"""Which sources are given to which worker, and what happens when a worker is lost or late.

In: the sources of the plan, in walk order, and what becomes of the slices that were given away. Out: slices, each small
enough that losing it costs seconds; the sources that took their workers with them.
Not here: reaching a worker (crew.py), what is done with an answer (coordinator.py).
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median

from embedcli.cluster.messages import Slice
from embedcli.records import SourceKey
from embedcli.run.looking.gone import Moved
from embedcli.run.pace.remaining import DEFAULT_RATIO, RATIOS, known_tokens
from embedcli.run.tasks import Task

FIRST_DOCUMENTS = 64
"""How many documents the first slice of a worker has at most."""

MOST_DOCUMENTS = 1024
"""The same of a worker that has shown how fast it is: 64 small ones last an eighth of a second on a fast card."""

SHORT_S = 1.0
"""After a slice that was answered sooner than this after it was given away, waiting behind another one included, the
next one of that worker may have twice as many documents."""

MOST_BYTES = 64 << 20
MOST_S = 20.0
"""How long the engine of a worker may have work with one slice, by the speed of the last ones."""

OUTSTANDING = 2
"""Slices that a worker has at a time: its engine does not wait at the end of one."""

TAIL = 4
"""The last slices are this many times smaller than a worker's share of the rest: nobody waits for one long slice."""

CUT_INTO = 8
"""A slice that lost its worker is cut in so many, a large one in the square root of its sources: one source of 64 that
kills workers is found after three, one of 1,024 after four, where halves would take seven and eleven."""

LOST_LIMIT = 2
LATE = 3.0


@dataclass
class _Waiting:
    """Sources to be given away again. `lost`: how many workers were lost with them."""

    tasks: tuple[Task, ...]
    lost: int = 0
    lend: tuple[str, ...] = ()


@dataclass
class _Out:
    """A slice that is with workers: since when with each of them."""

    slice: Slice
    lost: int
    since_s: dict[str, float] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        return sum(map(weight, self.slice.tasks))


class Slices:
    """The slices of one run. Ids are never used twice, so a late answer finds its slice closed."""

    def __init__(
        self,
        tasks: Iterator[Task],
        *,
        documents: int,
        size_bytes: int,
        moved: Mapping[SourceKey, Moved],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`documents` and `size_bytes` are those of all tasks."""
        self._rest = _Rest(tasks, documents, size_bytes)
        self._moved = moved
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._out: dict[int, _Out] = {}
        self._ids = itertools.count(1)
        self._pace = _Pace()

    @property
    def done(self) -> bool:
        return not self._out and not self._waiting and not self._rest.any

    def next_for(self, worker: str, *, workers: int, number: int) -> Slice | None:
        """What this worker gets now, of so many; None where it has enough, or nothing is left.

        What has lost a worker is given away alone: else it would be blamed for the death that another slice causes.
        """
        has = [out for out in self._out.values() if worker in out.since_s]
        if len(has) >= OUTSTANDING or any(out.lost for out in has):
            return None
        out = self._again(alone=not has, number=number) or self._fresh(worker, workers, number)
        if out is None and not has:
            out = self._late()
        if out is None:
            return None
        self._out[out.slice.id] = out
        out.since_s[worker] = self._clock()
        return out.slice

    def _again(self, *, alone: bool, number: int) -> _Out | None:
        for waiting in self._waiting:
            if alone or not waiting.lost:
                self._waiting.remove(waiting)
                return _Out(self._slice(waiting.tasks, number, waiting.lend), waiting.lost)
        return None

    def _fresh(self, worker: str, workers: int, number: int) -> _Out | None:
        tasks = self._rest.cut(workers, self._pace.most_documents(worker), self._pace.most_weight)
        return _Out(self._slice(tasks, number), lost=0) if tasks else None

    def _late(self) -> _Out | None:
        """The slice that is out for the longest time, if one worker has it and takes too long."""
        now_s = self._clock()
        late = [
            (since_s, out)
            for out in self._out.values()
            if len(out.since_s) == 1 and not out.lost
            for since_s in out.since_s.values()
            if self._pace.is_late(out.weight, now_s - since_s)
        ]
        return min(late, key=lambda pair: pair[0])[1] if late else None

    def _slice(self, tasks: tuple[Task, ...], number: int, lend: tuple[str, ...] = ()) -> Slice:
        moved = {task.key: self._moved[task.key] for task in tasks if task.key in self._moved}
        return Slice(next(self._ids), number, tasks, moved, lend)

    # ---- what becomes of them

    def tasks_of(self, slice_id: int) -> dict[SourceKey, Task]:
        """The sources of a slice that is out; none where it is closed."""
        out = self._out.get(slice_id)
        return {task.key: task for task in out.slice.tasks} if out else {}

    def answer(
        self, worker: str, slice_id: int, ended: set[SourceKey], *, writer: str = ""
    ) -> tuple[Task, ...] | None:  # fmt: skip
        """A worker has answered for these sources of a slice: their tasks, or None where it is closed already. What it
        has not ended is given away again, with the vectors that it stored as `writer`."""
        out = self._out.pop(slice_id, None)
        if out is None:
            return None
        done = tuple(task for task in out.slice.tasks if task.key in ended)
        left = tuple(task for task in out.slice.tasks if task.key not in ended)
        if left:
            self._waiting.append(_Waiting(left, out.lost, _lent(out, writer)))
        elif worker in out.since_s:
            self._pace.note(worker, out.since_s[worker], self._clock(), out.weight, len(out.slice.tasks))
        return done

    def drop(self, worker: str) -> None:
        """A worker has left without fault of its slices: they are given away again, unless another one has them."""
        for out in self._of(worker):
            self._waiting.append(_Waiting(out.slice.tasks, out.lost, out.slice.lend))

    def alone_with(self, worker: str) -> list[Task]:
        """The sources that this worker has and no other."""
        return [task for out in self._out.values() if out.since_s.keys() == {worker} for task in out.slice.tasks]

    def lose(
        self, worker: str, writer: str, done: Collection[SourceKey], *, is_blamed: bool = True
    ) -> list[Task]:  # fmt: skip
        """A worker was lost with its slices: what it had not `done` of them is cut smaller and given away again, and
        whoever gets it may take the vectors that it stored as `writer`. Returns sources that were alone with workers
        that were lost. `is_blamed`: whether what it had may be why."""
        guilty: list[Task] = []
        for out in self._of(worker):
            tasks, lost = tuple(task for task in out.slice.tasks if task.key not in done), out.lost + is_blamed
            if not tasks:
                continue
            if is_blamed and len(tasks) == 1 and lost >= LOST_LIMIT:
                guilty += tasks
                continue
            size = -(-len(tasks) // max(CUT_INTO, math.isqrt(len(tasks))))
            parts = [tasks[start : start + size] for start in range(0, len(tasks), size)]
            self._waiting.extend(_Waiting(part, lost, _lent(out, writer)) for part in parts)
        return guilty

    def _of(self, worker: str) -> list[_Out]:
        """Close the slices that only this worker has, and forget that it has others."""
        its = [out for out in self._out.values() if worker in out.since_s]
        for out in its:
            del out.since_s[worker]
        alone = [out for out in its if not out.since_s]
        for out in alone:
            del self._out[out.slice.id]
        return alone

    def close_all(self) -> None:
        """Give every slice away again: what comes back of the present ones is of a generation that is published."""
        self._waiting.extendleft(_Waiting(out.slice.tasks, out.lost, out.slice.lend) for out in self._out.values())
        self._out.clear()


def _lent(out: _Out, writer: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, [*out.slice.lend, writer])))


class _Rest:
    """The sources that were never given away."""

    def __init__(self, tasks: Iterator[Task], documents: int, size_bytes: int) -> None:
        self._tasks = tasks
        self._documents = documents
        self._bytes = size_bytes
        self._next = next(tasks, None)

    @property
    def any(self) -> bool:
        return self._next is not None

    def cut(self, workers: int, most_documents: int, most_weight: float) -> tuple[Task, ...]:
        """Consecutive sources: copies and versions of a document stand side by side, and share vectors."""
        share = TAIL * max(1, workers)
        most = max(1, min(most_documents, self._documents // share))
        most_bytes = min(MOST_BYTES, max(1, self._bytes // share))
        taken: list[Task] = []
        size_bytes, heavy = 0, 0.0
        while (task := self._next) is not None and len(taken) < most:
            size_bytes, heavy = size_bytes + task.size_bytes, heavy + weight(task)
            if taken and (size_bytes > most_bytes or heavy > most_weight):
                break
            taken.append(task)
            self._next = next(self._tasks, None)
        self._documents -= len(taken)
        self._bytes -= sum(task.size_bytes for task in taken)
        return tuple(taken)


class _Pace:
    """How long the last slices took for each token that they were expected to have, and who is fast."""

    KEPT = 64

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=self.KEPT)
        self._answered_s: dict[str, float] = {}
        self._most_documents: dict[str, int] = {}

    def note(self, worker: str, since_s: float, now_s: float, expected: float, documents: int) -> None:
        """A slice that waited behind another one of the same worker is counted from the answer to that one."""
        self._rates.append((now_s - max(since_s, self._answered_s.get(worker, since_s))) / expected)
        self._answered_s[worker] = now_s
        if now_s - since_s < SHORT_S:
            most = max(self.most_documents(worker), 2 * documents)
            self._most_documents[worker] = min(MOST_DOCUMENTS, most)

    def most_documents(self, worker: str) -> int:
        """Of the next slice of this worker. One fast slice may have been of copies: it only doubles what comes next."""
        return self._most_documents.get(worker, FIRST_DOCUMENTS)

    @property
    def most_weight(self) -> float:
        return MOST_S / max(median(self._rates), 1e-9) if self._rates else math.inf

    def is_late(self, expected: float, age_s: float) -> bool:
        return bool(self._rates) and age_s > LATE * OUTSTANDING * max(1.0, expected * median(self._rates))


def weight(task: Task) -> float:
    """How many tokens a source is expected to have."""
    return max(1.0, known_tokens(task) or task.size_bytes * RATIOS.get(task.source.suffix, DEFAULT_RATIO))
