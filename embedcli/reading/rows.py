"""What a reading process does with one source: digest, document, chunks, rows. It never runs in the parent.

In: a Source, or records of a container. Out: of each, and of the documents inside it, a Reading: the rows as an Arrow
stream (all columns but those the vector brings, with each chunk's token ids and vector key beside them), or
UnreadableSource; of records that need nothing special one ReadRecords for all of them. A document's chunks are all made
before the first one leaves, so a reader that dies has produced nothing.
Not here: the formats (formats.py), the cuts (chunker.py), the limits (pool.py).
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedcli.columns import READ_SCHEMA, SCHEMA
from embedcli.errors import UnreadableSource, storage_errors
from embedcli.reading import chunker, formats
from embedcli.reading.source_file import opened, sha256_of
from embedcli.reading.text.clean import clean
from embedcli.records import (
    SKIP_REASONS,
    Beat,
    Chunk,
    Document,
    Record,
    Records,
    Source,
    Stat,
    digest,
    shown_id,
)
from embedcli.sources.walk import READ_IN_PARTS

if TYPE_CHECKING:
    from embedcli.models.tokenizer import Tokens

SPOOL_BYTES = 64 << 20
LONG_RECORD = 1 << 20
"""A record of more code points is read by itself, as a file is."""
_BATCH_CHUNKS = 1024
DEEPEST_MEMBER = 2
"""A mail in a mail is read with its own attachments, one in that without."""


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
            return _table(self.stream)
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


SENT = pa.schema([field for field in SCHEMA if field.name not in READ_SCHEMA.names])

RECORDS_READ = pa.schema(
    [
        ("place", pa.int32()),
        ("path", pa.string()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
        ("chunks", pa.int32()),
        ("tokens", pa.int64()),
        ("latin_share", pa.float32()),
        ("replaced", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class ReadRecords:
    """Records of a container that were read at once: one of them costs a few microseconds, not a table of its own.

    `documents`: an Arrow stream of RECORDS_READ, a row for each record that became a document, with its place in the
    task; `stream`: the rows of all of them, those of one document after those of another, and `sent` what a Reading has
    beside them: these are not needed any more when the engine has them. `apart`: the other records by their places.
    """

    documents: bytes
    stream: bytes
    sent: bytes
    apart: tuple[tuple[int, Read], ...]

    def documents_table(self) -> pa.Table:
        return _table(self.documents)

    def table(self) -> pa.Table:
        """All that a Reading's table has."""
        rows, sent = _table(self.stream), _table(self.sent)
        return pa.table([*rows.columns, *sent.columns], schema=SCHEMA)


def _table(stream: bytes) -> pa.Table:
    return pa.ipc.open_stream(pa.BufferReader(stream)).read_all()


Result = tuple[Read, ...] | ReadRecords
"""What is read of one task."""


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

    def __call__(self, task: Source | Records | None, beat: Beat, *, with_forms: bool) -> Result:
        """Read one source, or some records; of nothing, nothing. Raises UnreadableSource."""
        if task is None:
            return ()
        if isinstance(task, Source):
            return (self._file(task, beat, with_forms=with_forms),)
        if len(task.records) == 1:
            return (self._record(task.container, task.records[0], beat),)
        return self._records(task, beat)

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
        source, stat = container.record(record), _stat_of_record(container, record)
        beat(record.line)
        try:
            if record.problem:
                raise UnreadableSource(record.problem)
            if record.data is not None:
                document = formats.read(io.BytesIO(record.data), name="mail.eml", beat=beat)
                return self._with_members(source, document, stat, record.digest, beat, depth=1)
            return Read(self._rows(source, _document_of(record), stat, record.digest, beat))
        except UnreadableSource as error:
            return Read(UnreadableSource(error.reason, error.detail, record.digest))

    def _records(self, task: Records, beat: Beat) -> ReadRecords:
        """Those that are plain text together, the others one by one."""
        rows, read, apart = self._new_rows(), _RecordsRead(), []
        for place, record in enumerate(task.records):
            if record.problem or record.data is not None or len(record.text) > LONG_RECORD:
                apart.append((place, self._record(task.container, record, beat)))
                continue
            beat(record.line)
            try:
                document = _document_of(record)
                chunks = list(self._chunks(document, beat))
            except UnreadableSource as error:
                apart.append((place, Read(UnreadableSource(error.reason, error.detail, record.digest))))
                continue
            source = task.container.record(record)
            before = rows.tokens
            rows.begin(source, document, _stat_of_record(task.container, record))
            rows.add(chunks)
            read.add(place, source, record, document.text, chunks=len(chunks), tokens=rows.tokens - before)
        batch = rows.batch()
        return ReadRecords(
            documents=read.stream(),
            stream=_to_memory([batch.select(READ_SCHEMA.names)], READ_SCHEMA),
            sent=_to_memory([batch.select(SENT.names)], SENT),
            apart=tuple(apart),
        )

    def _with_members(
        self, source: Source, document: Document, stat: Stat, sha256: str, beat: Beat, *, depth: int = 0
    ) -> Read:
        inside = document.members if depth <= DEEPEST_MEMBER else ()
        if inside and not document.text:
            own: Reading | Holder = Holder(stat, sha256)
        else:
            own = self._rows(source, document, stat, sha256, beat)
        names, members = distinct([name for name, _ in inside], source.taken), []
        for name, (file_name, data) in zip(names, inside, strict=True):
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
        rows = self._new_rows()
        rows.begin(source, document, stat)
        batches = rows.batches(self._chunks(document, beat))
        spool = len(document.text) * 4 > SPOOL_BYTES
        stream = _to_file(batches, self.spool_folder) if spool else _to_memory(batches)
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

    def _new_rows(self) -> _Rows:
        return _Rows(keep_text=self.keep_text, model_fingerprint=self.model_fingerprint)

    def _chunks(self, document: Document, beat: Beat) -> Iterator[Chunk]:
        """With a beat after each: cutting one of 32,768 tokens takes long."""
        assert self._tokens is not None
        for chunk in chunker.split(document, self._tokens, max_tokens=self.max_tokens, overlap=self.overlap):
            beat(0)
            yield chunk


