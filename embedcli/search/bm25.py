"""BM25 over all shards of a generation as if they were one: counts are summed over them before anything is scored.

In: the postings of every shard, the terms of a query. Out: a score for every row, the same to the last bit however the
rows are cut into shards; and the coverage, the share of the score that was possible.
Not here: terms (words.py), which rows are shown (searcher.py).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcli.columns import Floats
from embedcli.search.postings import BLOCK_ROWS, Posting, Postings
from embedcli.search.words import term_hash

K1 = 1.2
B = 0.75


@dataclass(frozen=True)
class Scored:
    """BM25 of every row [rows], and the most that these terms could have given."""

    scores: Floats
    possible: float

    def coverage(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The share of what was possible, 0 to 1, of some rows."""
        found = self.scores[rows].astype(np.float64)
        return found / self.possible if self.possible else found


class Words:
    """The words of a generation. Rows are counted through all shards, in their order."""

    def __init__(self, shards: Sequence[Postings]) -> None:
        self._shards = shards
        self._first = np.concatenate(([0], np.cumsum([shard.rows for shard in shards]))).astype(np.int64)
        self.rows = int(self._first[-1])
        average = sum(shard.total_length for shard in shards) / max(1, self.rows)
        self._norm = np.concatenate(
            [np.zeros(0, np.float32), *(_norm(shard.lengths, max(average, 1e-9)) for shard in shards)]
        )

    def score(self, terms: Collection[str]) -> Scored:
        """Terms that no row holds count for what was possible."""
        scores = np.zeros(self.rows, np.float32)
        possible = 0.0
        for term in sorted(map(term_hash, set(terms))):  # one order of adding, whatever the order of the query
            postings = self._postings(term)
            most = self._idf(sum(posting.count for _, posting in postings)) * (K1 + 1)
            possible += most
            for rows, posting in postings:
                norm, into = self._norm[rows], scores[rows]
                into[posting.once] += np.float32(most) / (1 + norm[posting.once])
                often = posting.often.astype(np.float32)
                into[posting.more] += np.float32(most) * (often / (often + norm[posting.more]))
        return Scored(scores, possible)

    def holding(self, terms: Collection[str]) -> npt.NDArray[np.bool_]:
        """Which rows hold every one of the terms [rows]."""
        held = np.ones(self.rows, np.bool_)
        for term in map(term_hash, set(terms)):
            here = np.zeros(self.rows, np.bool_)
            for rows, posting in self._postings(term):
                here[rows][posting.once] = True
                here[rows][posting.more] = True
            held &= here
        return held

    def _postings(self, term: int) -> list[tuple[slice, Posting]]:
        """The postings of a term, each with the rows of its block, counted through all shards."""
        return [
            (slice(start + posting.first, start + posting.first + BLOCK_ROWS), posting)
            for start, shard in zip(self._first.tolist(), self._shards, strict=False)
            for posting in shard.of(term)
        ]

    def _idf(self, rows_with_term: int) -> float:
        return math.log1p((self.rows - rows_with_term + 0.5) / (rows_with_term + 0.5))


def _norm(lengths: npt.NDArray[np.uint32], average: float) -> Floats:
    norm: Floats = (K1 * (1 - B + B * lengths.astype(np.float64) / average)).astype(np.float32)
    return norm
