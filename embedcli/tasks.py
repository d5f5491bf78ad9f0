"""Sources to read tonight, with what yesterday's table says of them: a million of them at a time.

In: what the plan adds, in walk order. Out: Tasks in the same order, once or again.
Not here: which sources those are (plan.py), reading them (workers.py, reading.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from embedcli.documents import Key
from embedcli.records import Source, Stat, digest, printable


class Prior(NamedTuple):
    """What the table of yesterday says of a source: `path`, then columns of documents.parquet and `lacking`."""

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
    """Of a stale one: see `tried`."""
    rows: int
    lacking: int
    """Pages and chunks that its last good reading left out."""

    @property
    def stat(self) -> Stat:
        return Stat(self.size, self.mtime_ns, self.ctime_ns, self.inode)

    def is_of(self, stat: Stat | None) -> bool:
        """Whether it was said of the file of this stat. The stat of a stale one is that of its last good reading."""
        return self.tried == tried(stat) if self.status == "stale" else self.stat == stat


@dataclass(frozen=True, slots=True)
class Task:
    """A source to read, and what was known of it (None: it is new)."""

    source: Source
    uri: str
    prior: Prior | None

    @property
    def key(self) -> Key:
        return (self.source.root_id, self.source.path)


def tried(stat: Stat | None) -> str | None:
    """The digest of the stat of a file that could not be read: as long as it is the same, so is the file."""
    return None if stat is None else digest(stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode)


class TaskList:
    """Tasks in walk order, kept as Arrow batches: a million of them is about 200 MB."""

    _BATCH = 8192
    _SCHEMA = pa.schema(
        [
            ("root", pa.string()),
            ("path", pa.string()),
            ("file", pa.binary()),
            ("stat", pa.list_(pa.int64(), 4)),
            ("prior", pa.list_(pa.string())),
        ]
    )

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._open: list[tuple[str, str, bytes, list[int], list[str | None] | None]] = []
        self.size_bytes = 0
        self.text_bytes = 0
        self.count = 0

    def add(self, source: Source, prior: Prior | None) -> None:
        stat = source.stat
        assert stat is not None
        numbers = [stat.size, stat.mtime_ns, stat.ctime_ns, _signed(stat.inode)]
        known = None if prior is None else [None if value is None else str(value) for value in prior[1:]]
        self._open.append((source.root_id, source.path, os.fsencode(source.file), numbers, known))
        self.count += 1
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
            rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
            for root_id, path, file, (size, mtime, ctime, inode), known in rows:
                stat = Stat(size, mtime, ctime, inode % (1 << 64))
                source = Source(root_id, path, os.fsdecode(file), stat)
                yield Task(source, printable(file), None if known is None else _prior(path, known))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _prior(path: str, known: list[str | None]) -> Prior:
    size, mtime, ctime, inode, sha256, read, status, reason, attempts, tried_stat, rows, lacking = known
    numbers = [int(value or 0) for value in (size, mtime, ctime, inode)]
    return Prior(
        path, numbers[0], numbers[1], numbers[2], numbers[3], sha256, read or "", status or "", reason,
        int(attempts or 0), tried_stat, int(rows or 0), int(lacking or 0),
    )  # fmt: skip
