"""Changes as bytes, for what has no store of its own here: JSON lines, Parquet, the `_bulk` lines of Elasticsearch.

In: rows and ids to delete. Out: bytes on a binary stream, deletes first.
Not here: which changes (verbs/changes.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.columns import row_schema
from embedcli.stores.rows import plain, vectors

FORMATS = ("jsonl", "parquet", "es-bulk")


def documents(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows as JSON has them, with their vectors as lists."""
    for row, vector in zip(plain(table), vectors(table).tolist(), strict=True):
        yield {**row, "vector": vector}


def write_jsonl(sink: BinaryIO, rows: Iterable[pa.Table], deletes: Sequence[str], *, last: dict[str, Any]) -> None:
    """A line each: `op` is `delete`, `upsert` with all columns, or, at the end, `done` with what to remember."""
    for chunk_id in deletes:
        sink.write(_line({"op": "delete", "chunk_id": chunk_id}))
    for table in rows:
        for document in documents(table):
            sink.write(_line({"op": "upsert", **document}))
    sink.write(_line({"op": "done", **last}))


def write_bulk(sink: BinaryIO, rows: Iterable[pa.Table], deletes: Sequence[str]) -> None:
    """Pairs of lines for `POST /INDEX/_bulk`: `delete` and `index` actions under the chunk ids."""
    for chunk_id in deletes:
        sink.write(_line({"delete": {"_id": chunk_id}}))
    for table in rows:
        for document in documents(table):
            sink.write(_line({"index": {"_id": document["chunk_id"]}}) + _line(document))


def write_parquet(
    sink: Any, rows: Iterable[pa.Table], deletes: Sequence[str], *, dim: int, last: dict[str, Any]
) -> None:
    """The columns of the index after `op` (`delete`, `upsert`); a deleted row has only its id. What to remember is the
    metadata `embedcli.changes` of the file."""
    columns = [field.with_nullable(True) for field in row_schema(dim)]
    schema = pa.schema([("op", pa.string()), *columns], metadata={"embedcli.changes": json.dumps(last)})
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        if deletes:
            ids = pa.array(deletes, pa.string())
            arrays = [pa.repeat("delete", len(ids)), ids, *(pa.nulls(len(ids), field.type) for field in columns[1:])]
            writer.write_table(pa.table(arrays, schema=schema))
        for table in rows:
            arrays = [pa.repeat("upsert", table.num_rows), *(table.column(field.name) for field in columns)]
            writer.write_table(pa.table(arrays, schema=schema))


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
