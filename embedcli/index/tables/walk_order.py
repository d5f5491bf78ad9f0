"""The order of documents, and tables in this order side by side: however long they are, a window of them is in memory.

In: tables of documents, each in walk order. Out: the same rows merged, or a range of rows of each table for one range
of keys after another.
Not here: where the tables lie (spilled.py), what is done with them (index/next_table.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.index import documents

WINDOW_ROWS = 1 << 14

Key = tuple[int, str]
Range = tuple[int, int]
"""Half-open."""


class WalkOrder:
    """By root, in the order of `roots`, the others behind them; then by path component."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = tuple(roots)
        self._rank = {root: rank for rank, root in enumerate(roots)}

    def key(self, table: pa.Table, row: int) -> Key:
        root, path = table.column("root")[row].as_py(), table.column("path")[row].as_py()
        return self._rank.get(root, len(self._rank)), documents.components(path)

    def sorted(self, table: pa.Table) -> pa.Table:
        return documents.in_walk_order(table, self._roots)

    def merged(self, tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
        """The rows of all tables, in order."""
        for ranges in self.windows(tables) if tables else ():
            yield self.sorted(pa.concat_tables([t.slice(a, b - a) for t, (a, b) in zip(tables, ranges, strict=True)]))

    def windows(self, tables: Sequence[pa.Table]) -> Iterator[list[Range]]:
        """For one range of keys after another the range of rows of each table; all together about WINDOW_ROWS."""
        filled = [table for table in tables if table.num_rows]
        step = max(1, WINDOW_ROWS // max(1, len(filled)))
        samples = sorted(self.key(table, row) for table in filled for row in range(step, table.num_rows, step))
        starts = [0] * len(tables)
        for bound in samples[len(filled) - 1 :: len(filled)] if filled else ():
            stops = [self._place(table, start, bound) for table, start in zip(tables, starts, strict=True)]
            yield list(zip(starts, stops, strict=True))
            starts = stops
        yield [(start, table.num_rows) for table, start in zip(tables, starts, strict=True)]

    def _place(self, table: pa.Table, start: int, bound: Key) -> int:
        """The first row from `start` on that does not come before the bound."""
        return bisect_left(range(table.num_rows), bound, lo=start, key=lambda row: self.key(table, row))


def places_of_roots(table: pa.Table) -> list[tuple[str, int, int]]:
    """Each root of a sorted table with the half-open range of its rows."""
    found: list[tuple[str, int]] = []
    start = 0
    for chunk in table.column("root").chunks:
        runs = pc.run_end_encode(chunk)
        for root, begin in zip(runs.values.to_pylist(), [0, *runs.run_ends.to_pylist()], strict=False):
            if not found or root != found[-1][0]:
                found.append((root, start + begin))
        start += len(chunk)
    ends = [*(first for _, first in found[1:]), table.num_rows]
    return [(root, first, end) for (root, first), end in zip(found, ends, strict=False)]
