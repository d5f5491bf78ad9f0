"""What was finished and what leaves -> the draft of the next generation.

In: the documents of the current generation, the outcomes of this run, the keys that leave. Out: the documents table
to publish with the changes against its parent, and what changed so little that only `state/` has to know it.
Not here: writing any of it (generations.py), deciding what leaves (plan.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedcli import changes, documents
from embedcli.changes import Changes
from embedcli.documents import DocumentRow, Key, Mark
from embedcli.errors import DamagedShard
from embedcli.records import digest
from embedcli.shards import Shard
from embedcli.staging import Outcome

_PLACE = ("shard", "first_row", "rows", "chunks", "tokens", "missing")
_TRIED = ("attempts", "tried")
_STAT = ("size", "mtime_ns", "ctime_ns", "inode", "attempts")
_FINGERPRINTS = ("model_fingerprint", "chunk_fingerprint", "read_fingerprint")


@dataclass(frozen=True)
class Edition:
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
    outcomes: Iterable[Outcome],
    *,
    dropped: Collection[Key],
    seen: Sequence[Mark],
    shards: Mapping[str, Shard],
    damaged: Collection[str],
    roots: Sequence[str],
    rebuilding: bool,
) -> Edition:
    """Replace, mark and drop rows of `base`; a document that came out the same to the last column keeps its rows, but
    not in a shard that is `damaged`."""
    listed = list(outcomes)
    rows = {o.row.key: o.row for o in listed if o.row is not None}
    marks = [o.mark for o in listed if o.mark is not None]
    leaving = base if rebuilding else base.take(documents.positions(base, {*rows, *dropped}))
    before = {(old["root"], old["path"]): old for old in leaving.to_pylist()}
    coming = documents.from_rows(row for row in rows.values() if row.rows)
    compared, untold = _compare(leaving, coming, shards, damaged, rebuilding=rebuilding)
    if not rebuilding:
        rows = {key: _keep_place(row, before.get(key), compared.unchanged_doc_ids) for key, row in rows.items()}
    material = bool(dropped) or rebuilding or any(_material(row, before.get(key)) for key, row in rows.items())
    material = material or _marks_matter(base, marks)
    small = [Mark(key, {name: getattr(row, name) for name in _STAT}) for key, row in rows.items()]
    kept = documents.without(base, {*rows, *dropped})
    if rebuilding:  # what has no rows has none under other settings either
        kept = kept.filter(pc.equal(kept.column("rows"), 0))
    table = documents.amend(kept, [*seen, *marks])
    whole = pa.concat_tables([table, documents.from_rows(rows.values())])
    tried = [Mark(m.key, {name: m.columns[name] for name in _TRIED if name in m.columns}) for m in marks]
    remembered = [*seen, *small, *tried]
    return Edition(documents.in_walk_order(whole, roots), compared.table, material, tuple(remembered), untold)


def _compare(
    leaving: pa.Table, coming: pa.Table, known: Mapping[str, Shard], damaged: Collection[str], *, rebuilding: bool
) -> tuple[Changes, bool]:
    """The changes, and whether they are not all of them. Of a damaged shard nothing is believed but its ids."""
    broken = documents.in_shards(leaving, damaged)
    keys = set(documents.keys(broken))
    found = changes.compare(
        documents.without(leaving, keys), documents.without(coming, keys), known, vectors_changed=rebuilding
    )
    anew = coming.take(documents.positions(coming, keys))
    untold = False
    try:
        more = changes.compare(broken, anew, known, vectors_changed=True)
    except DamagedShard:
        untold = True
        more = changes.compare(broken.slice(0, 0), anew, known, vectors_changed=True)
    return Changes(pa.concat_tables([found.table, more.table]).combine_chunks(), found.unchanged_doc_ids), untold


def _keep_place(row: DocumentRow, before: Mapping[str, Any] | None, unchanged: Collection[str]) -> DocumentRow:
    if before is None or not row.rows or digest(*row.key) not in unchanged:
        return row
    return row.replace(**{name: tuple(before[name]) if name == "missing" else before[name] for name in _PLACE})


def _material(row: DocumentRow, before: Mapping[str, Any] | None) -> bool:
    """Whether a reader of the index could tell `row` from what was there."""
    if before is None:
        return True
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
