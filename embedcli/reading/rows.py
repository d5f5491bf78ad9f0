"""What a reading process does with one source: digest, document, chunks, rows. It never runs in the parent.

In: a Source. Out: a Reading: the rows as an Arrow stream (all columns but those the vector brings, with each chunk's
token ids and vector key beside them), or UnreadableSource. A document's chunks are all made before the first one
leaves, so a reader that dies has produced nothing.
Not here: the formats (formats.py), the cuts (chunker.py), the limits (pool.py).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedcli.columns import SCHEMA
from embedcli.errors import UnreadableSource, storage_errors
from embedcli.reading import chunker, formats
from embedcli.records import Chunk, Document, Source, Stat, digest, if_trusted, reason_of, stat_of

if TYPE_CHECKING:
    from embedcli.models.tokenizer import Tokens

SPOOL_BYTES = 64 << 20
_BATCH_CHUNKS = 1024
_DIGEST_BYTES = 16 << 20

Beat = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Reading:
    """One source read. `stat` is from before the reading, with a ctime of 0 when the file was too young to trust.

    `stream` is an Arrow IPC stream of SCHEMA, or the path of the file that has it.
    """

    stat: Stat
    sha256: str
    pages: int | None
    pages_skipped: int
    reason: str | None
    chunks: int
    tokens: int
    latin_share: float
    stream: bytes | Path

    def table(self) -> pa.Table:
        """The rows; a spooled file is mapped and its name removed."""
        if isinstance(self.stream, bytes):
            return pa.ipc.open_stream(pa.BufferReader(self.stream)).read_all()
        with pa.memory_map(str(self.stream)) as mapped:
            table = pa.ipc.open_stream(mapped).read_all()
        self.stream.unlink()
        return table


@dataclass
class ReadingWork:
    """How a reading process reads one source. It is pickled for each child; `start` loads the tokenizer there."""

    model_folder: Path
    prompt: str
    max_tokens: int
    overlap: int
    keep_text: bool
    model_fingerprint: str
    spool_folder: Path
    _tokens: Tokens | None = None

    def start(self) -> None:
        from embedcli.models.tokenizer import load_tokenizer

        self._tokens = load_tokenizer(self.model_folder, prompt=self.prompt)

    def __call__(self, task: Source, beat: Beat, *, with_forms: bool) -> Reading:
        """Read one source. A file that changes while it is read is read once more. Raises UnreadableSource."""
        reading = self._read_once(task, beat, with_forms=with_forms)
        if reading is None:
            reading = self._read_once(task, beat, with_forms=with_forms)
        if reading is None:
            raise UnreadableSource("changed_while_reading", task.file)
        return reading

    def _read_once(self, source: Source, beat: Beat, *, with_forms: bool) -> Reading | None:
        """The reading, or None where the file changed meanwhile."""
        with _opened(source.file) as file:
            before = _stat(file)
            now_ns = time.time_ns()
            try:
                sha256 = _sha256(file, before.size, beat)
                document = formats.read(file, name=source.path, beat=beat, with_forms=with_forms)
                reading = self._rows(source, document, before, sha256, beat)
            except OSError as error:
                raise UnreadableSource("io", str(error)) from error
            if _stat(file) != before:
                return None
        return replace(reading, stat=if_trusted(before, now_ns))

    def _rows(self, source: Source, document: Document, stat: Stat, sha256: str, beat: Beat) -> Reading:
        assert self._tokens is not None
        chunks = _beating(chunker.split(document, self._tokens, max_tokens=self.max_tokens, overlap=self.overlap), beat)
        rows = _Rows(source, document, stat, keep_text=self.keep_text, model_fingerprint=self.model_fingerprint)
        spool = len(document.text) * 4 > SPOOL_BYTES
        stream = _to_file(rows, chunks, self.spool_folder) if spool else _to_memory(rows, chunks)
        if not rows.count:
            raise UnreadableSource("empty")
        return Reading(
            stat=stat,
            sha256=sha256,
            pages=document.page_count,
            pages_skipped=document.pages_skipped,
            reason=document.reason,
            chunks=rows.count,
            tokens=rows.tokens,
            latin_share=latin_share(document.text),
            stream=stream,
        )


def latin_share(text: str) -> float:
    """The share of Latin letters among the letters of the first 10,000 characters; 1.0 without letters."""
    letters = [c for c in text[:10_000] if c.isalpha()]
    return sum(c < "\u0250" or "\u1e00" <= c <= "\u1eff" for c in letters) / len(letters) if letters else 1.0


class _Rows:
    """Makes record batches of SCHEMA out of the chunks of one document, and counts chunks and tokens."""

    def __init__(
        self, source: Source, document: Document, stat: Stat, *, keep_text: bool, model_fingerprint: str
    ) -> None:
        self._source = source
        self._document = document
        self._keep_text = keep_text
        self._fingerprint = model_fingerprint.encode()
        self._seen: Counter[str] = Counter()
        self._constant = {
            "doc_id": digest(*source.key),
            "uri": source.uri,
            "path": source.path,
            "title": document.title,
            "modified_at": stat.mtime_ns // 1000,
        }
        self.count = 0
        self.tokens = 0

    def batch(self, chunks: Sequence[Chunk]) -> pa.RecordBatch:
        rows = [self._row(chunk) for chunk in chunks]
        columns = []
        for field in SCHEMA:
            if field.name in self._constant:
                columns.append(pa.repeat(pa.scalar(self._constant[field.name], field.type), len(rows)))
            elif field.name == "ids":
                columns.append(_lists([chunk.token_ids for chunk in chunks]))
            else:
                columns.append(pa.array([row.get(field.name) for row in rows], field.type))
        return pa.record_batch(columns, schema=SCHEMA)

    def _row(self, chunk: Chunk) -> dict[str, Any]:
        document = self._document
        text = document.text[chunk.char_start : chunk.char_end]
        text_digest = digest(text)
        page_start, page_end = chunker.page_span(document, chunk.char_start, chunk.char_end)
        ids = np.ascontiguousarray(chunk.token_ids, "<u4")
        row = {
            "chunk_id": digest(*self._source.key, text_digest, self._seen[text_digest]),
            "chunk_index": self.count,
            "page_start": page_start,
            "page_end": page_end,
            "section": chunker.section_at(document, chunk.core_start),
            "char_start": chunk.char_start,
            "char_end": chunk.char_end,
            "core_start": chunk.core_start,
            "token_count": len(ids),
            "text": text if self._keep_text else None,
            "chunk_digest": text_digest,
            "key": hashlib.blake2b(ids.tobytes() + self._fingerprint, digest_size=16).digest(),
        }
        self._seen[text_digest] += 1
        self.count += 1
        self.tokens += len(ids)
        return row


def _lists(arrays: Sequence[NDArray[np.uint32]]) -> pa.ListArray:
    offsets = np.concatenate(([0], np.cumsum([len(ids) for ids in arrays]))).astype(np.int32)
    flat = np.concatenate([np.asarray(ids, np.uint32) for ids in arrays])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def _beating(chunks: Iterator[Chunk], beat: Beat) -> Iterator[Chunk]:
    """The same chunks, with a beat after each: cutting one of 32,768 tokens takes long."""
    for chunk in chunks:
        beat(0)
        yield chunk


def _write(rows: _Rows, chunks: Iterator[Chunk], sink: Any) -> None:
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        while batch := list(islice(chunks, _BATCH_CHUNKS)):
            writer.write_batch(rows.batch(batch))


def _to_memory(rows: _Rows, chunks: Iterator[Chunk]) -> bytes:
    sink = pa.BufferOutputStream()
    _write(rows, chunks, sink)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def _to_file(rows: _Rows, chunks: Iterator[Chunk], folder: Path) -> Path:
    """The path of the file that has the stream. Raises StorageError: a full disk is not the source's fault."""
    with storage_errors(folder):
        descriptor, name = tempfile.mkstemp(prefix="spool-", dir=folder)
        try:
            os.close(descriptor)
            with pa.OSFile(name, "wb") as sink:
                _write(rows, chunks, sink)
        except BaseException:
            os.unlink(name)
            raise
    return Path(name)


def _opened(file: str) -> BinaryIO:
    try:
        return open(file, "rb")
    except OSError as error:
        raise UnreadableSource(reason_of(error), str(error)) from error


def _stat(file: BinaryIO) -> Stat:
    return stat_of(os.fstat(file.fileno()))


def _sha256(file: BinaryIO, size_bytes: int, beat: Beat) -> str:
    """The digest of the first `size_bytes`, its size when the reading began: a file may grow as fast as it is read."""
    state = hashlib.sha256()
    while block := file.read(min(_DIGEST_BYTES, size_bytes)):
        state.update(block)
        size_bytes -= len(block)
        beat(0)
    file.seek(0)
    return state.hexdigest()
