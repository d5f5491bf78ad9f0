"""The documents of the index that lie in others: records, mails, attachments.

In: the table of documents, in walk order. Out: the rows of those in one source, and what was last seen of them.
Not here: what a run does with them (feed.py, ended.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.index import documents
from embedcli.index.tables.walk_order import places_of_roots
from embedcli.records import SourceKey
from embedcli.run.tasks import LastSeen, last_seen, last_seen_rows

AFTER_MARK = chr(ord("#") + 1)
"""What is in `a` has paths from `a#` to before `a$`."""


class Members:
    """The documents of the index that lie in others. `base` is in walk order: those in one source stand together."""

    def __init__(self, base: pa.Table) -> None:
        self._base = base

    def of(self, key: SourceKey) -> pa.Table:
        """What the index knows of the documents in one source: rows of `base`."""
        return documents.chosen(*self.around(key))

    def around(self, key: SourceKey) -> tuple[pa.Table, documents.Mask]:
        """A range of `base`, and which rows of it are the documents in one source: between them are those inside
        them."""
        if key not in self._counts:
            return self._base.slice(0, 0), np.zeros(0, np.bool_)
        start, stop = self._roots[key[0]]
        bounds = [documents.components(f"{key[1]}{mark}") for mark in ("#", AFTER_MARK)]
        first, last = (bisect_left(range(stop), bound, lo=start, key=self._components) for bound in bounds)
        inside = self._base.slice(first, last - first)
        return inside, np.asarray(pc.fill_null(pc.equal(inside.column("container"), key[1]), False))

    def seen(self, rows: pa.Table) -> Iterator[LastSeen]:
        """Rows of `base` as what was last seen of them."""
        # most sources are no containers and have no rows here: asking Arrow would cost a quarter of a millisecond each
        if not rows.num_rows:
            return iter(())
        return last_seen_rows(last_seen(rows, self._counts))

    def have_text(self, rows: pa.Table) -> documents.Mask:
        """Of which of these the index has text: their own, or that of documents inside them."""
        found = np.zeros(rows.num_rows, np.bool_)
        for number, part in enumerate(documents.parts(rows.select(["root", "path", "rows"]))):
            has_text = (np.asarray(part.column("rows")) > 0) | (self._counts.of(part) > 0)
            found[number * documents.PART_ROWS :][: part.num_rows] = has_text
        return found

    def keys_of(self, key: SourceKey) -> set[SourceKey]:
        """The documents in a source, and those in them."""
        direct = {(key[0], path) for path in self.of(key).column("path").to_pylist()}
        return direct.union(*(self.keys_of(inner) for inner in direct))

    def _components(self, row: int) -> str:
        return documents.components(self._base.column("path")[row].as_py())

    @cached_property
    def _counts(self) -> documents.MemberCounts:
        return documents.MemberCounts(self._base)

    @cached_property
    def _roots(self) -> dict[str, tuple[int, int]]:
        """Where the rows of each root are."""
        return {root: (first, end) for root, first, end in places_of_roots(self._base)}
