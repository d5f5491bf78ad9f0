"""Finished and removed documents -> the documents table of the next generation.

In: the documents of the current generation, the outcomes of this run, the keys of documents to remove. Out: the
documents table to publish, its changes against the current one, and small changes that only `state/` needs.
Not here: writing any of it (publish.py), which documents are removed (run/looking/).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.errors import DamagedShard
from embedcli.index import changes, documents
from embedcli.index.changes import Changes, compare
from embedcli.index.documents import Ints, Mark, Mask, Numbers
from embedcli.index.shards import Shard
from embedcli.index.tables.spilled import spilled
from embedcli.index.tables.walk_order import WalkOrder, places_of_roots
from embedcli.records import SourceKey, digest

_PLACE = ("shard", "first_row", "rows", "chunks", "tokens", "missing")
_TRIED = ("attempts", "tried")
_STAT = ("size", "mtime_ns", "ctime_ns", "inode", "attempts")
_FINGERPRINTS = ("model_fingerprint", "chunk_fingerprint", "read_fingerprint")


GROUP_DOCUMENTS = 1 << 14
"""Documents whose chunks are compared at once."""

_LOOKED_AT = ["root", "path", "shard", "first_row", "rows"]


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
    folder: Path | None = None,
) -> NextTable:
    """Replace, mark and drop documents of `base`; both tables are in walk order. Large tables are made in `folder`.

    A document of which no column changed keeps its old rows, unless their shard is `damaged`.
    """
    pair = _Pair(base, rows, WalkOrder(roots))
    pair.match(documents.joined(dropped), rebuilding=rebuilding)
    compared = _Compared(pair, shards, damaged, rebuilding=rebuilding)
    changed = spilled(compared.changes(), changes.SCHEMA, folder)
    material = bool(dropped) or rebuilding or _marks_matter(base, marks) or bool((pair.old < 0).any())
    amendment = documents.Amendment([*seen, *marks])
    merged = _Merged(pair, compared.unchanged, amendment, rebuilding=rebuilding)
    table = spilled(merged.tables(), documents.SCHEMA, folder) if base.num_rows else rows
    material = material or merged.material
    small = [] if material else pair.small_marks()
    tried = [Mark(m.key, {name: m.columns[name] for name in _TRIED if name in m.columns}) for m in marks]
    return NextTable(table, changed, material, (*seen, *small, *tried), compared.untold)


@dataclass
class _Window:
    """A range of walk order: rows of the base with their numbers, and the new rows, whose first has the number
    `first`."""

    base: pa.Table
    numbers: Ints
    rows: pa.Table
    first: int


class _Pair:
    """The documents that the index has, `base`, and those of this run, `rows`.

    `old`: for each of `rows` the number of its row in `base`, -1 for a new document. `goes`: which rows of `base` are
    replaced or dropped; `is_dropped`: which are the latter.
    """

    def __init__(self, base: pa.Table, rows: pa.Table, order: WalkOrder) -> None:
        self.base = base
        self.rows = rows
        self.order = order
        self.old = np.full(rows.num_rows, -1, np.int32)
        self.goes = np.zeros(base.num_rows, np.bool_)
        self.is_dropped = np.zeros(base.num_rows, np.bool_)

    def match(self, dropped: pa.Array, *, rebuilding: bool) -> None:
        for window in self.windows():
            names = documents.join_keys(window.rows).combine_chunks()
            at = np.asarray(pc.fill_null(pc.index_in(documents.join_keys(window.base), value_set=names), -1))
            is_replaced = at >= 0
            self.old[window.first + at[is_replaced]] = window.numbers[is_replaced]
            is_dropped = ~is_replaced & (rebuilding | documents.are_in(window.base, dropped))
            self.goes[window.numbers] = is_replaced | is_dropped
            self.is_dropped[window.numbers] = is_dropped

    def windows(self) -> Iterator[_Window]:
        parts = places_of_roots(self.base)  # the order of the roots may be another now
        tables = [*(self.base.slice(first, end - first) for _, first, end in parts), self.rows]
        for *ranges, (first, end) in self.order.windows(tables):
            places = [(begin + a, begin + b) for (_, begin, _), (a, b) in zip(parts, ranges, strict=True) if a < b]
            yield _Window(
                pa.concat_tables([self.base.slice(0, 0), *(self.base.slice(a, b - a) for a, b in places)]),
                np.concatenate([np.zeros(0, np.int64), *(np.arange(a, b) for a, b in places)]),
                self.rows.slice(first, end - first),
                first,
            )

    def small_marks(self) -> Iterator[Mark]:
        """What is new about documents that are as they were."""
        for first in range(0, self.rows.num_rows, documents.PART_ROWS):
            rows = self.rows.slice(first, documents.PART_ROWS)
            before = documents.taken(self.base.select(_STAT), self.old[first:][: rows.num_rows])
            other = rows.filter(pa.array(changes.different(before, rows, _STAT)))
            for row in other.select(["root", "path", *_STAT]).to_pylist():
                yield Mark((row["root"], row["path"]), {name: row[name] for name in _STAT})


class _Compared:
    """The changes, chunk by chunk, of one group of documents after another, in the order in which their rows lie.

    `unchanged`: which of the pair's rows are as they were, so that they keep their old place; `untold`: whether removed
    rows are missing from the changes.
    """

    def __init__(self, pair: _Pair, shards: Mapping[str, Shard], damaged: Collection[str], *, rebuilding: bool) -> None:
        self._pair = pair
        self._shards = shards
        self._damaged = damaged
        self._rebuilding = rebuilding
        self.unchanged = np.zeros(pair.rows.num_rows, np.bool_)
        self.untold = False

    def changes(self) -> Iterator[pa.Table]:
        pair = self._pair
        has_rows = np.asarray(pair.rows.column("rows")) > 0
        base, rows = pair.base.select(_LOOKED_AT), pair.rows.select(_LOOKED_AT)
        for group in _groups(rows, has_rows | (pair.old >= 0)):
            old = pair.old[group]
            came = group[has_rows[group]]
            coming = documents.taken(rows, came)
            compared = self._compare(documents.taken(base, old[old >= 0]), coming)
            if compared.unchanged_doc_ids:
                ids = [digest(*key) for key in documents.keys(coming)]
                self.unchanged[came] = [doc_id in compared.unchanged_doc_ids for doc_id in ids]
            yield compared.table
        for group in _groups(base, pair.is_dropped):
            yield self._compare(documents.taken(base, group), rows.slice(0, 0)).table

    def _compare(self, leaving: pa.Table, coming: pa.Table) -> Changes:
        """The changes of some documents. Of a damaged shard only the ids are trusted."""
        if not self._damaged:
            return compare(leaving, coming, self._shards, vectors_changed=self._rebuilding)
        broken = documents.in_shards(leaving, self._damaged)
        keys = set(documents.keys(broken))
        found = compare(
            documents.without(leaving, keys), documents.without(coming, keys), self._shards,
            vectors_changed=self._rebuilding,
        )  # fmt: skip
        again = coming.take(documents.positions(coming, keys))
        try:
            more = compare(broken, again, self._shards, vectors_changed=True)
        except DamagedShard:
            self.untold = True
            more = compare(broken.slice(0, 0), again, self._shards, vectors_changed=True)
        return Changes(pa.concat_tables([found.table, more.table]).combine_chunks(), found.unchanged_doc_ids)


def _groups(table: pa.Table, wanted: Mask) -> Iterator[Numbers]:
    """The numbers of the rows that are `wanted` in groups of GROUP_DOCUMENTS, documents whose chunks lie together in
    one group: then no shard is read for each group again."""
    if np.count_nonzero(wanted) > GROUP_DOCUMENTS:
        numbers = documents.InPlaceOrder(table).order
        numbers = numbers if wanted.all() else numbers[wanted[numbers]]
    else:
        numbers = np.flatnonzero(wanted).astype(np.uint32)
    for start in range(0, numbers.size, GROUP_DOCUMENTS):
        yield numbers[start : start + GROUP_DOCUMENTS]


class _Merged:
    """The documents of the next generation. `material`: whether a reader of the index can see a difference of documents
    that were read again."""

    def __init__(self, pair: _Pair, unchanged: Mask, amendment: documents.Amendment, *, rebuilding: bool) -> None:
        self._pair = pair
        self._unchanged = unchanged
        self._amendment = amendment
        self._rebuilding = rebuilding
        self.material = False

    def tables(self) -> Iterator[pa.Table]:
        for window in self._pair.windows():
            stays = ~self._pair.goes[window.numbers]
            staying = self._amendment.of(documents.chosen(window.base, stays))
            yield self._pair.order.sorted(pa.concat_tables([staying, self._placed(window)]))

    def _placed(self, window: _Window) -> pa.Table:
        """The new rows; those of documents that are as they were have their old place."""
        here = slice(window.first, window.first + window.rows.num_rows)
        old = self._pair.old[here]
        if self._rebuilding or not (old >= 0).any():
            return window.rows
        is_known = pa.array(old >= 0)
        before = documents.taken(self._pair.base, old[old >= 0])
        known = _with_places(window.rows.filter(is_known), before, self._unchanged[here][old >= 0])
        self.material = self.material or bool(_material(known, before).any())
        return pa.concat_tables([known, window.rows.filter(pc.invert(is_known))])


def _with_places(rows: pa.Table, before: pa.Table, unchanged: Mask) -> pa.Table:
    """The rows, the `unchanged` ones with the place that they had `before`."""
    count = np.arange(rows.num_rows)
    chosen = pa.array(np.where(unchanged, count + rows.num_rows, count))
    for name in _PLACE:
        both = pa.chunked_array([*rows.column(name).chunks, *before.column(name).chunks], rows.field(name).type)
        rows = rows.set_column(rows.schema.get_field_index(name), rows.field(name), both.take(chosen))
    return rows


def _material(rows: pa.Table, before: pa.Table) -> Mask:
    """Whether a reader of the index can see a difference between a row and the one `before`."""
    has_rows = (np.asarray(rows.column("rows")) > 0) | (np.asarray(before.column("rows")) > 0)
    moved = has_rows & changes.different(before, rows, ["shard", "first_row", "rows"])
    return moved | changes.different(before, rows, [*_FINGERPRINTS, "status", "reason"])


def _marks_matter(base: pa.Table, marks: Sequence[Mark]) -> bool:
    chosen = base.select(["root", "path", "status", "reason"])
    chosen = documents.taken(chosen, documents.positions(base, {mark.key for mark in marks}))
    before = {(row["root"], row["path"]): (row["status"], row["reason"]) for row in chosen.to_pylist()}
    return any((m.columns["status"], m.columns["reason"]) != before.get(m.key) for m in marks)
