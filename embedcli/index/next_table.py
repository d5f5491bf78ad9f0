"""What was finished and what leaves -> the draft of the next generation.

In: the documents of the current generation, the outcomes of this run, the keys that leave. Out: the documents table
to publish with the changes against its parent, and what changed so little that only `state/` has to know it.
Not here: writing any of it (generations.py), deciding what leaves (run/plan.py).
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
    """The documents to publish, in walk order; `seen` is what a run without a publish has to remember.

    `untold`: rows left whose ids could not be read any more, so that `changes` does not name them.
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
    """Replace, mark and drop rows of `base`; a document that came out the same to the last column keeps its rows, but
    not in a shard that is `damaged`."""
    replaced, kept = documents.parted(base, rows)
    staying = documents.without(kept, dropped)
    leaving = base if rebuilding else pa.concat_tables([replaced, kept.take(documents.positions(kept, dropped))])
    coming = rows.filter(pc.greater(rows.column("rows"), 0))
    compared, untold = _compare(leaving, coming, shards, damaged, rebuilding=rebuilding)
    material, small = bool(dropped) or rebuilding or _marks_matter(base, marks), []
    if rebuilding:  # what has no rows has none under other settings either
        staying = staying.filter(pc.equal(staying.column("rows"), 0))
    else:
        anew, new = documents.parted(rows, replaced)
        settled, different = _settled(anew, replaced, compared.unchanged_doc_ids)
        material = material or bool(new.num_rows) or different
        small = [Mark(row.key, {name: getattr(row, name) for name in _STAT}) for row in settled]
        rows = pa.concat_tables([new, documents.from_rows(settled)])
    whole = pa.concat_tables([documents.amend(staying, [*seen, *marks]), rows])
    tried = [Mark(m.key, {name: m.columns[name] for name in _TRIED if name in m.columns}) for m in marks]
    remembered = [*seen, *small, *tried]
    return NextTable(documents.in_walk_order(whole, roots), compared.table, material, tuple(remembered), untold)


def _settled(anew: pa.Table, replaced: pa.Table, unchanged: Collection[str]) -> tuple[list[DocumentRow], bool]:
    """The rows of known sources, where they are to lie; and whether a reader of the index could tell a difference."""
    before = {(old["root"], old["path"]): old for old in replaced.to_pylist()}
    rows = [DocumentRow.from_json(row) for row in anew.to_pylist()]
    rows = [_keep_place(row, before[row.key], unchanged) for row in rows]
    return rows, any(_material(row, before[row.key]) for row in rows)


def _compare(
    leaving: pa.Table, coming: pa.Table, known: Mapping[str, Shard], damaged: Collection[str], *, rebuilding: bool
) -> tuple[Changes, bool]:
    """The changes, and whether they are not all of them. Of a damaged shard nothing is believed but its ids."""
    broken = documents.in_shards(leaving, damaged)
    keys = set(documents.keys(broken))
    found = compare(
        documents.without(leaving, keys), documents.without(coming, keys), known, vectors_changed=rebuilding
    )
    anew = coming.take(documents.positions(coming, keys))
    untold = False
    try:
        more = compare(broken, anew, known, vectors_changed=True)
    except DamagedShard:
        untold = True
        more = compare(broken.slice(0, 0), anew, known, vectors_changed=True)
    return Changes(pa.concat_tables([found.table, more.table]).combine_chunks(), found.unchanged_doc_ids), untold


def _keep_place(row: DocumentRow, before: Mapping[str, Any], unchanged: Collection[str]) -> DocumentRow:
    if not row.rows or digest(*row.key) not in unchanged:
        return row
    return row.replace(**{name: tuple(before[name]) if name == "missing" else before[name] for name in _PLACE})


def _material(row: DocumentRow, before: Mapping[str, Any]) -> bool:
    """Whether a reader of the index could tell `row` from what was there."""
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
