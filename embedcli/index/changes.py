"""Two versions of some documents -> what was added, changed and removed, chunk by chunk.

In: the documents tables (which say where rows lie) of the current and of the next generation, or the shards of two
published generations. Out: the table that becomes `changes/<number>.parquet`, and the documents of which no column
changed, so that they keep their old rows.
Not here: writing the change list (publish.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.columns import READ_SCHEMA
from embedcli.index import compaction, documents, shards
from embedcli.index.shards import Shard

SCHEMA = pa.schema([("chunk_id", pa.string()), ("op", pa.string())])
_NOT_COMPARED = {"text", "chunk_id"}  # chunk_digest stands for the text
_VERSION = pa.schema([("chunk_id", pa.string()), ("doc_id", pa.string()), ("changed_in", pa.int64())])
_COMPARED = [name for name in READ_SCHEMA.names if name not in _NOT_COMPARED]


@dataclass(frozen=True)
class Changes:
    """`table`: chunk_id, op (added, changed, removed). `unchanged_doc_ids`: documents whose new rows equal the old."""

    table: pa.Table
    unchanged_doc_ids: frozenset[str]


def compare(before: pa.Table, after: pa.Table, known: Mapping[str, Shard], *, vectors_changed: bool) -> Changes:
    """Compare documents that were removed or replaced (`before`) with new ones (`after`); both are documents tables.

    With `vectors_changed` (a rebuild) every chunk that stays is `changed`. Only documents on both sides are compared
    column by column; of all others only the chunk ids are read.
    """
    left, came = _only(before, after), _only(after, before)
    ops = [_ops(_located(came, known, ["chunk_id"]), "added"), _ops(_located(left, known, ["chunk_id"]), "removed")]
    both_before, both_after = (
        documents.without(before, documents.keys(left)),
        documents.without(after, documents.keys(came)),
    )
    unchanged: frozenset[str] = frozenset()
    if both_after.num_rows:
        columns = ["chunk_id", "doc_id"] if vectors_changed else ["chunk_id", *_COMPARED]
        old, new = (_located(table, known, columns) for table in (both_before, both_after))
        compared, unchanged = _side_by_side(old, new, None if vectors_changed else _COMPARED)
        ops += compared
    return Changes(pa.concat_tables(ops).combine_chunks(), unchanged)


def between(before: Sequence[Path], after: Sequence[Path]) -> pa.Table:
    """The changes that turn the rows of the shards `before` into those of the shards `after`. Raises DamagedShard.

    Shards on both sides are not read. Two rows are the same row when chunk_id and `changed_in` are equal.
    """
    shared = {path.name for path in before} & {path.name for path in after}
    old, new = (_versions(path for path in paths if path.name not in shared) for paths in (before, after))
    compared, _ = _side_by_side(old, new, ["changed_in"])
    return pa.concat_tables(compared).combine_chunks()


def _versions(paths: Iterable[Path]) -> pa.Table:
    parts = (part for path in paths for part in shards.read_rows(path, [(0, sys.maxsize)], _VERSION.names))
    return pa.concat_tables([_VERSION.empty_table(), *(part.cast(_VERSION) for part in parts)])


def _only(table: pa.Table, other: pa.Table) -> pa.Table:
    """The documents of `table` that are not in `other`."""
    mask = pc.is_in(documents.join_keys(table), value_set=documents.join_keys(other).combine_chunks())
    return table.filter(pc.invert(mask))


def _side_by_side(old: pa.Table, new: pa.Table, columns: Sequence[str] | None) -> tuple[list[pa.Table], frozenset[str]]:
    """Compare rows by chunk_id; returns the operations, and the ids of documents that need none.

    Rows on both sides are equal when `columns` are; with `columns` None every such row counts as changed.
    """
    added = pc.invert(pc.is_in(new.column("chunk_id"), value_set=old.column("chunk_id").combine_chunks()))
    removed = pc.invert(pc.is_in(old.column("chunk_id"), value_set=new.column("chunk_id").combine_chunks()))
    stays_old = old.filter(pc.invert(removed)).sort_by("chunk_id")
    stays_new = new.filter(pc.invert(added)).sort_by("chunk_id")
    every = np.full(stays_new.num_rows, columns is None)
    changed = pa.array(every | different(stays_old, stays_new, columns or []))
    parts = {"added": new.filter(added), "changed": stays_new.filter(changed), "removed": old.filter(removed)}
    touched = {doc for part in parts.values() for doc in part.column("doc_id").unique().to_pylist()}
    unchanged = frozenset(stays_new.column("doc_id").unique().to_pylist()) - touched
    return [_ops(part, op) for op, part in parts.items()], unchanged


def _ops(rows: pa.Table, op: str) -> pa.Table:
    return pa.table([rows.column("chunk_id"), pa.repeat(op, rows.num_rows)], schema=SCHEMA)


def _located(table: pa.Table, known: Mapping[str, Shard], columns: Sequence[str]) -> pa.Table:
    schema = pa.schema([READ_SCHEMA.field(name) for name in columns])
    parts = [
        part.take(pa.array(np.arange(part.num_rows)))  # a copy: a slice would keep its whole row group in memory
        for piece in compaction.live_pieces(table, known)
        for part in shards.read_rows(piece.shard.path, piece.ranges, columns)
    ]
    return pa.concat_tables([schema.empty_table(), *(part.select(columns).cast(schema) for part in parts)])


def different(old: pa.Table, new: pa.Table, columns: Sequence[str]) -> npt.NDArray[np.bool_]:
    """For each pair of rows at the same place whether any of `columns` differs (null equals null)."""
    found = np.zeros(new.num_rows, np.bool_)
    for name in columns:
        left, right = old.column(name), new.column(name)
        same = pc.if_else(
            pc.or_(pc.is_null(left), pc.is_null(right)),
            pc.and_(pc.is_null(left), pc.is_null(right)),
            pc.fill_null(pc.equal(left, right), False),
        )
        found |= ~np.asarray(same, np.bool_)
    return found
