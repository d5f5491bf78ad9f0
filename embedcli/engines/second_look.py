"""Which vectors are believed, and which rows are run again, alone.

In: a list and the vectors delivered for it. Out: the answers that stand, and the rows that get a second look:
those with a vector that is not sound, or that another row already has. What a second look says is final.
Not here: sending (feeder.py), what a sound vector is (contract.py).
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from dataclasses import dataclass

import numpy as np

from embedcli.engines.contract import check_vectors
from embedcli.engines.recovery import Batch, Row

Answer = np.ndarray | str

SEEN_VECTORS = 1 << 16


@dataclass(frozen=True, slots=True)
class Answers:
    """Every row of the list is either answered or looked at again."""

    answers: list[tuple[bytes, Answer]]
    second_looks: list[Batch]
    duplicates_accepted: int = 0


class SecondLooks:
    """Remembers by digest which row the last 65,536 vectors were given to."""

    def __init__(self) -> None:
        self._key_of: OrderedDict[bytes, bytes] = OrderedDict()

    def judge(self, batch: Batch, delivered: np.ndarray) -> Answers:
        vectors, sound = check_vectors(delivered)
        if batch.kind == "second_look":
            return self._judge_again(batch.rows[0], vectors[0], bool(sound[0]))
        digests = [_digest(vector) for vector in vectors]
        count_of = Counter(digests)
        verdict = Answers([], [])
        for row, vector, good, digest in zip(batch.rows, vectors, sound, digests, strict=True):
            if good and count_of[digest] == 1 and not self._is_anothers(digest, row):
                verdict.answers.append((row.key, vector))
            else:
                verdict.second_looks.append(Batch((row,), "second_look"))
        return verdict

    def _judge_again(self, row: Row, vector: np.ndarray, good: bool) -> Answers:
        if not good:
            return Answers([(row.key, "bad_vector")], [])
        return Answers([(row.key, vector)], [], int(self._is_anothers(_digest(vector), row)))

    def _is_anothers(self, digest: bytes, row: Row) -> bool:
        """Whether another row has this vector; if none, it is this row's from now on."""
        known = self._key_of.setdefault(digest, row.key)
        if len(self._key_of) > SEEN_VECTORS:
            self._key_of.popitem(last=False)
        return known != row.key


def _digest(vector: np.ndarray) -> bytes:
    return hashlib.blake2b(vector.tobytes(), digest_size=16).digest()
