"""Parquet and Arrow files -> Records, a batch of rows at a time.

In: a file (Parquet, Arrow's file format) or a stream (Arrow's stream format), a RecordRule. Out: a Record for each row.
Raises UnreadableSource.
Not here: the fields (fields.py), the index's own Parquet (index/shards.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.errors import UnreadableSource
from embedcli.reading.containers.fields import Fields, bad_line
from embedcli.records import Record, RecordRule

BATCH_ROWS = 512
_BROKEN = (pa.ArrowException, OSError, ValueError, KeyError)


def parquet_rows(file: BinaryIO, rule: RecordRule) -> Iterator[Record]:
    try:
        parquet = pq.ParquetFile(_native(file), pre_buffer=False)
        names = parquet.schema_arrow.names
        batches = parquet.iter_batches(BATCH_ROWS, use_threads=False)
    except _BROKEN as error:
        raise UnreadableSource("damaged", str(error)) from error
    return _rows(batches, names, rule)


def arrow_rows(file: BinaryIO, rule: RecordRule, *, is_stream: bool) -> Iterator[Record]:
    try:
        if is_stream:
            reader = pa.ipc.open_stream(file)
            return _rows(reader, reader.schema.names, rule)
        whole = pa.ipc.open_file(_native(file))
        batches = (whole.get_batch(number) for number in range(whole.num_record_batches))
        return _rows(batches, whole.schema.names, rule)
    except _BROKEN as error:
        raise UnreadableSource("damaged", str(error)) from error


def _native(file: BinaryIO) -> pa.NativeFile:
    """The same file, opened by Arrow itself. Arrow's threads read the end of a file and what they expect to be asked
    for, and may still hold the file when the process ends: a thread that calls a Python object then aborts it."""
    return pa.OSFile(f"/dev/fd/{file.fileno()}")


def _rows(batches: Iterable[pa.RecordBatch], names: list[str], rule: RecordRule) -> Iterator[Record]:
    if not set(rule.text) & set(names):
        raise UnreadableSource("no_text", f"no column `{'`, `'.join(rule.text)}` among {', '.join(names)[:200]}")
    return _records(batches, names, rule)


def _records(batches: Iterable[pa.RecordBatch], names: list[str], rule: RecordRule) -> Iterator[Record]:
    number, fields = 0, Fields(rule)
    try:
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                columns = [_cells(column) for column in batch.slice(start, BATCH_ROWS).columns]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield _record(dict(zip(names, cells, strict=True)), number, fields)
    except _BROKEN as error:
        raise UnreadableSource("damaged", f"after row {number}: {error}") from error


def _record(row: dict[str, Any], number: int, fields: Fields) -> Record:
    for cell in row.values():
        if isinstance(cell, Exception):
            problem = "not_utf8" if isinstance(cell, UnicodeDecodeError) else "damaged"
            return bad_line(number, problem, repr(row).encode())
    return fields.record_of(row, number) or bad_line(number, "no_text", repr(tuple(row.values())).encode())


def _cells(column: pa.Array) -> list[Any]:
    """The values of a column, nanoseconds as text, because Python's times have none; the error in place of a value that
    cannot be read."""
    kind = column.type
    if (pa.types.is_timestamp(kind) or pa.types.is_time64(kind)) and kind.unit == "ns":
        column = column.cast(pa.string())
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):
        return [_cell(value) for value in column]
    return values


def _cell(value: pa.Scalar) -> Any:
    """A value; a date outside the years that Python knows is Arrow's text for it."""
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return error
    except (ValueError, OverflowError) as error:
        try:
            return value.cast(pa.string()).as_py()
        except (pa.ArrowException, ValueError):
            return error
