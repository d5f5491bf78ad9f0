"""The sources that a run has to read, with what the index knows of each: up to millions of them.

In: what the plan adds, in walk order. Out: Tasks in the same order, once or again.
Not here: which sources those are (plan.py), reading them (reading/pool.py, reading/rows.py).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.index import documents
from embedcli.records import Record, Records, Source, SourceKey, Stat, digest

if TYPE_CHECKING:
    from embedcli.errors import UnreadableSource
    from embedcli.reading.splitter import Whole

NEVER = "never"
"""In place of what `tried()` tells: no file has this stat, so the source is read as soon as it is seen."""


class LastSeen(NamedTuple):
    """What the index knows of a source: `path`, then columns of documents.parquet, `lacking` and `row`."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str | None
    read_fingerprint: str
    status: str
    reason: str | None
    attempts: int
    tried: str | None
    """For a stale source: the digest of its stat at the last failed attempt (see `tried()` below)."""
    tokens: int
    rows: int
    lacking: int
    """Pages and chunks that its last good reading left out."""
    row: int
    """Where it stands in the table that it was taken from."""
    members: int = 0
    """Documents inside it, and inside those."""

    @property
    def holds(self) -> bool:
        """Whether the index has text of it."""
        return self.rows > 0 or self.members > 0

    @property
    def stat(self) -> Stat:
        return Stat(self.size, self.mtime_ns, self.ctime_ns, self.inode)

    def is_of(self, stat: Stat | None) -> bool:
        """Whether the file with this stat is the file last seen. A stale source is compared by `tried`, since `stat` is
        that of its last good reading."""
        return self.tried == tried(stat) if self.status == "stale" else self.stat == stat


@dataclass(frozen=True, slots=True)
class Task:
    """A source to read, and what the index knew of it (None: it is new)."""

    source: Source
    prior: LastSeen | None

    @property
    def key(self) -> SourceKey:
        return self.source.key

    @property
    def message(self) -> Source:
        """What its reading process is told."""
        return self.source

    @property
    def size_bytes(self) -> int:
        return self.source.stat.size if self.source.stat else 0

    @property
    def parts(self) -> tuple[Source, ...]:
        return ()


@dataclass(frozen=True)
class RecordTask:
    """Some records of a container to read, and what the index knew of each."""

    container: Task
    records: tuple[Record, ...]
    priors: tuple[LastSeen | None, ...]

    def task(self, place: int) -> Task:
        """The task of one record."""
        return Task(self.container.source.record(self.records[place]), self.priors[place])

    @property
    def message(self) -> Records:
        return Records(self.container.source, self.records)

    @property
    def size_bytes(self) -> int:
        return sum(record.size_bytes for record in self.records)

    @property
    def parts(self) -> tuple[Records, ...]:
        """The same, record by record: one that kills its reader costs itself."""
        return tuple(Records(self.container.source, (record,)) for record in self.records)


@dataclass(frozen=True)
class ContainerEnd:
    """Follows the records of a container: what was found in all, or why it could not be read to its end.

    `batches`: how many RecordTasks there were; `left`: known documents that are not in it any more, out of `known`;
    `cleared`: what stood for lines that could not be read and that are there no more, or elsewhere; `unchanged`: how
    many documents are as they were.
    """

    container: Task
    result: Whole | UnreadableSource
    batches: int
    left: frozenset[SourceKey] = frozenset()
    cleared: frozenset[SourceKey] = frozenset()
    known: int = 0
    unchanged: int = 0
    message: None = None
    size_bytes: int = 0
    parts: tuple[()] = ()


AnyTask = Task | RecordTask | ContainerEnd


@dataclass(frozen=True)
class Contained:
    """A source without rows of its own that has been read to its end, and all that is in it with it."""

    task: Task
    stat: Stat
    sha256: str
    left_out: int = 0
    """Lines that cannot be read and are not named, and the most frequent `reason`."""
    reason: str | None = None
    unchanged: int = 0
    """Documents inside it that are as they were: they have no outcome of their own."""
    reused: int = 0
    embedded: int = 0
    replaced: int = 0


