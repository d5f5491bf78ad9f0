"""What a reading process does with one source: digest, document, chunks, rows. It never runs in the parent.

In: a Source, or records of a container. Out: of each, and of the documents inside it, a Reading: the rows as an Arrow
stream (all columns but those the vector brings, with each chunk's token ids and vector key beside them), or
UnreadableSource. A document's chunks are all made before the first one
leaves, so a reader that dies has produced nothing.
Not here: the formats (formats.py), the cuts (chunker.py), the limits (pool.py).
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedcli.columns import SCHEMA
from embedcli.errors import UnreadableSource, storage_errors
from embedcli.reading import chunker, formats
from embedcli.reading.source_file import opened, sha256_of
from embedcli.reading.text.clean import clean
from embedcli.records import (
    SKIP_REASONS,
    Chunk,
    Document,
    Record,
    Records,
    Source,
    Stat,
    digest,
)
from embedcli.sources.walk import READ_IN_PARTS

if TYPE_CHECKING:
    from embedcli.models.tokenizer import Tokens

SPOOL_BYTES = 64 << 20
_BATCH_CHUNKS = 1024
DEEPEST_MEMBER = 2
"""A mail in a mail is read with its own attachments, one in that without."""

Beat = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Reading:
    """One source read. `stat` is from before the reading, with a ctime of 0 when the file was too young to trust.

    `replaced` counts the characters U+FFFD, which stand where bytes were no text.
    `stream` is an Arrow IPC stream of SCHEMA, or the path of the file that holds it.
    """

    stat: Stat
    sha256: str
    pages: int | None
    pages_skipped: int
    reason: str | None
    chunks: int
    tokens: int
    latin_share: float
    replaced: int
    stream: bytes | Path

    def table(self) -> pa.Table:
        """The rows; a spooled file is mapped and its name removed."""
        if isinstance(self.stream, bytes):
            return pa.ipc.open_stream(pa.BufferReader(self.stream)).read_all()
        with pa.memory_map(str(self.stream)) as mapped:
            table = pa.ipc.open_stream(mapped).read_all()
        self.stream.unlink()
        return table


@dataclass(frozen=True, slots=True)
class Holder:
    """A source without text of its own: the documents are inside it."""

    stat: Stat
    sha256: str


@dataclass(frozen=True, slots=True)
class Read:
    """A source read, and the documents inside it, by their names."""

    own: Reading | Holder | UnreadableSource
    members: tuple[tuple[str, Read], ...] = ()


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
    max_file_bytes: int = 1 << 40
    _tokens: Tokens | None = None

    def start(self) -> None:
        from embedcli.models.tokenizer import load_tokenizer

        self._tokens = load_tokenizer(self.model_folder, prompt=self.prompt)

    def __call__(self, task: Source | Records | None, beat: Beat, *, with_forms: bool) -> tuple[Read, ...]:
        """Read one source, or each of some records; of nothing, nothing. Raises UnreadableSource."""
        if task is None:
            return ()
        if isinstance(task, Records):
            return tuple(self._record(task.container, record, beat) for record in task.records)
        return (self._file(task, beat, with_forms=with_forms),)

    def _file(self, source: Source, beat: Beat, *, with_forms: bool) -> Read:
        """A file that changes while it is read is read once more."""
        for _ in range(2):
            try:
                reading = self._read_once(source, beat, with_forms=with_forms)
            except UnreadableSource as error:
                if error.reason != "changed_while_reading":
                    raise
            else:
                if reading is not None:
                    return reading
        raise UnreadableSource("changed_while_reading", source.file)

    def _record(self, container: Source, record: Record, beat: Beat) -> Read:
        source = container.record(record)
        assert container.stat is not None
        stat = Stat(record.size_bytes, container.stat.mtime_ns, 0, 0)
        beat(record.line)
        try:
            if record.problem:
                raise UnreadableSource(record.problem)
            if record.data is not None:
                document = formats.read(io.BytesIO(record.data), name="mail.eml", beat=beat)
                return self._with_members(source, document, stat, record.digest, beat, depth=1)
            text = clean(record.text, pdf=False)
            if not text or text.isspace():
                raise UnreadableSource("no_text")
            document = Document(text, title=record.title, meta=record.meta)
            return Read(self._rows(source, document, stat, record.digest, beat))
        except UnreadableSource as error:
            return Read(UnreadableSource(error.reason, error.detail, record.digest))

    def _with_members(
        self, source: Source, document: Document, stat: Stat, sha256: str, beat: Beat, *, depth: int = 0
    ) -> Read:
        inside = document.members if depth <= DEEPEST_MEMBER else ()
        if inside and not document.text:
            own: Reading | Holder = Holder(stat, sha256)
        else:
            own = self._rows(source, document, stat, sha256, beat)
        members = []
        for name, (file_name, data) in zip(distinct([name for name, _ in inside]), inside, strict=True):
            read = self._member(source.member(name), file_name, data, stat, beat, depth=depth + 1)
            if not (isinstance(read.own, UnreadableSource) and read.own.reason in SKIP_REASONS):
                members.append((name, read))
        if isinstance(own, Holder) and not members:
            raise UnreadableSource("no_text", "nothing inside can be read")
        return Read(own, tuple(members))

    def _member(self, source: Source, file_name: str, data: bytes, stat: Stat, beat: Beat, *, depth: int) -> Read:
        stat = Stat(len(data), stat.mtime_ns, 0, 0)
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            document = formats.read(io.BytesIO(data), name=file_name, beat=beat)
            return self._with_members(source, document, stat, sha256, beat, depth=depth)
        except UnreadableSource as error:
            return Read(UnreadableSource(error.reason, error.detail, sha256))

    def _read_once(self, source: Source, beat: Beat, *, with_forms: bool) -> Read | None:
        """What was read, or None where the file changed meanwhile."""
        with opened(source, folder=self.spool_folder, beat=beat) as open_source:
            file, size_bytes = open_source.file, open_source.stat.size
            if size_bytes > self.max_file_bytes and not source.path.lower().endswith(READ_IN_PARTS):
                raise UnreadableSource("too_large")
            try:
                sha256 = sha256_of(file, size_bytes, beat)
                document = formats.read(file, name=source.path, beat=beat, with_forms=with_forms)
                read = self._with_members(source, document, open_source.trusted, sha256, beat)
            except OSError as error:
                raise UnreadableSource("io", str(error)) from error
            except UnreadableSource as error:
                raise UnreadableSource(error.reason, error.detail, sha256) from error
            return None if open_source.has_changed() else read

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
            replaced=document.text.count("\ufffd"),
            stream=stream,
        )


def distinct(names: Sequence[str]) -> list[str]:
    """The names, those that come again with a number: `offer.pdf (2)`."""
    times: Counter[str] = Counter()
    found = []
    for name in names:
        times[name] += 1
        found.append(name if times[name] == 1 else f"{name} ({times[name]})")
    return found


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
            "meta": document.meta,
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
