"""Documents on their way through the engine: chunks out by vector key, vectors back into their places.

In: readings. Out: documents whose every chunk has a vector (or a reason why not), whole. A key that is known, or on
its way already, is never sent again.
Not here: batching and the engine's health (engines/feeder.py), writing (index/staging.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedcli.columns import Floats, VectorKeys
from embedcli.engines.contract import Refusal
from embedcli.index import shards
from embedcli.index.known_vectors import KnownVectors
from embedcli.reading.rows import Reading
from embedcli.run.tasks import Contained, Refused, Task

IN_MEMORY_BYTES = 256 << 20


class Embedder(Protocol):
    """The part of the feeder that pending documents use."""

    def add(self, key: bytes, ids: npt.NDArray[np.uint32]) -> None: ...

    def finished(self, timeout: float) -> list[tuple[bytes, Floats | Refusal]]: ...


@dataclass
class Pending:
    """A document some of whose vectors are still to come; whole when it `lacks` none.

    `vectors`: float32 [chunks, dim], of which the rows of `have` are filled in; `bad`: why a chunk has no vector.
    """

    task: Task
    reading: Reading
    table: pa.Table
    keys: VectorKeys
    vectors: Floats
    have: npt.NDArray[np.bool_]
    lacks: int = 0
    reused: int = 0
    embedded: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    fresh: list[int] = field(default_factory=list)

    @property
    def replaced(self) -> int:
        """Characters U+FFFD, which stand where bytes were not text."""
        return self.reading.replaced


Ended = Pending | Refused | Contained
"""A source that is finished: a whole document, a refusal, or a container whose documents are whole."""


class PendingDocuments:
    """The documents that wait for vectors. `open_embedder` is called when the first vector has to be computed."""

    def __init__(
        self, library: KnownVectors, open_embedder: Callable[[], Embedder], *, dim: int, spool_folder: Path
    ) -> None:
        self._library = library
        self._open = open_embedder
        self._embedder: Embedder | None = None
        self._dim = dim
        self._spool_folder = spool_folder
        self._waiting: dict[bytes, list[tuple[Pending, int]]] = {}
        self._recent: dict[bytes, Floats] = {}
        self._storing: dict[bytes, Floats] = {}
        self._whole: list[Pending] = []
        self._unfinished: dict[int, Pending] = {}
        self.asked_tokens = 0
        """How many tokens were sent to the engine."""

    @property
    def waiting(self) -> int:
        """Documents that wait for a vector."""
        return len(self._unfinished)

    @property
    def has_fresh(self) -> bool:
        """Whether the engine has returned vectors since the last checkpoint began."""
        return bool(self._recent)

    def waits(self, document: Pending) -> bool:
        return id(document) in self._unfinished

    def take(self, task: Task, reading: Reading) -> None:
        """Begin a document: fill in the vectors that are known, and send the other chunks to the engine."""
        table = reading.table()
        key_bytes: list[bytes] = table.column("key").to_pylist()
        keys = shards.keys_of(key_bytes)
        vectors = self._room(len(key_bytes))
        have = self._library.take(keys, vectors)
        document = Pending(task, reading, table, keys, vectors, have, reused=int(have.sum()))
        self._unfinished[id(document)] = document
        open_rows = np.flatnonzero(~have)
        ids = table.column("ids").combine_chunks()
        flat, offsets = ids.values.to_numpy(), ids.offsets.to_numpy()
        for row in open_rows.tolist():
            self._ask(document, row, key_bytes[row], flat[offsets[row] : offsets[row + 1]])
        document.table = table.drop_columns(["ids", "key"])
        if not document.lacks:
            self._end(document)

    def _ask(self, document: Pending, row: int, key: bytes, ids: npt.NDArray[np.uint32]) -> None:
        known = self._recent.get(key, self._storing.get(key))
        if known is not None:
            document.vectors[row] = known
            document.have[row] = True
            document.reused += 1
            return
        document.lacks += 1
        others = self._waiting.get(key)
        if others is not None:
            others.append((document, row))
            return
        self._waiting[key] = [(document, row)]
        if self._embedder is None:
            self._embedder = self._open()
        self._embedder.add(key, ids)
        self.asked_tokens += ids.size

    def _room(self, rows: int) -> Floats:
        size = rows * self._dim * 4
        if size <= IN_MEMORY_BYTES:
            return np.empty((rows, self._dim), np.float32)
        with tempfile.TemporaryFile(dir=self._spool_folder) as file:
            room: Floats = np.memmap(file, np.float32, "w+", shape=(rows, self._dim))
        return room

    def collect(self, timeout: float) -> list[Pending]:
        """Take what the engine has finished, waiting up to `timeout` seconds for it; returns whole documents."""
        if self._embedder is not None and self._waiting:
            for key, result in self._embedder.finished(0.0 if self._whole else timeout):
                self._put(key, result)
        whole, self._whole = self._whole, []
        return whole

    def _put(self, key: bytes, result: Floats | Refusal) -> None:
        if not isinstance(result, Refusal):
            self._recent[key] = result
        for others, (document, row) in enumerate(self._waiting.pop(key)):
            if isinstance(result, Refusal):
                document.bad[row] = result.reason
            else:
                document.embedded += not others
                document.reused += bool(others)
                document.vectors[row] = result
                document.have[row] = True
                document.fresh.append(row)
            document.lacks -= 1
            if not document.lacks:
                self._end(document)

    def _end(self, document: Pending) -> None:
        del self._unfinished[id(document)]
        self._whole.append(document)

    def hand_over(self) -> tuple[VectorKeys, Floats, list[Pending]]:
        """Begin a checkpoint: the keys and vectors computed since the last one for documents that are not yet whole,
        and these documents."""
        self._storing, self._recent = self._recent, {}
        open_ones = [document for document in self._unfinished.values() if document.fresh]
        keys, vectors = [np.zeros((2, 0), np.uint64)], [np.zeros((0, self._dim), np.float32)]
        for document in open_ones:
            keys.append(document.keys[:, document.fresh])
            vectors.append(document.vectors[document.fresh])
            document.fresh = []
        return np.concatenate(keys, axis=1), np.concatenate(vectors), open_ones

    def stored(self) -> None:
        """Note that the checkpoint is durable: the vectors handed over are among the known vectors now."""
        self._storing = {}
