"""Checkpoints of one run: what is finished goes into its staging folder, by a writer thread, one after another.

In: finished documents; at each checkpoint also the vectors of those that are not whole yet. Out: the outcomes that are
stored, and a library that finds their vectors; StorageError where they cannot be written.
Not here: what the files hold (index/staging.py), which documents are whole (pending.py), when to publish (stream.py).
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from embedcli.index import shards
from embedcli.index.known_vectors import KnownVectors
from embedcli.index.outcomes import Outcome, Outcomes
from embedcli.index.staging import Finished, Loose, Staging
from embedcli.run.pending import Assembly, Pending

SMALL_BYTES = 256
"""What a document without rows counts."""


@dataclass(eq=False)
class _Loose:
    """Vectors stored at a checkpoint for documents that were not whole; kept until these are stored themselves."""

    staging: Staging
    stored: Loose
    documents: list[Pending]
    place: int = -1


@dataclass(frozen=True)
class _Writing:
    """A checkpoint on its way; `done` are the loose vectors that nobody needs once it is there."""

    stored: Future[list[Outcome]]
    loose: _Loose | None
    done: list[_Loose]


class Checkpoints:
    """A context: its thread ends with it. `outcomes` are of the generation in work; a publish goes on with others."""

    def __init__(self, staging: Staging, outcomes: Outcomes, assembly: Assembly, library: KnownVectors) -> None:
        self._assembly = assembly
        self._library = library
        self._writer = ThreadPoolExecutor(1, "writer")
        self._finished: list[Finished] = []
        self._finished_bytes = 0
        self._last = time.monotonic()
        self._writing: _Writing | None = None
        self._loose: list[_Loose] = []
        self._loose_number = 0
        self.go_on(staging, outcomes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.shutdown()

    def go_on(self, staging: Staging, outcomes: Outcomes) -> None:
        """From now on in this folder. Nothing may be under way."""
        self._staging = staging
        self._outcomes = outcomes
        self._searched = set(staging.shards)

    def add(self, item: Finished) -> None:
        self._finished.append(item)
        self._finished_bytes += item.rows.nbytes if item.rows is not None else SMALL_BYTES

    def due(self, *, every_bytes: int, every_s: float) -> bool:
        """Whether a checkpoint is due, by what is finished or by the time since the last one."""
        return self._finished_bytes >= every_bytes or time.monotonic() - self._last >= every_s

    def save(self) -> None:
        """A checkpoint, and only when it is on the disk back again."""
        self.checkpoint()
        self._wait()

    def checkpoint(self) -> None:
        """Hand what is finished to the writer thread; one checkpoint at a time."""
        self._wait()
        self._last = time.monotonic()
        finished, self._finished, self._finished_bytes = self._finished, [], 0
        done = [item for item in self._loose if not any(id(one) in self._assembly.pending for one in item.documents)]
        keys, vectors, documents_open = self._assembly.hand_over()
        loose = None
        if documents_open:
            self._loose_number += 1
            loose = _Loose(self._staging, Loose(f"loose-{self._loose_number:x}", keys, vectors), documents_open)
        if finished or loose:
            stored = self._writer.submit(self._staging.checkpoint, finished, loose.stored if loose else None)
            self._writing = _Writing(stored, loose, done)

    def _wait(self) -> None:
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        self._outcomes.add(writing.stored.result())
        for name in self._staging.shards.keys() - self._searched:
            self._library.add(self._staging.shards[name], one_of_many=True)
            self._searched.add(name)
        if writing.loose is not None:
            stored = writing.loose.stored
            writing.loose.place = self._library.add_loose(shards.sorted_keys(stored.keys), stored.vectors)
            self._loose.append(writing.loose)
        for item in writing.done:
            self._library.forget(item.place)
            item.staging.drop_loose(item.stored.name)
            self._loose.remove(item)
        self._assembly.stored()
