"""Checkpoints of one run: what is finished goes into its staging folder, by a writer thread, one after another.

In: finished documents; at each checkpoint also the vectors of those that are not whole yet. Out: the outcomes that are
stored, and a library that finds their vectors; StorageError where they cannot be written.
Not here: what the files hold (index/staging.py), which documents are whole (pending.py), when to publish (stream.py).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from embedcli.errors import EngineError, Stopped
from embedcli.index import shards
from embedcli.index.known_vectors import KnownVectors
from embedcli.index.outcomes import Outcomes, Stored
from embedcli.index.shards import Shard
from embedcli.index.staging import Finished, FinishedRecords, Loose, Staging
from embedcli.index.tables import mapped
from embedcli.run.pending import Chunks, PendingDocuments

FIRST_AFTER_S = 10.0
SMALL_BYTES = 256
"""How many bytes a document without rows counts."""


@dataclass(eq=False)
class _Loose:
    """Vectors stored at a checkpoint for documents that were not whole; kept until these are stored themselves."""

    staging: Staging
    stored: Loose
    documents: list[Chunks]
    place: int = -1


@dataclass(frozen=True)
class _Writing:
    """A checkpoint that is being written; `done` are the loose vectors that nobody needs once it is durable."""

    stored: Future[Stored]
    loose: _Loose | None
    done: list[_Loose]


class Rhythm:
    """When a checkpoint is due: by the bytes that are finished, or by the time for which something has not been stored.

    The first one comes early: a run that is killed in its first minute must not have worked for nothing.
    """

    def __init__(self, *, every_bytes: int, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_bytes = every_bytes
        self._every_s = every_s
        self._clock = clock
        self._wait_s = min(FIRST_AFTER_S, every_s)
        self._since_s: float | None = None

    def written(self) -> None:
        """Note that everything finished so far is stored, or being written."""
        self._wait_s, self._since_s = self._every_s, None

    def is_due(self, finished_bytes: int, *, anything: bool) -> bool:
        """`anything`: whether there is something to store. The time runs from the first call that says so."""
        if not anything:
            return False
        self._since_s = self._clock() if self._since_s is None else self._since_s
        return finished_bytes >= self._every_bytes or self._clock() - self._since_s >= self._wait_s


class Checkpoints:
    """A context: it ends with a last checkpoint where the run ended well, was stopped, or lost its engine.

    `outcomes` are those of the generation in work; after a publish on the way the run goes on with others.
    """

    def __init__(
        self,
        staging: Staging,
        outcomes: Outcomes,
        pending: PendingDocuments,
        vectors: KnownVectors,
        *,
        every_bytes: int,
        every_s: float,
    ) -> None:
        self._pending = pending
        self._vectors = vectors
        self._rhythm = Rhythm(every_bytes=every_bytes, every_s=every_s)
        self._writer = ThreadPoolExecutor(1, "writer")
        self._finished: list[Finished | FinishedRecords] = []
        self._finished_bytes = 0
        self._writing: _Writing | None = None
        self._loose: list[_Loose] = []
        self._loose_names = itertools.count(1)
        self.go_on(staging, outcomes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None or issubclass(kind, Stopped | EngineError):
                self.save()
        finally:
            self._writer.shutdown()

    @property
    def number(self) -> int:
        """The number of the generation in work."""
        return self.staging.header.number

    def go_on(self, staging: Staging, outcomes: Outcomes) -> None:
        """Write into this folder from now on. No checkpoint may be on its way."""
        self.staging = staging
        self.outcomes = outcomes
        self._searched = set(staging.shards)

    def add(self, item: Finished | FinishedRecords) -> None:
        self._finished.append(item)
        self._finished_bytes += item.rows.nbytes if item.rows is not None else SMALL_BYTES

    def adopt(self, stored: Stored, found: Mapping[str, Shard]) -> None:
        """Take over what a worker of a cluster has stored: its shards are linked and named. Raises StorageError."""
        self._wait()  # one writes the journal at a time
        self.staging.adopt(stored, found)
        self.outcomes.store(stored)

    def write_if_due(self, *, is_awaited: bool = False) -> None:
        """Hand what is finished to the writer thread where a checkpoint is due; where it `is_awaited`, as soon as the
        one before it is durable. Does not wait for the disk, unless a checkpoint is due before the last one is written.
        """
        anything = bool(self._finished) or self._pending.has_fresh
        is_due = self._rhythm.is_due(self._finished_bytes, anything=anything)
        if is_due or (is_awaited and anything and self._writing is None):
            self._write()

    def settle(self) -> None:
        """Count as stored what is durable by now. Raises StorageError where it could not be written."""
        if self._writing is not None and self._writing.stored.done():
            self._wait()

    def save(self) -> None:
        """Write a checkpoint and return when it is durable. Raises StorageError."""
        self._write()
        self._wait()

    def _write(self) -> None:
        """Hand what is finished to the writer thread; one checkpoint at a time."""
        self._wait()
        mapped.give_back()  # what was known of records that changed
        self._rhythm.written()
        finished, self._finished, self._finished_bytes = self._finished, [], 0
        done = [item for item in self._loose if not any(map(self._pending.waits, item.documents))]
        keys, vectors, documents_open = self._pending.hand_over()
        loose = None
        if documents_open:
            loose = _Loose(self.staging, Loose(f"loose-{next(self._loose_names):x}", keys, vectors), documents_open)
        if finished or loose:
            stored = self._writer.submit(self.staging.checkpoint, finished, loose.stored if loose else None)
            self._writing = _Writing(stored, loose, done)

    def _wait(self) -> None:
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        self.outcomes.store(writing.stored.result())
        for name in self.staging.shards.keys() - self._searched:
            self._vectors.add(self.staging.shards[name], one_of_many=True)
            self._searched.add(name)
        if writing.loose is not None:
            stored = writing.loose.stored
            writing.loose.place = self._vectors.add_loose(shards.sorted_keys(stored.keys), stored.vectors)
            self._loose.append(writing.loose)
        for item in writing.done:
            self._vectors.forget(item.place)
            item.staging.drop_loose(item.stored.name)
            self._loose.remove(item)
        self._pending.stored()
