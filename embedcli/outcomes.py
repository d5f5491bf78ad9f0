"""What became of each source of a run, as tables: a million Python objects would be a gigabyte.

In: Outcomes as they are finished, a source at most once. Out: the rows as one table, and the marks.
Not here: storing them (staging.py), publishing them (publishing.py).
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from embedcli import documents
from embedcli.documents import Mark
from embedcli.staging import Outcome


class Outcomes:
    """`marks` are on rows that stay; `rows` replace those of their sources, or are the first."""

    def __init__(self) -> None:
        self._tables = [documents.empty()]
        self.marks: list[Mark] = []

    def add(self, outcomes: Iterable[Outcome]) -> None:
        listed = list(outcomes)
        rows = [outcome.row for outcome in listed if outcome.row is not None]
        self._tables += [documents.from_rows(rows)] if rows else []
        self.marks += [outcome.mark for outcome in listed if outcome.mark is not None]

    @property
    def rows(self) -> pa.Table:
        """In the order in which they were finished."""
        self._tables = [pa.concat_tables(self._tables).combine_chunks()]
        return self._tables[0]

    def __len__(self) -> int:
        rows: int = sum(table.num_rows for table in self._tables)
        return rows + len(self.marks)