@dataclass(frozen=True)
class Refused:
    """A source that could not become a document; `reason` is one of records.REASONS."""

    task: Task
    reason: str
    sha256: str | None = None
    unchanged: int = 0
    reused: int = 0
    embedded: int = 0
    replaced: int = 0


def tried(stat: Stat | None) -> str | None:
    """The digest of the stat of a file that could not be read: it changes whenever the file does."""
    return None if stat is None else digest(stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode)


class TaskList:
    """Tasks in walk order, kept as Arrow batches: a million of them is about 150 MB.

    What was known of a source is not copied: a task holds the row of its LastSeen in `seen`.
    """

    _BATCH = 8192
    _SCHEMA = pa.schema(
        [
            ("root", pa.string()),
            ("path", pa.string()),
            ("file", pa.binary()),
            ("stat", pa.list_(pa.int64(), 4)),
            ("row", pa.int64()),
            ("address", pa.string()),
        ]
    )

    def __init__(self, seen: pa.Table) -> None:
        """`seen`: the table that LastSeen.row counts in (see `last_seen`)."""
        self.seen = seen
        self._batches: list[pa.RecordBatch] = []
        self._open: list[tuple[str, str, bytes, list[int], int | None, str | None]] = []
        self.size_bytes = 0
        self.text_bytes = 0
        self.count = 0
        self.new = 0
        self.known_tokens = 0
        """Of sources that were read before, as they were then."""
        self.new_bytes = Counter[str]()
        """Of the others, by kind."""

    def add(self, source: Source, prior: LastSeen | None) -> None:
        stat = source.stat
        assert stat is not None
        numbers = [stat.size, stat.mtime_ns, stat.ctime_ns, _signed(stat.inode)]
        row = None if prior is None else prior.row
        self._open.append((source.root_id, source.path, os.fsencode(source.file), numbers, row, source.address))
        self.count += 1
        self.new += prior is None
        if prior is not None and prior.tokens:
            self.known_tokens += prior.tokens
        else:
            self.new_bytes[source.suffix] += stat.size
        self.size_bytes += stat.size
        self.text_bytes += stat.size // (20 if source.path.lower().endswith(".pdf") else 1)  # mostly fonts and pictures
        if len(self._open) == self._BATCH:
            self._close_batch()

    def _close_batch(self) -> None:
        columns = zip(zip(*self._open, strict=True), self._SCHEMA.types, strict=True)
        self._batches.append(pa.record_batch([pa.array(values, kind) for values, kind in columns], schema=self._SCHEMA))
        self._open = []

    def __iter__(self) -> Iterator[Task]:
        if self._open:
            self._close_batch()
        for batch in self._batches:
            known = documents.taken(self.seen, np.asarray(batch.column("row").drop_null()))
            priors = last_seen_rows(known)
            rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
            for root_id, path, file, (size, mtime, ctime, inode), row, address in rows:
                stat = Stat(size, mtime, ctime, inode % (1 << 64))
                source = Source(root_id, path, os.fsdecode(file), stat, address=address)
                yield Task(source, None if row is None else next(priors))


def last_seen(table: pa.Table, counts: documents.MemberCounts) -> pa.Table:
    """The columns of LastSeen, a row for each document of `table`, in its order. `counts`: of the whole index."""
    lacking = pc.add(table.column("pages_skipped"), pc.list_value_length(table.column("missing")))
    rows = pa.array(np.arange(table.num_rows, dtype=np.int64))
    members = pa.array(counts.of(table))
    known = table.append_column("lacking", lacking).append_column("row", rows).append_column("members", members)
    return known.select(LastSeen._fields)


def last_seen_rows(table: pa.Table) -> Iterator[LastSeen]:
    """The rows of a table with the columns of LastSeen."""
    for batch in table.to_batches(max_chunksize=8192):
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield LastSeen(*values)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
