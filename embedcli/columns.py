"""The columns of a row of the index, and the array types that travel with rows.

In: nothing. Out: the Arrow schemas of a row as a reader makes it, as the engine gets it, and as a shard stores it; and
a row as JSON has it.
Not here: the columns of documents.parquet (index/documents.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import embedcli.arrow  # noqa: F401 - before the first array is made

VectorKeys = npt.NDArray[np.uint64]
"""Vector keys, shape [2, n]: the high and the low half of each blake2b-128."""
Floats = npt.NDArray[np.float32]

_BEFORE_VECTOR = [
    pa.field("chunk_id", pa.string()),
    pa.field("doc_id", pa.string()),
    pa.field("uri", pa.string()),
    pa.field("path", pa.string()),
    pa.field("title", pa.string()),
    pa.field("chunk_index", pa.int32()),
    pa.field("chunk_count", pa.int32()),
    pa.field("page_start", pa.int32()),
    pa.field("page_end", pa.int32()),
    pa.field("section", pa.string()),
    pa.field("char_start", pa.int64()),
    pa.field("char_end", pa.int64()),
    pa.field("core_start", pa.int64()),
    pa.field("token_count", pa.int32()),
    pa.field("text", pa.string()),
    pa.field("chunk_digest", pa.string()),
    pa.field("modified_at", pa.timestamp("us", tz="UTC")),
    pa.field("meta", pa.string()),
]
READ_SCHEMA = pa.schema(_BEFORE_VECTOR)
"""A row as the reader processes make it: all but `changed_in` and `vector`."""

SCHEMA = pa.schema([*READ_SCHEMA, ("ids", pa.list_(pa.uint32())), ("key", pa.binary(16))])
"""A row as a reader makes it, with what the engine needs: the token ids and the vector key."""


def row_schema(dim: int) -> pa.Schema:
    """The schema of every shard of an index of `dim` dimensions."""
    vector = pa.field("vector", pa.list_(pa.float32(), dim))
    return pa.schema([*_BEFORE_VECTOR, pa.field("changed_in", pa.int64()), vector])


def row_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of Python values as JSON has it: its time in ISO format, `meta` parsed."""
    modified_at, meta = row["modified_at"], row["meta"]
    return {
        **row,
        "modified_at": modified_at and modified_at.isoformat(),
        "meta": json.loads(meta) if meta else None,
    }