def _stat_of_record(container: Source, record: Record) -> Stat:
    assert container.stat is not None
    return Stat(record.size_bytes, container.stat.mtime_ns, 0, 0)


def _document_of(record: Record) -> Document:
    text = clean(record.text, pdf=False)
    if not text or text.isspace():
        raise UnreadableSource("no_text")
    return Document(text, title=record.title, meta=record.meta)


def distinct(names: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """The names, each once: one that comes again, or that is `taken` as it is shown, with a number: `offer.pdf (2)`."""
    used = set(taken)
    times: Counter[str] = Counter()
    found = []
    for name in names:
        free = name
        while shown_id(free) in used:
            times[name] += 1
            free = f"{name} ({times[name] + 1})"
        used.add(shown_id(free))
        found.append(free)
    return found


def latin_share(text: str) -> float:
    """The share of Latin letters among the letters of the first 10,000 characters; 1.0 without letters."""
    if text.isascii():
        return 1.0
    letters = [c for c in text[:10_000] if c.isalpha()]
    return sum(c < "\u0250" or "\u1e00" <= c <= "\u1eff" for c in letters) / len(letters) if letters else 1.0


class _RecordsRead:
    """Makes the table of documents of a ReadRecords."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def add(self, place: int, source: Source, record: Record, text: str, *, chunks: int, tokens: int) -> None:
        self._rows.append(
            (
                place, source.path, source.uri, record.size_bytes, record.digest, chunks, tokens, latin_share(text),
                text.count("\ufffd"),
            )
        )  # fmt: skip

    def stream(self) -> bytes:
        return _to_memory([pa.record_batch(_arrays(self._rows, RECORDS_READ), schema=RECORDS_READ)], RECORDS_READ)


_BUT_IDS = pa.schema([field for field in SCHEMA if field.name != "ids"])


class _Rows:
    """Makes record batches of SCHEMA out of the chunks of documents, one after another; counts chunks and tokens."""

    def __init__(self, *, keep_text: bool, model_fingerprint: str) -> None:
        self._keep_text = keep_text
        self._fingerprint = model_fingerprint.encode()
        self._rows: list[tuple[Any, ...]] = []
        """The values of _BUT_IDS."""
        self._ids: list[NDArray[np.uint32]] = []
        self.count = 0
        self.tokens = 0

    def begin(self, source: Source, document: Document, stat: Stat) -> None:
        """The next chunks are those of this document."""
        self._key = source.key
        self._document = document
        self._first = self.count
        self._seen: Counter[str] = Counter()
        self._constant = (digest(*source.key), source.uri, source.path, document.title)
        self._constant_end = (stat.mtime_ns // 1000, document.meta)

    def batches(self, chunks: Iterator[Chunk]) -> Iterator[pa.RecordBatch]:
        """All chunks of the document, some at a time."""
        while some := list(islice(chunks, _BATCH_CHUNKS)):
            self.add(some)
            yield self.batch()

    def batch(self) -> pa.RecordBatch:
        """The chunks that were added since the last one."""
        *columns, key = _arrays(self._rows, _BUT_IDS)
        ids = _lists(self._ids)
        self._rows, self._ids = [], []
        return pa.record_batch([*columns, ids, key], schema=SCHEMA)

    def add(self, chunks: Sequence[Chunk]) -> None:
        document = self._document
        for chunk in chunks:
            text = document.text[chunk.char_start : chunk.char_end]
            text_digest = digest(text)
            ids = np.ascontiguousarray(chunk.token_ids, "<u4")
            self._rows.append(
                (
                    digest(*self._key, text_digest, self._seen[text_digest]),
                    *self._constant,
                    self.count - self._first,
                    None,
                    *chunker.page_span(document, chunk.char_start, chunk.char_end),
                    chunker.section_at(document, chunk.core_start),
                    chunk.char_start,
                    chunk.char_end,
                    chunk.core_start,
                    len(ids),
                    text if self._keep_text else None,
                    text_digest,
                    *self._constant_end,
                    hashlib.blake2b(ids.tobytes() + self._fingerprint, digest_size=16).digest(),
                )
            )
            self._ids.append(ids)
            self._seen[text_digest] += 1
            self.count += 1
            self.tokens += len(ids)


def _arrays(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> list[pa.Array]:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]


def _lists(arrays: Sequence[NDArray[np.uint32]]) -> pa.ListArray:
    offsets = np.cumsum([0, *map(len, arrays)]).astype(np.int32)
    flat = np.concatenate([np.empty(0, np.uint32), *arrays])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def _write(batches: Iterable[pa.RecordBatch], sink: Any, schema: pa.Schema) -> None:
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _to_memory(batches: Iterable[pa.RecordBatch], schema: pa.Schema = SCHEMA) -> bytes:
    sink = pa.BufferOutputStream()
    _write(batches, sink, schema)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def _to_file(batches: Iterable[pa.RecordBatch], folder: Path) -> Path:
    """The path of the file that has the stream. Raises StorageError: a full disk is not the source's fault."""
    with storage_errors(folder):
        descriptor, name = tempfile.mkstemp(prefix="spool-", dir=folder)
        try:
            os.close(descriptor)
            with pa.OSFile(name, "wb") as sink:
                _write(batches, sink, SCHEMA)
        except BaseException:
            os.unlink(name)
            raise
    return Path(name)
