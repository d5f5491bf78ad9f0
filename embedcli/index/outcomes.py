"""The outcome of each source of a run, kept in Arrow tables, the most of them in files: a million take no memory.

In: Outcomes as documents are finished, at most one for each source. Out: the rows as one table, and the marks.
Not here: storing them (staging.py), publishing them (next_table.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedcli.index import documents
from embedcli.index.documents import DocumentRow, Mark
from embedcli.index.tables.spilled import IN_MEMORY_ROWS, spilled
from embedcli.index.tables.walk_order import WalkOrder
from embedcli.records import SourceKey, Stat


class Outcomes:
    """`marks` change rows of documents that stay; `rows` are of new sources, or replace the row of a known source."""

    def __init__(self, roots: Sequence[str] = (), folder: Path | None = None) -> None:
        """Many rows are kept in files of `folder`, sorted, so that they need no memory to be put in order."""
        self._order = WalkOrder(roots)
        self._folder = folder
        self._unsorted: list[pa.Table] = []
        self._sorted: list[pa.Table] = []
        self.marks: list[Mark] = []

    def add(self, outcomes: Iterable[Outcome]) -> None:
        listed = list(outcomes)
        rows = [outcome.row for outcome in listed if outcome.row is not None]
        self._put([documents.from_rows(rows)] if rows else [])
        self.marks += [outcome.mark for outcome in listed if outcome.mark is not None]

    def store(self, stored: Stored) -> None:
        """Add what a checkpoint has stored. Raises StorageError."""
        self.add(stored.outcomes)
        self._put(stored.records)

    def _put(self, tables: Iterable[pa.Table]) -> None:
        for table in tables:
            self._unsorted.append(table)
            if sum(part.num_rows for part in self._unsorted) > IN_MEMORY_ROWS:
                self._sort()

    def _sort(self) -> None:
        rows = self._order.sorted(pa.concat_tables(self._unsorted))
        self._sorted.append(spilled([rows], documents.SCHEMA, self._folder))
        self._unsorted = []

    @property
    def rows(self) -> pa.Table:
        """The rows, in walk order. Raises StorageError."""
        if self._unsorted:
            self._sort()
        if len(self._sorted) != 1:
            self._sorted = [spilled(self._order.merged(self._sorted), documents.SCHEMA, self._folder)]
        return self._sorted[0]

    def __len__(self) -> int:
        rows: int = sum(table.num_rows for table in (*self._unsorted, *self._sorted))
        return rows + len(self.marks)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished source: a new row, or a mark on its old row. `stat` is that of the file when it was read."""

    stat: Stat | None
    row: DocumentRow | None = None
    mark: Mark | None = None

    @property
    def key(self) -> SourceKey:
        if self.row is not None:
            return self.row.key
        assert self.mark is not None
        return self.mark.key

    @property
    def shard(self) -> str | None:
        """Where its rows lie; None without rows of its own."""
        return self.row.shard if self.row is not None else None

    @property
    def reason(self) -> str | None:
        """Why the source could not be read, or not as a whole."""
        if self.row is not None:
            return self.row.reason
        return None if self.mark is None else self.mark.columns.get("reason")

    def to_json(self) -> dict[str, Any]:
        return {
            "stat": asdict(self.stat) if self.stat else None,
            "row": self.row.to_json() if self.row else None,
            "mark": {"key": self.mark.key, "columns": dict(self.mark.columns)} if self.mark else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        stat, row, mark = data["stat"], data["row"], data["mark"]
        return cls(
            Stat(**stat) if stat else None,
            DocumentRow.from_json(row) if row else None,
            Mark((mark["key"][0], mark["key"][1]), mark["columns"]) if mark else None,
        )


@dataclass(frozen=True)
class Stored:
    """What one checkpoint has stored. `records`: tables of documents, of records that were finished together."""

    outcomes: list[Outcome]
    records: list[pa.Table]

    @property
    def shards(self) -> set[str]:
        """Where the rows of its documents lie."""
        of_records = (name for table in self.records for name in table.column("shard").unique().to_pylist())
        return {name for name in (*(outcome.shard for outcome in self.outcomes), *of_records) if name is not None}
