"""The outcome of each source of a run, kept in Arrow tables: a million Python objects would take a gigabyte.

In: Outcomes as documents are finished, at most one for each source. Out: the rows as one table, and the marks.
Not here: storing them (staging.py), publishing them (next_table.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from embedcli.index import documents
from embedcli.index.documents import DocumentRow, Mark
from embedcli.records import SourceKey, Stat


class Outcomes:
    """`marks` change rows of documents that stay; `rows` are of new sources, or replace the row of a known source."""

    def __init__(self) -> None:
        self._tables = [documents.empty()]
        self.marks: list[Mark] = []

    def add(self, outcomes: Iterable[Outcome]) -> None:
        listed = list(outcomes)
        rows = [outcome.row for outcome in listed if outcome.row is not None]
        self._tables += [documents.from_rows(rows)] if rows else []
        self.marks += [outcome.mark for outcome in listed if outcome.mark is not None]

    def store(self, stored: Stored) -> None:
        """Add what a checkpoint has stored."""
        self.add(stored.outcomes)
        self._tables += stored.records

    @property
    def rows(self) -> pa.Table:
        """The rows, in the order in which the sources were finished."""
        self._tables = [pa.concat_tables(self._tables).combine_chunks()]
        return self._tables[0]

    def __len__(self) -> int:
        rows: int = sum(table.num_rows for table in self._tables)
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
