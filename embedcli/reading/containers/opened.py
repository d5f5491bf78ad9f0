"""An open file -> the Records of a container: what compresses it, which format it has.

In: a file, its name and how its records are read. Out: Records as a stream, or None where the file is no container (a
JSON file without a field of text, an archive). Raises UnreadableSource.
Not here: the formats (lines.py, columns.py, mailbox.py), which files are asked about (sources/containers.py).
"""

from __future__ import annotations

import gzip
import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pyarrow as pa

from embedcli.errors import UnreadableSource, storage_errors
from embedcli.reading.containers import columns, lines, mailbox
from embedcli.records import Record
from embedcli.sources.containers import suffix_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from embedcli.sources.containers import Asked

BLOCK_BYTES = 1 << 20
MOST_UNPACKED = 100
"""Times its size that a compressed file of columns may take on disk."""
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PARQUET, _ARROW, _ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException)


def records_in(file: BinaryIO, name: str, asked: Asked, *, spool_folder: Path) -> Iterator[Record] | None:
    magic = file.read(4)
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    packed = magic.startswith((_GZIP, _ZSTD))
    head, stream = _with_head(_unpacked(file, magic))
    if not head.strip():
        raise UnreadableSource("empty")
    if not head.startswith((_PARQUET, _ARROW)):
        return _streamed(head, stream, suffix_of(name), asked)
    if not packed:
        file.seek(0)
        return _searched(file, head, asked)
    spooled = _spooled(stream, spool_folder, MOST_UNPACKED * size_bytes)
    try:
        records = _searched(spooled, head, asked)
    except UnreadableSource:
        spooled.close()
        raise
    return None if records is None else _closing(records, spooled)


def _searched(file: BinaryIO, head: bytes, asked: Asked) -> Iterator[Record] | None:
    try:
        if head.startswith(_PARQUET):
            return columns.parquet_rows(file, asked.rule)
        return columns.arrow_rows(file, asked.rule, is_stream=False)
    except UnreadableSource as error:
        if error.reason == "no_text" and not asked.named:
            return None
        raise


def _closing(records: Iterator[Record], file: BinaryIO) -> Iterator[Record]:
    with file:
        yield from records


def _streamed(head: bytes, stream: BinaryIO, suffix: str, asked: Asked) -> Iterator[Record] | None:
    if head.startswith(_ARROW_STREAM):
        return _guarded(columns.arrow_rows(stream, asked.rule, is_stream=True))
    if head.startswith(b"From ") and (suffix == ".mbox" or not asked.named):
        return _guarded(mailbox.mails(stream))
    is_json = head.removeprefix(lines.BOM).lstrip().startswith(b"{") and suffix not in (".csv", ".tsv", ".tab")
    if suffix in (".jsonl", ".ndjson") or is_json:
        is_records = asked.named or lines.are_records(head, asked.rule)
        return _guarded(lines.json_lines(stream, asked.rule)) if is_records else None
    return _guarded(lines.tables(stream, asked.rule, suffix=suffix)) if asked.named else None


def _guarded(records: Iterator[Record]) -> Iterator[Record]:
    """What decompressing raises is raised half-way."""
    with _broken_is_damaged():
        yield from records


@contextmanager
def _broken_is_damaged() -> Iterator[None]:
    """Arrow says with an OSError that its stream is torn, and that has no errno."""
    try:
        yield
    except _BROKEN as error:
        raise UnreadableSource("damaged", str(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnreadableSource("damaged", str(error)) from error


def _unpacked(file: BinaryIO, magic: bytes) -> Any:
    if magic.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file)
    if magic.startswith(_ZSTD):
        # Arrow closes what it reads when it is through
        return pa.CompressedInputStream(pa.PythonFile(os.fdopen(os.dup(file.fileno()), "rb")), "zstd")
    return file


def _with_head(source: Any) -> tuple[bytes, BinaryIO]:
    """The beginning of a stream, and the whole of it."""
    head = bytearray()
    with _broken_is_damaged():
        while len(head) < lines.LOOK_BYTES and (part := source.read(lines.LOOK_BYTES - len(head))):
            head += part
    return bytes(head), cast(BinaryIO, io.BufferedReader(_Joined(bytes(head), source), BLOCK_BYTES))


class _Joined(io.RawIOBase):
    """What was read of a source already, then the rest of it."""

    def __init__(self, head: bytes, rest: Any) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        part = self._head[: len(view)] or self._rest.read(len(view))
        self._head = self._head[len(view) :]
        view[: len(part)] = part
        return len(part)


def _spooled(stream: BinaryIO, folder: Path, most_bytes: int) -> BinaryIO:
    """A file without a name that holds what the stream does. Raises StorageError where it cannot be written."""
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    try:
        with _broken_is_damaged():
            while block := stream.read(BLOCK_BYTES):
                if file.tell() > most_bytes:
                    raise UnreadableSource("too_large", "unpacked")
                with storage_errors(folder):
                    file.write(block)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return cast(BinaryIO, file)
