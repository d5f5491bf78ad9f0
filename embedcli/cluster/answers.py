"""What a worker owes: the slices that it was offered, and what is stored of them.

In: slices; each source and each document inside one as it ends; each outcome once it is durable. Out: an Answer for a
slice when all of its sources are stored, and at the end for what is left, with the sources that are whole.
Not here: reading, embedding and storing them (worker.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import pyarrow as pa

from embedcli.cluster.messages import Answer, Slice, owner_of
from embedcli.index.outcomes import Outcomes, Stored
from embedcli.index.shards import Shard
from embedcli.index.staging import Finished, FinishedRecords
from embedcli.records import SourceKey
from embedcli.report import Progress
from embedcli.run.pending import Ended
from embedcli.run.tally import Tally


@dataclass
class _Owed:
    """A source of a slice, with the documents inside it."""

    slice_id: int
    tally: Tally
    stored: Stored
    gone: set[SourceKey]
    cleared: set[SourceKey]


@dataclass
class _Open:
    """A slice, and which of its sources have not ended, or are not on the disk: their own outcomes come last."""

    slice: Slice
    unended: set[SourceKey]
    unstored: set[SourceKey]


class Answers(Outcomes):
    """Stands where a run keeps its outcomes: a checkpoint adds them when they are on the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._owed: dict[SourceKey, _Owed] = {}
        self._open: dict[int, _Open] = {}

    def owes(self, new: Slice) -> bool:
        """Whether a source of this slice is on its way already, for a slice that the run has closed."""
        return any(task.key in self._owed for task in new.tasks)

    def begin(self, new: Slice) -> None:
        """A slice was offered of which nothing is owed."""
        for task in new.tasks:
            self._owed[task.key] = _Owed(new.id, Tally(Progress(), set(), new.moved), Stored([], []), set(), set())
        self._open[new.id] = _Open(new, {task.key for task in new.tasks}, {task.key for task in new.tasks})

    @property
    def any_open(self) -> bool:
        return bool(self._open)

    @property
    def any_to_store(self) -> bool:
        """Whether only a checkpoint keeps a slice from being answered."""
        return any(not one.unended for one in self._open.values())

    def count(self, ended: Ended, finished: Finished | FinishedRecords) -> None:
        """A source, a document inside one, or some records have ended; they are not stored yet."""
        key = finished.outcome.key if isinstance(finished, Finished) else _container_of(finished.documents)
        if (owed := owner_of(key, self._owed)) is not None:
            owed.tally.add(ended, finished)
            if isinstance(finished, Finished):
                self._open[owed.slice_id].unended.discard(key)

    def note_left(self, gone: Set[SourceKey], cleared: Set[SourceKey]) -> None:
        """Documents that have left the source in which they were, and what stood for lines that could not be read."""
        for key in gone | cleared:
            if (owed := owner_of(key, self._owed)) is not None:
                owed.gone |= gone & {key}
                owed.cleared |= cleared & {key}

    def store(self, stored: Stored) -> None:
        for outcome in stored.outcomes:
            if (owed := owner_of(outcome.key, self._owed)) is not None:
                owed.stored.outcomes.append(outcome)
                self._open[owed.slice_id].unstored.discard(outcome.key)
        for table in stored.records:
            if (owed := owner_of(_container_of(table), self._owed)) is not None:
                owed.stored.records.append(table)

    def take(self, shards: Mapping[str, Shard]) -> list[Answer]:
        """The answers for the slices that are whole; they are owed no more. `shards`: those that are stored."""
        return [self._answer(one, shards) for one in list(self._open.values()) if not one.unstored]

    def take_rest(self, shards: Mapping[str, Shard]) -> list[Answer]:
        """At the end: what is stored of each slice that is open."""
        return [self._answer(one, shards) for one in list(self._open.values())]

    def _answer(self, one: _Open, shards: Mapping[str, Shard]) -> Answer:
        del self._open[one.slice.id]
        tally, stored = Tally(Progress(), set(), {}), Stored([], [])
        gone, cleared = set[SourceKey](), set[SourceKey]()
        for task in one.slice.tasks:
            part = self._owed.pop(task.key)
            if task.key not in one.unstored:
                tally.take(part.tally)
                stored.outcomes.extend(part.stored.outcomes)
                stored.records.extend(part.stored.records)
                gone |= part.gone
                cleared |= part.cleared
        found = tuple(shards[name] for name in sorted(stored.shards))
        return Answer(one.slice.id, stored, found, tally, frozenset(gone), frozenset(cleared))


def _container_of(table: pa.Table) -> SourceKey:
    """The source in which all records of a table lie."""
    return table.column("root")[0].as_py(), table.column("container")[0].as_py()
