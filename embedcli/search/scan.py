"""The nearest rows by cosine, exactly: a scan in 8 bits, then float32 for every row that the scan cannot rule out.

In: the sidecars of a generation, a unit vector, which rows count. Out: the rows and cosines that a float32 scan of
every row would give; equal cosines are in the order of their ids, so nothing depends on how rows are cut into shards.
Not here: the arrays (sidecars.py), words (bm25.py). The one door of simsimd.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simsimd

from embedcli.columns import Floats
from embedcli.search.sidecars import LEVELS, Sidecar

CANDIDATES = 200
"""How many of the best rows of the scan are computed in float32 at least."""
BLOCK = 4096
"""How many rows are computed in float32 and float64 at once: 50 MB with 1024 dimensions."""
ROUNDING = 1e-5
"""More than all roundings of float32 in a scan add up to."""

Rows = npt.NDArray[np.int64]
Allowed = npt.NDArray[np.bool_]


class Vectors:
    """The vectors of a generation. Rows are counted through all shards, in their order."""

    def __init__(self, sidecars: Sequence[Sidecar]) -> None:
        self._sidecars = sidecars
        self.first = np.concatenate(([0], np.cumsum([one.ids.size for one in sidecars]))).astype(np.int64)
        self.rows = int(self.first[-1])

    def nearest(
        self, query: Floats, count: int, allowed: Allowed | None = None
    ) -> tuple[Rows, npt.NDArray[np.float64]]:
        """The `count` rows nearest to `query` [dim], and their cosines, the best first; only `allowed` rows [rows]."""
        scanned = [self._scan(number, query, allowed) for number in range(len(self._sidecars))]
        likely = best([part.scores for part in scanned], max(CANDIDATES, 4 * count))
        rows, cosines = self._best_of(likely, query, count)
        if rows.size == count:
            rows, cosines = self._best_of(self._not_ruled_out(scanned, float(cosines[-1])), query, count)
        return rows, cosines

    def _best_of(self, likely: Rows, query: Floats, count: int) -> tuple[Rows, npt.NDArray[np.float64]]:
        """The best `count` of some rows, block by block: any number of rows may be equal, as copies of a text are."""
        rows, cosines = np.zeros(0, np.int64), np.zeros(0)
        size = max(16 * BLOCK, count)
        for start in range(0, likely.size, size):
            block = likely[start : start + size]
            rows, cosines = np.concatenate((rows, block)), np.concatenate((cosines, self.cosines(block, query)))
            order = self.in_order(rows, cosines)[:count]
            rows, cosines = rows[order], cosines[order]
        return rows, cosines

    def cosines(self, rows: Rows, query: Floats) -> npt.NDArray[np.float64]:
        """The exact cosines of some rows, in float64."""
        found = np.zeros(rows.size)
        wide = query.astype(np.float64)
        for number, inside, places in self.by_shard(rows):
            for start in range(0, inside.size, BLOCK):
                block = slice(start, start + BLOCK)
                found[places[block]] = (self._sidecars[number].exact(inside[block]) * wide).sum(axis=1)
        return found

    def vector(self, row: int) -> Floats:
        number = int(np.searchsorted(self.first, row, side="right")) - 1
        found: Floats = self._sidecars[number].exact(np.array([row - self.first[number]]))[0]
        return found

    def ids(self, rows: Rows) -> npt.NDArray[np.uint64]:
        found = np.zeros(rows.size, np.uint64)
        for number, inside, places in self.by_shard(rows):
            found[places] = self._sidecars[number].ids[inside]
        return found

    def with_id(self, id: int) -> Rows:
        """The rows whose chunk id begins with these 64 bits."""
        parts = [np.flatnonzero(one.ids == np.uint64(id)) for one in self._sidecars]
        return np.concatenate([np.zeros(0, np.int64), *(p + f for p, f in zip(parts, self.first[:-1], strict=True))])

    def by_shard(self, rows: Rows) -> Iterator[tuple[int, Rows, Rows]]:
        """(the number of a shard, rows in it, their places in `rows`), for every shard that has some of `rows`."""
        numbers = np.searchsorted(self.first, rows, side="right") - 1
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            yield number, rows[places] - self.first[number], places

    def in_order(self, rows: Rows, scores: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
        """The order of the best first; equal scores by id."""
        return np.lexsort((self.ids(rows), -scores))

    def _scan(self, number: int, query: Floats, allowed: Allowed | None) -> _Scanned:
        one = self._sidecars[number]
        scale = max(float(np.abs(query).max(initial=0.0)), 1e-30) / LEVELS
        narrow = np.rint(query / scale).astype(np.int8)
        if not one.ids.size:
            return _Scanned(np.zeros(0, np.float32), 0.0)
        scores = np.asarray(simsimd.cdist(narrow[None], one.int8, "dot", out_dtype="float32"))[0]
        scores *= one.scales
        scores *= np.float32(scale)
        lost = float(np.linalg.norm(query - narrow * np.float32(scale)))
        if allowed is not None:
            scores[~allowed[self.first[number] : self.first[number + 1]]] = -np.inf
        return _Scanned(scores, one.error + lost * (1 + one.error) + ROUNDING)

    def _not_ruled_out(self, scanned: Sequence[_Scanned], worst: float) -> Rows:
        """Every row whose cosine may be as high as `worst`."""
        parts = [
            np.flatnonzero(part.scores >= worst - part.error) + first
            for part, first in zip(scanned, self.first[:-1], strict=True)
        ]
        return np.concatenate(parts)


@dataclass(frozen=True)
class _Scanned:
    """Approximate cosines of a shard's rows, and how far each can be from the exact one."""

    scores: Floats
    error: float


def best(parts: Sequence[Floats], count: int) -> Rows:
    """The rows of the `count` highest scores over all parts, and of those equal to the last; none of -inf.

    A threshold that rises from part to part spares sorting what cannot be among them.
    """
    threshold = -np.inf
    rows, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
    first = 0
    for part in parts:
        found = np.flatnonzero(part >= threshold if threshold > -np.inf else part > -np.inf)
        rows, scores = np.concatenate((rows, found + first)), np.concatenate((scores, part[found]))
        if rows.size > count:
            threshold = float(np.partition(scores, -count)[-count])
            kept = scores >= threshold
            rows, scores = rows[kept], scores[kept]
        first += part.size
    return rows
