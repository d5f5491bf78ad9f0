"""Finished and removed documents -> the documents table of the next generation.

In: the documents of the current generation, the outcomes of this run, the keys of documents to remove. Out: the
documents table to publish, its changes against the current one, and small changes that only `state/` needs.
Not here: writing any of it (publish.py), which documents are removed (run/plan.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.errors import DamagedShard
from embedcli.index import documents
from embedcli.index.changes import Changes, compare
from embedcli.index.documents import DocumentRow, Mark
from embedcli.index.shards import Shard
from embedcli.records import SourceKey, digest

_PLACE = ("shard", "first_row", "rows", "chunks", "tokens", "missing")
_TRIED = ("attempts", "tried")
_STAT = ("size", "mtime_ns", "ctime_ns", "inode", "attempts")
_FINGERPRINTS = ("model_fingerprint", "chunk_fingerprint", "read_fingerprint")


@dataclass(frozen=True)
class NextTable:
    """The documents to publish, in walk order, and their `changes`.

    `material`: a reader of the index can see a difference, so the table must be published; otherwise the run only
    stores the `seen` marks. `untold`: `changes` lacks removed rows, because their ids could not be read.
    """

    table: pa.Table
    changes: pa.Table
    material: bool
    seen: tuple[Mark, ...]
    untold: bool


def edit(
    base: pa.Table,
    rows: pa.Table,
    marks: Sequence[Mark],
    *,
    dropped: Collection[SourceKey],
    seen: Sequence[Mark],
    shards: Mapping[str, Shard],
    damaged: Collection[str],
    roots: Sequence[str],
    rebuilding: bool,
) -> NextTable:
    """Replace, mark and drop documents of `base`.

    A document of which no column changed keeps its old rows, unless their shard is `damaged`.
    """
    replaced, kept = documents.parted(base, rows)
    staying = documents.without(kept, dropped)
    leaving = base if rebuilding else pa.concat_tables([replaced, kept.take(documents.positions(kept, dropped))])
    coming = rows.filter(pc.greater(rows.column("rows"), 0))
    compared, untold = _compare(leaving, coming, shards, damaged, rebuilding=rebuilding)
    material, small = bool(dropped) or rebuilding or _marks_matter(base, marks), []
    if rebuilding:  # a document without rows has none under the new settings either
        staying = staying.filter(pc.equal(staying.column("rows"), 0))
    else:
        again, new = documents.parted(rows, replaced)
        placed, different = _with_old_places(again, replaced, compared.unchanged_doc_ids)
        material = material or bool(new.num_rows) or different
        small = [Mark(row.key, {name: getattr(row, name) for name in _STAT}) for row in placed]
        rows = pa.concat_tables([new, documents.from_rows(placed)])
    whole = pa.concat_tables([documents.amend(staying, [*seen, *marks]), rows])
    tried = [Mark(m.key, {name: m.columns[name] for name in _TRIED if name in m.columns}) for m in marks]
    remembered = [*seen, *small, *tried]
    return NextTable(documents.in_walk_order(whole, roots), compared.table, material, tuple(remembered), untold)


def _with_old_places(again: pa.Table, replaced: pa.Table, unchanged: Collection[str]) -> tuple[list[DocumentRow], bool]:
    """Documents that were read `again`, the `unchanged` ones with their old place; and whether a reader of the index
    can see a difference."""
    before = {(old["root"], old["path"]): old for old in replaced.to_pylist()}
    rows = [DocumentRow.from_json(row) for row in again.to_pylist()]
    rows = [_keep_place(row, before[row.key], unchanged) for row in rows]
    return rows, any(_material(row, before[row.key]) for row in rows)


def _compare(
    leaving: pa.Table, coming: pa.Table, known: Mapping[str, Shard], damaged: Collection[str], *, rebuilding: bool
) -> tuple[Changes, bool]:
    """The changes, and whether removed rows are missing from them. Of a damaged shard only the ids are trusted."""
    broken = documents.in_shards(leaving, damaged)
    keys = set(documents.keys(broken))
    found = compare(
        documents.without(leaving, keys), documents.without(coming, keys), known, vectors_changed=rebuilding
    )
    again = coming.take(documents.positions(coming, keys))
    untold = False
    try:
        more = compare(broken, again, known, vectors_changed=True)
    except DamagedShard:
        untold = True
        more = compare(broken.slice(0, 0), again, known, vectors_changed=True)
    return Changes(pa.concat_tables([found.table, more.table]).combine_chunks(), found.unchanged_doc_ids), untold


def _keep_place(row: DocumentRow, before: Mapping[str, Any], unchanged: Collection[str]) -> DocumentRow:
    if not row.rows or digest(*row.key) not in unchanged:
        return row
    return row.replace(**{name: tuple(before[name]) if name == "missing" else before[name] for name in _PLACE})


def _material(row: DocumentRow, before: Mapping[str, Any]) -> bool:
    """Whether a reader of the index can see a difference between `row` and the row `before`."""
    place, old_place = (row.shard, row.first_row, row.rows), (before["shard"], before["first_row"], before["rows"])
    if (row.rows or before["rows"]) and place != old_place:
        return True
    prints = any(getattr(row, name) != before[name] for name in _FINGERPRINTS)
    return prints or (row.status, row.reason) != (before["status"], before["reason"])


def _marks_matter(base: pa.Table, marks: Sequence[Mark]) -> bool:
    chosen = base.take(documents.positions(base, {mark.key for mark in marks})).select(
        ["root", "path", "status", "reason"]
    )
    before = {(row["root"], row["path"]): (row["status"], row["reason"]) for row in chosen.to_pylist()}
    return any((m.columns["status"], m.columns["reason"]) != before.get(m.key) for m in marks)
