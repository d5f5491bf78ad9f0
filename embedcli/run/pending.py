"""Documents on their way through the engine: chunks out by vector key, vectors back into their places.

In: readings. Out: documents whose every chunk has a vector (or a reason why not), whole; records that were read at
once stay together, but for those with a chunk that has none. A key that is known, or on its way already, is never sent
again.
Not here: batching and the engine's health (engines/feeder.py), writing (index/staging.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.columns import Floats, VectorKeys
from embedcli.engines.contract import Refusal
from embedcli.errors import storage_errors
from embedcli.index import shards
from embedcli.index.known_vectors import KnownVectors
from embedcli.index.tables.mapped import take_room
from embedcli.reading.rows import Reading
from embedcli.records import Stat
from embedcli.run.tasks import Contained, RecordTask, Refused, Task

IN_MEMORY_BYTES = 256 << 20
RECORDS_COUNT = 8
"""As so many documents count records that were read at once: they are short."""


class Embedder(Protocol):
    """The part of the feeder that pending documents use."""

    def add(self, key: bytes, ids: npt.NDArray[np.uint32]) -> None: ...

    def finished(self, timeout: float) -> list[tuple[bytes, Floats | Refusal]]: ...


@dataclass(kw_only=True)
class Chunks:
    """Chunks some of whose vectors are still to come; whole when it `lacks` none.

    `vectors`: float32 [chunks, dim], of which the rows of `have` are filled in; `bad`: why a chunk has no vector.
    """

    table: pa.Table
    keys: VectorKeys
    vectors: Floats
    have: npt.NDArray[np.bool_]
    lacks: int = 0
    reused: int = 0
    embedded: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    fresh: list[int] = field(default_factory=list)
    unchanged: int = 0


@dataclass(kw_only=True)
class Pending(Chunks):
    """A document."""

    task: Task
    reading: Reading

    @property
    def replaced(self) -> int:
        """Characters U+FFFD, which stand where bytes were not text."""
        return self.reading.replaced


@dataclass(kw_only=True)
class PendingRecords(Chunks):
    """Records of one container that were read at once; `documents`: a row for each, of rows.RECORDS_READ."""

    task: RecordTask
    documents: pa.Table

    def apart(self) -> list[Pending | PendingRecords]:
        """The documents with a chunk that is `bad`, each by itself, and the others."""
        chunks = np.asarray(self.documents.column("chunks"))
        document_of = np.repeat(np.arange(len(chunks)), chunks)
        is_bad = np.isin(np.arange(len(chunks)), document_of[list(self.bad)])
        found: list[Pending | PendingRecords] = [
            self._document(n, document_of == n) for n in np.flatnonzero(is_bad).tolist()
        ]
        is_sound = ~is_bad[document_of]
        if is_sound.any():
            others = PendingRecords(task=self.task, documents=self.documents.filter(~is_bad), **self._those(is_sound))
            others.reused, others.embedded = self.reused, self.embedded
            found.append(others)
        return found

    def _document(self, number: int, rows: npt.NDArray[np.bool_]) -> Pending:
        read = self.documents.slice(number, 1).to_pylist()[0]
        task = self.task.task(read["place"])
        assert task.source.stat is not None
        first = int(np.flatnonzero(rows)[0])
        bad = {row - first: reason for row, reason in self.bad.items() if rows[row]}
        reading = Reading(
            stat=Stat(read["size"], task.source.stat.mtime_ns, 0, 0), sha256=read["sha256"], pages=None,
            pages_skipped=0, reason=None, chunks=read["chunks"], tokens=read["tokens"],
            latin_share=read["latin_share"], replaced=read["replaced"], stream=b"",
        )  # fmt: skip
        return Pending(task=task, reading=reading, bad=bad, **self._those(rows))

    def _those(self, rows: npt.NDArray[np.bool_]) -> dict[str, Any]:
        table = self.table.filter(pa.array(rows))
        return {"table": table, "keys": self.keys[:, rows], "vectors": self.vectors[rows], "have": self.have[rows]}


EndedFile = Pending | Refused | Contained
Ended = EndedFile | PendingRecords
"""What is finished: a whole document, a refusal, a container whose documents are whole; or records that are whole."""


@dataclass
class Tokens:
    """How many were `asked` of the engine, and how many were `read`: in all chunks, those of known vectors included."""

    asked: int = 0
    read: int = 0


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
        self._waiting: dict[bytes, list[tuple[Chunks, int]]] = {}
        self._recent: dict[bytes, Floats] = {}
        self._storing: dict[bytes, Floats] = {}
        self._whole: list[Pending | PendingRecords] = []
        self._unfinished: dict[int, Pending | PendingRecords] = {}
        self._batches = 0
        self.tokens = Tokens()

    @property
    def waiting(self) -> int:
        """Documents that wait for a vector; records that were read at once count as RECORDS_COUNT."""
        return len(self._unfinished) + (RECORDS_COUNT - 1) * self._batches

    @property
    def has_fresh(self) -> bool:
        """Whether the engine has returned vectors since the last checkpoint began."""
        return bool(self._recent)

    def waits(self, item: Chunks) -> bool:
        return id(item) in self._unfinished

    def take(self, task: Task, reading: Reading) -> None:
        """Begin a document: fill in the vectors that are known, and send the other chunks to the engine."""
        table = reading.table()
        self._begin(Pending(task=task, reading=reading, **self._looked_up(table)), table)

    def take_records(self, task: RecordTask, documents: pa.Table, table: pa.Table) -> None:
        """Begin the records that were read together, as `take` does with one document."""
        if documents.num_rows:
            self._batches += 1
            self._begin(PendingRecords(task=task, documents=documents, **self._looked_up(table)), table)

    def _looked_up(self, table: pa.Table) -> dict[str, Any]:
        """The fields of Chunks, with what is known of their vectors."""
        keys = shards.keys_of(table.column("key").to_pylist())
        vectors = self._room(table.num_rows)
        have = self._library.take(keys, vectors)
        self.tokens.read += int(pc.sum(table.column("token_count")).as_py() or 0)
        rows = table.drop_columns(["ids", "key"])
        return {"table": rows, "keys": keys, "vectors": vectors, "have": have, "reused": int(have.sum())}

    def _begin(self, item: Pending | PendingRecords, table: pa.Table) -> None:
        self._unfinished[id(item)] = item
        keys: list[bytes] = table.column("key").to_pylist()
        ids = table.column("ids").combine_chunks()
        flat, offsets = ids.values.to_numpy(), ids.offsets.to_pylist()
        for row in np.flatnonzero(~item.have).tolist():
            self._ask(item, row, keys[row], flat[offsets[row] : offsets[row + 1]])
        if not item.lacks:
            self._end(item)

    def _ask(self, item: Chunks, row: int, key: bytes, ids: npt.NDArray[np.uint32]) -> None:
        known = self._recent.get(key, self._storing.get(key))
        if known is not None:
            item.vectors[row] = known
            item.have[row] = True
            item.reused += 1
            return
        item.lacks += 1
        others = self._waiting.get(key)
        if others is not None:
            others.append((item, row))
            return
        self._waiting[key] = [(item, row)]
        if self._embedder is None:
            self._embedder = self._open()
        self._embedder.add(key, ids)
        self.tokens.asked += ids.size

    def _room(self, rows: int) -> Floats:
        size = rows * self._dim * 4
        if size <= IN_MEMORY_BYTES:
            return np.empty((rows, self._dim), np.float32)
        with storage_errors(self._spool_folder), tempfile.TemporaryFile(dir=self._spool_folder) as file:
            take_room(file, size)
            room: Floats = np.memmap(file, np.float32, "w+", shape=(rows, self._dim))
        return room

    def collect(self, timeout: float) -> list[Pending | PendingRecords]:
        """Take what the engine has finished, waiting up to `timeout` seconds for it; returns what is whole."""
        if self._embedder is not None and self._waiting:
            for key, result in self._embedder.finished(0.0 if self._whole else timeout):
                self._put(key, result)
        whole, self._whole = self._whole, []
        return whole

    def _put(self, key: bytes, result: Floats | Refusal) -> None:
        if not isinstance(result, Refusal):
            self._recent[key] = result
        for others, (item, row) in enumerate(self._waiting.pop(key)):
            if isinstance(result, Refusal):
                item.bad[row] = result.reason
            else:
                item.embedded += not others
                item.reused += bool(others)
                item.vectors[row] = result
                item.have[row] = True
                item.fresh.append(row)
            item.lacks -= 1
            if not item.lacks:
                self._end(self._unfinished[id(item)])

    def _end(self, item: Pending | PendingRecords) -> None:
        del self._unfinished[id(item)]
        if isinstance(item, PendingRecords):
            self._batches -= 1
            self._whole += item.apart() if item.bad else [item]
        else:
            self._whole.append(item)

    def hand_over(self) -> tuple[VectorKeys, Floats, list[Chunks]]:
        """Begin a checkpoint: the keys and vectors computed since the last one for documents that are not yet whole,
        and these documents."""
        self._storing, self._recent = self._recent, {}
        open_ones: list[Chunks] = [item for item in self._unfinished.values() if item.fresh]
        keys, vectors = [np.zeros((2, 0), np.uint64)], [np.zeros((0, self._dim), np.float32)]
        for item in open_ones:
            keys.append(item.keys[:, item.fresh])
            vectors.append(item.vectors[item.fresh])
            item.fresh = []
        return np.concatenate(keys, axis=1), np.concatenate(vectors), open_ones

    def stored(self) -> None:
        """Note that the checkpoint is durable: the vectors handed over are among the known vectors now."""
        self._storing = {}
