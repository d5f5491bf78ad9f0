"""How many of the ten nearest rows a narrower store of vectors still finds.

In: queries, and all rows, a part at a time, as they were and as they are narrower. Out: recall@10, 0 to 1.
Not here: making them narrower (narrow.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedcli.columns import Floats

NEAREST = 10

Ints = npt.NDArray[np.int64]


class Recall:
    """Each query is asked in full width and, cut in the same way as the rows, of the narrower store."""

    def __init__(self, queries: Floats, narrow: Floats, own_rows: Ints | None = None) -> None:
        """`queries` [n, width], `narrow` [n, dim] as the store means them; `own_rows` [n]: rows that are the queries
        themselves, which do not count."""
        self._own_rows = np.full(len(queries), -1, np.int64) if own_rows is None else own_rows
        self._wide, self._narrow = _Best(queries), _Best(narrow)

    def add(self, first: int, wide: Floats, narrow: Floats) -> None:
        """The next rows, from the number `first` on."""
        self._wide.add(first, wide, self._own_rows)
        self._narrow.add(first, narrow, self._own_rows)

    def result(self) -> float | None:
        """None where there was nothing to find."""
        pairs = list(zip(self._wide.found(), self._narrow.found(), strict=True))
        possible = sum(len(wide) for wide, _ in pairs)
        return sum(len(wide & narrow) for wide, narrow in pairs) / possible if possible else None


class _Best:
    """The nearest rows so far of each query."""

    def __init__(self, queries: Floats) -> None:
        self._queries = queries
        self._scores = np.zeros((len(queries), 0), np.float32)
        self._rows = np.zeros((len(queries), 0), np.int64)

    def add(self, first: int, vectors: Floats, own_rows: Ints) -> None:
        scores = self._queries @ vectors.T
        rows = np.arange(first, first + len(vectors))
        scores[own_rows[:, None] == rows[None, :]] = -np.inf
        scores = np.concatenate((self._scores, scores), axis=1)
        rows = np.concatenate((self._rows, np.broadcast_to(rows, (len(own_rows), rows.size))), axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]
        self._scores, self._rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)

    def found(self) -> list[set[int]]:
        kept = np.isfinite(self._scores)
        return [set(rows[some].tolist()) for rows, some in zip(self._rows, kept, strict=True)]
