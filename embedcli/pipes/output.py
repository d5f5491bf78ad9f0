"""Tables of rows on a stream, in the format asked for: JSON lines, CSV, an Arrow stream, Parquet, or a .npy of vectors.

In: Arrow tables of one schema, each written as it comes. Out: bytes on the stream. JSON lines, CSV and Arrow leave at
once; Parquet leaves by row groups; .npy, which begins with its length, when all is known.
Not here: which rows (verbs/embed.py, verbs/rows.py).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from shutil import copyfileobj
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.columns import Floats
from embedcli.index.shards import ROW_GROUP_ROWS, regroup
from embedcli.vault.disk import temporary_file

SLICE_ROWS = 1024
JSON_TEXT = {b"holds": b"json"}
"""Metadata of a column of strings that are JSON: they are written into JSON lines as they are."""


class Writer(Protocol):
    """Writes tables. `finish` ends a complete output; without it, a file with an end of its own lacks it."""

    def write(self, table: pa.Table) -> None: ...

    def finish(self) -> None: ...


def open_writer(name: str, out: BinaryIO, schema: pa.Schema) -> Writer:
    """The writer of that format (a key of FORMATS)."""
    return FORMATS[name](out, schema)


class JsonLines:
    """An object a row; floats with the fewest digits that give the same float32."""

    def __init__(self, out: BinaryIO, schema: pa.Schema) -> None:
        import orjson

        self._out = out
        self._schema = schema
        self._dumps = orjson.dumps
        self._fragment = orjson.Fragment
        self._options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z

    def write(self, table: pa.Table) -> None:
        names = table.schema.names
        for part in _slices(table):
            columns = [self._values(field, part.column(field.name)) for field in self._schema]
            lines = [
                self._dumps(dict(zip(names, row, strict=True)), option=self._options)
                for row in zip(*columns, strict=True)
            ]
            self._out.write(b"".join(lines))
        self._out.flush()

    def finish(self) -> None:
        """Every line was whole."""

    def _values(self, field: pa.Field, column: pa.ChunkedArray) -> Iterable[Any]:
        if pa.types.is_fixed_size_list(field.type):
            return vector_rows(column)
        values: list[Any] = column.to_pylist()
        if field.metadata == JSON_TEXT:
            return [None if value is None else self._fragment(value) for value in values]
        return values


class Csv:
    """A heading, then a line a row; a vector is the text `[0.1,...]`, which pgvector reads too. A null is nothing; as
    the only column of a row it is `""`, for most programs skip empty lines."""

    def __init__(self, out: BinaryIO, schema: pa.Schema) -> None:
        import pyarrow.csv as csv

        self._out = out
        self._is_alone = len(schema) == 1
        self._schema = pa.schema([(field.name, self._type(field.type)) for field in schema])
        self._writer = csv.CSVWriter(out, self._schema)

    def write(self, table: pa.Table) -> None:
        for part in _slices(table):
            columns = [self._column(column) for column in part.columns]
            self._writer.write(pa.table(columns, schema=self._schema))
        self._out.flush()

    def _type(self, kind: pa.DataType) -> pa.DataType:
        return pa.string() if self._is_alone or pa.types.is_fixed_size_list(kind) else kind

    def _column(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        plain = _vector_texts(column) if pa.types.is_fixed_size_list(column.type) else column
        return plain.cast(pa.string()).fill_null("") if self._is_alone else plain

    def finish(self) -> None:
        self._writer.close()
        self._out.flush()


class ArrowStream:
    """The IPC stream format."""

    def __init__(self, out: BinaryIO, schema: pa.Schema) -> None:
        self._out = out
        self._writer = pa.ipc.new_stream(out, schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)
        self._out.flush()

    def finish(self) -> None:
        self._writer.close()
        self._out.flush()


class Parquet:
    """Row groups of 8,192 rows."""

    def __init__(self, out: BinaryIO, schema: pa.Schema) -> None:
        self._out = out
        self._gate = _Gate(out)
        self._waiting = [schema.empty_table()]
        self._rows = 0
        with self._gate:
            self._writer = pq.ParquetWriter(pa.PythonFile(self._gate, mode="w"), schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._rows += table.num_rows
        if self._rows >= ROW_GROUP_ROWS:
            *groups, last = regroup(iter(self._waiting), ROW_GROUP_ROWS)
            self._write(groups or [last])
            self._waiting = [last] if groups else [last.slice(0, 0)]
            self._rows = sum(waiting.num_rows for waiting in self._waiting)

    def finish(self) -> None:
        self._write([pa.concat_tables(self._waiting)] if self._rows else [])
        with self._gate:
            self._writer.close()
        self._out.flush()

    def _write(self, groups: Iterable[pa.Table]) -> None:
        with self._gate:
            for group in groups:
                self._writer.write_table(group)
        self._out.flush()


class _Gate(io.RawIOBase):
    """Lets bytes through while its context lasts: pyarrow ends a Parquet file that it forgets, as if it were whole."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._is_open = False

    def __enter__(self) -> Self:
        self._is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._out.write(data) if self._is_open else len(data)


class Npy:
    """The vectors alone, float32 [rows, dim]; NaN where there is none. A file keeps them until all are counted."""

    def __init__(self, out: BinaryIO, schema: pa.Schema) -> None:
        self._out = out
        self._name = next(field.name for field in schema if pa.types.is_fixed_size_list(field.type))
        self._dim = schema.field(self._name).type.list_size
        self._kept = temporary_file()
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        for part in _slices(table):
            missing = np.full(self._dim, np.nan, np.float32)
            rows = [missing if row is None else row for row in vector_rows(part.column(self._name))]
            self._kept.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
            self._rows += len(rows)

    def finish(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self._dim)}
        np.lib.format.write_array_header_1_0(self._out, header)
        with self._kept:
            self._kept.seek(0)
            copyfileobj(self._kept, self._out)
        self._out.flush()


FORMATS: Mapping[str, Callable[[BinaryIO, pa.Schema], Writer]] = {
    "jsonl": JsonLines, "arrow": ArrowStream, "parquet": Parquet, "npy": Npy, "csv": Csv,
}  # fmt: skip


def vector_rows(column: pa.ChunkedArray) -> list[Floats | None]:
    """A column of fixed-size lists -> a float32 [dim] for each row, None for null."""
    dim = column.type.list_size
    rows: list[Floats | None] = []
    for chunk in column.chunks:
        values = chunk.values.slice(chunk.offset * dim, len(chunk) * dim).to_numpy(zero_copy_only=False)
        valid = chunk.is_valid().to_pylist()
        rows += [row if good else None for row, good in zip(values.reshape(-1, dim), valid, strict=True)]
    return rows


def vector_column(vectors: list[Floats | None], dim: int) -> pa.FixedSizeListArray:
    """The other way round."""
    nothing = np.zeros(dim, np.float32)
    flat = np.concatenate([nothing if row is None else row for row in vectors]) if vectors else nothing[:0]
    mask = pa.array([row is None for row in vectors], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), dim, mask=mask)


def _slices(table: pa.Table) -> Iterable[pa.Table]:
    return (table.slice(start, SLICE_ROWS) for start in range(0, table.num_rows, SLICE_ROWS))


def _vector_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import orjson

    texts = [
        None if row is None else orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY).decode()
        for row in vector_rows(column)
    ]
    return pa.chunked_array([pa.array(texts, pa.string())])
