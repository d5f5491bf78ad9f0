"""The documents of the index that lie in others: records, mails, attachments.

In: the table of documents, in walk order. Out: the rows of those in one source, and what was last seen of them.
Not here: what a run does with them (feed.py, ended.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.index import documents
from embedcli.index.tables.walk_order import places_of_roots
from embedcli.records import SourceKey
from embedcli.run.tasks import LastSeen, last_seen, last_seen_rows

AFTER_MARK = chr(ord("#") + 1)
"""What is in `a` has paths from `a#` to before `a$`."""


Ints = npt.NDArray[np.int64]


class Members:
    """The documents of the index that lie in others. `base` is in walk order: those in one source stand together."""

    def __init__(self, base: pa.Table) -> None:
        self._base = base

    def of(self, key: SourceKey) -> pa.Table:
        """What the index knows of the documents in one source: rows of `base`."""
        if key not in self._counts:
            return self._base.slice(0, 0)
        start, stop = self._roots[key[0]]
        bounds = [documents.components(f"{key[1]}{mark}") for mark in ("#", AFTER_MARK)]
        first, last = (bisect_left(range(stop), bound, lo=start, key=self._components) for bound in bounds)
        inside = self._base.slice(first, last - first)
        return documents.chosen(inside, np.asarray(pc.equal(inside.column("container"), key[1])))

    def seen(self, rows: pa.Table) -> Iterator[LastSeen]:
        """Rows of `base` as what was last seen of them."""
        return last_seen_rows(last_seen(rows, self._counts))

    def counts_of(self, rows: pa.Table) -> Ints:
        """How many documents are inside each of these."""
        return self._counts.of(rows)

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
