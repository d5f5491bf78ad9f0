"""Which vectors are accepted, and which chunks are embedded a second time, alone.

In: a batch and the vectors that the engine delivered for it. Out: the answers that are final, and the chunks to embed
again: those whose vector is not finite or not of unit length, or equals the vector of another chunk. The answer to a
second look is final.
Not here: sending (feeder_thread.py), what a sound vector is (contract.py).
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from dataclasses import dataclass

import numpy as np

from embedcli.engines.contract import Answer, Refusal, check_vectors
from embedcli.engines.recovery import Batch, Queued

SEEN_VECTORS = 1 << 16


@dataclass(frozen=True, slots=True)
class Answers:
    """Every chunk of the batch is in one of the two: answered, or to be embedded again."""

    answers: list[tuple[bytes, Answer]]
    second_looks: list[Batch]
    duplicates_accepted: int = 0


class SecondLooks:
    """Remembers by digest which chunk got each of the last 65,536 vectors."""

    def __init__(self) -> None:
        self._key_of: OrderedDict[bytes, bytes] = OrderedDict()

    def judge(self, batch: Batch, delivered: np.ndarray) -> Answers:
        """`delivered` is float32 [chunks of the batch, dim]."""
        vectors, sound = check_vectors(delivered)
        if batch.kind == "second_look":
            return self._judge_again(batch.chunks[0], vectors[0], bool(sound[0]))
        digests = [_digest(vector) for vector in vectors]
        count_of = Counter(digests)
        judged = Answers([], [])
        for chunk, vector, good, digest in zip(batch.chunks, vectors, sound, digests, strict=True):
            if good and count_of[digest] == 1 and not self._is_anothers(digest, chunk):
                judged.answers.append((chunk.key, vector))
            else:
                judged.second_looks.append(Batch((chunk,), "second_look"))
        return judged

    def _judge_again(self, chunk: Queued, vector: np.ndarray, good: bool) -> Answers:
        if not good:
            return Answers([(chunk.key, Refusal("bad_vector"))], [])
        return Answers([(chunk.key, vector)], [], int(self._is_anothers(_digest(vector), chunk)))

    def _is_anothers(self, digest: bytes, chunk: Queued) -> bool:
        """Whether another chunk already has this vector; if none has, this chunk has it from now on."""
        known = self._key_of.setdefault(digest, chunk.key)
        if len(self._key_of) > SEEN_VECTORS:
            self._key_of.popitem(last=False)
        return known != chunk.key


def _digest(vector: np.ndarray) -> bytes:
    return hashlib.blake2b(vector.tobytes(), digest_size=16).digest()
