"""The documents table: one row for each source, in walk order, with its status and where its chunks' rows lie.

In: the rows of this run and the table of the current generation. Out: the Arrow table that becomes
`documents.parquet`.
Not here: what this run does with a source (run/plan.py), writing the table (publish.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.records import Source, SourceKey, Stat, Status

SCHEMA = pa.schema(
    [
        ("root", pa.string()),
        ("path", pa.string()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("ctime_ns", pa.int64()),
        ("inode", pa.uint64()),
        ("sha256", pa.string()),
        ("model_fingerprint", pa.string()),
        ("chunk_fingerprint", pa.string()),
        ("read_fingerprint", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("attempts", pa.int32()),
        ("tried", pa.string()),
        ("pages", pa.int32()),
        ("pages_skipped", pa.int32()),
        ("chunks", pa.int32()),
        ("missing", pa.list_(pa.int32())),
        ("tokens", pa.int64()),
        ("shard", pa.string()),
        ("first_row", pa.int64()),
        ("rows", pa.int32()),
        ("container", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A row of documents.parquet; `shard` is None for a source without rows.

    A stale source keeps the stat of its last successful reading; its `tried` is the digest of the stat that the file
    had at the last failed attempt.
    """

    root: str
    path: str
    uri: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    status: Status
    reason: str | None
    read_fingerprint: str
    attempts: int = 1
    sha256: str | None = None
    model_fingerprint: str = ""
    chunk_fingerprint: str = ""
    tried: str | None = None
    pages: int | None = None
    pages_skipped: int = 0
    chunks: int = 0
    missing: tuple[int, ...] = ()
    tokens: int = 0
    shard: str | None = None
    first_row: int = 0
    rows: int = 0
    container: str | None = None
    """The path of the source that it lies in: a file of records, a mail."""

    @classmethod
    def of(cls, source: Source, stat: Stat, **columns: Any) -> DocumentRow:
        """The row of `source` as it was when it had `stat`."""
        return cls(
            root=source.root_id, path=source.path, uri=source.uri, size=stat.size, mtime_ns=stat.mtime_ns,
            ctime_ns=stat.ctime_ns, inode=stat.inode,
            container=source.container, **columns,
        )  # fmt: skip

    @property
    def key(self) -> SourceKey:
        return (self.root, self.path)

    @property
    def stat(self) -> Stat:
        return Stat(self.size, self.mtime_ns, self.ctime_ns, self.inode)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SCHEMA.names}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DocumentRow:
        return cls(**{**data, "missing": tuple(data["missing"])})

    def replace(self, **changes: Any) -> DocumentRow:
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Mark:
    """Changes the documents row of a source without touching its chunks: column names and their new values."""

    key: SourceKey
    columns: Mapping[str, Any]


def empty() -> pa.Table:
    return SCHEMA.empty_table()


def from_rows(rows: Iterable[DocumentRow]) -> pa.Table:
    listed = list(rows)
    return pa.table({name: [getattr(row, name) for row in listed] for name in SCHEMA.names}, schema=SCHEMA)


def files(table: pa.Table) -> pa.Table:
    """The sources that are files: without the documents inside them."""
    return table.filter(pc.is_null(table.column("container")))


def members(table: pa.Table, containers: Collection[SourceKey]) -> set[SourceKey]:
    """The documents inside these sources, and those inside them."""
    inside = table.filter(pc.is_valid(table.column("container"))) if containers else table.slice(0, 0)
    found: set[SourceKey] = set()
    above: Collection[SourceKey] = containers
    while above and inside.num_rows:
        wanted = pa.array([f"{root}\0{path}" for root, path in above], pa.string())
        above = set(keys(inside.filter(pc.is_in(join_holders(inside), value_set=wanted)))) - found
        found |= above
    return found


def holders(table: pa.Table, inside: Collection[SourceKey]) -> set[SourceKey]:
    """The sources that these documents lie in, and those that these lie in."""
    found: set[SourceKey] = set()
    below: Collection[SourceKey] = inside
    while below:
        rows = table.take(positions(table, below)).select(["root", "container"])
        pairs = zip(rows.column("root").to_pylist(), rows.column("container").to_pylist(), strict=True)
        below = {(root, container) for root, container in pairs if container is not None} - found
        found |= below
    return found


def count_members(table: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each source how many documents are inside it, those inside them included."""
    counts = np.zeros(table.num_rows, np.int64)
    inside = np.flatnonzero(np.asarray(pc.is_valid(table.column("container"))))
    if not inside.size:
        return counts
    above = pc.index_in(join_holders(table.take(pa.array(inside))), value_set=join_keys(table).combine_chunks())
    parent = np.asarray(pc.fill_null(above, -1))
    inside, parent = inside[parent >= 0], parent[parent >= 0]
    level = np.ones(table.num_rows, np.int64)
    while level[inside].any():
        level = np.bincount(parent, weights=level[inside], minlength=table.num_rows).astype(np.int64)
        counts += level
    return counts


def orphans(table: pa.Table) -> pa.Table:
    """The documents inside sources that have no row."""
    inside = table.filter(pc.is_valid(table.column("container")))
    if not inside.num_rows:
        return inside
    has_holder = pc.is_in(join_holders(inside), value_set=join_keys(table).combine_chunks())
    return inside.filter(pc.invert(has_holder))


def join_holders(table: pa.Table) -> pa.ChunkedArray:
    """Root and container joined as by `join_keys`; null for a file."""
    return pc.binary_join_element_wise(table.column("root"), table.column("container"), "\0")


def join_keys(table: pa.Table) -> pa.ChunkedArray:
    """Root and path joined to one string by NUL, which occurs in neither."""
    return pc.binary_join_element_wise(table.column("root"), table.column("path"), "\0")


def positions(table: pa.Table, keys: Collection[SourceKey]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Row numbers of `keys` in `table`, in the order of the table."""
    wanted = pa.array([f"{root}\0{path}" for root, path in keys], pa.string())
    found = pc.is_in(join_keys(table), value_set=wanted)
    return np.flatnonzero(np.asarray(found))


def without(table: pa.Table, keys: Collection[SourceKey]) -> pa.Table:
    """`table` without the rows of `keys`."""
    if not keys or not table.num_rows:
        return table
    wanted = pa.array([f"{root}\0{path}" for root, path in keys], pa.string())
    return table.filter(pc.invert(pc.is_in(join_keys(table), value_set=wanted)))


def parted(table: pa.Table, other: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of `table` whose sources are in `other` too, and the remaining rows."""
    there = pc.is_in(join_keys(table), value_set=join_keys(other).combine_chunks())
    return table.filter(there), table.filter(pc.invert(there))


def fold(marks: Iterable[Mark]) -> list[Mark]:
    """Merge the marks to one for each key; later values win."""
    merged: dict[SourceKey, dict[str, Any]] = {}
    for mark in marks:
        merged.setdefault(mark.key, {}).update(mark.columns)
    return [Mark(key, columns) for key, columns in merged.items()]


def amend(table: pa.Table, marks: Collection[Mark]) -> pa.Table:
    """`table` with the marks' values put in; marks whose key is not in the table are ignored."""
    if not marks or not table.num_rows:
        return table
    marks = fold(marks)
    order = pa.array([f"{root}\0{path}" for root, path in (mark.key for mark in marks)], pa.string())
    at = pc.index_in(join_keys(table), value_set=order)
    rows = np.flatnonzero(np.asarray(pc.is_valid(at)))
    listed = list(marks)
    chosen = [listed[i] for i in at.take(pa.array(rows)).to_pylist()]
    for name in {name for mark in chosen for name in mark.columns}:
        table = _put(table, name, rows, [mark.columns for mark in chosen])
    return table


def _put(table: pa.Table, name: str, rows: np.ndarray[Any, Any], changes: Sequence[Mapping[str, Any]]) -> pa.Table:
    touched = [(int(row), change[name]) for row, change in zip(rows, changes, strict=True) if name in change]
    mask = np.zeros(table.num_rows, np.bool_)
    mask[[row for row, _ in touched]] = True
    field = SCHEMA.field(name)
    column = table.column(name).combine_chunks()
    new = pc.replace_with_mask(column, pa.array(mask), pa.array([value for _, value in touched], field.type))
    return table.set_column(SCHEMA.get_field_index(name), field, new)


def in_walk_order(table: pa.Table, roots: Sequence[str]) -> pa.Table:
    """Sorted by root, in the order of `roots`, then by path component: NUL sorts before any character of a name."""
    rank = pc.index_in(table.column("root"), value_set=pa.array(roots, pa.string()))
    components = pc.replace_substring(table.column("path"), "/", "\0")
    order = pc.sort_indices(
        pa.table({"root": rank, "path": components}), sort_keys=[("root", "ascending"), ("path", "ascending")]
    )
    return table.take(order).combine_chunks()


def count_by(table: pa.Table, column: str) -> dict[str, int]:
    """How many rows have each value of `column`, sorted by value; nulls are not counted."""
    counted = table.column(column).value_counts().to_pylist()
    return dict(sorted((item["values"], item["counts"]) for item in counted if item["values"] is not None))


def in_shards(table: pa.Table, names: Collection[str]) -> pa.Table:
    """The documents of `table` whose chunks lie in the shards called `names`."""
    return table.filter(are_in_shards(table, names))


def are_in_shards(table: pa.Table, names: Collection[str]) -> pa.ChunkedArray:
    """For each document of `table`, whether its chunks lie in one of the shards called `names`."""
    return pc.is_in(table.column("shard"), value_set=pa.array(sorted(names), pa.string()))


def keys(table: pa.Table) -> list[SourceKey]:
    return list(zip(table.column("root").to_pylist(), table.column("path").to_pylist(), strict=True))


Ints = npt.NDArray[np.int64]


def by_shard(table: pa.Table) -> Iterator[tuple[str, Ints]]:
    """Yield each shard's name with its documents: their row numbers in `table`, in the order of the shard's rows."""
    placed = np.flatnonzero(np.asarray(pc.is_valid(table.column("shard"))))
    if not placed.size:
        return
    names = table.column("shard").take(pa.array(placed)).combine_chunks().dictionary_encode()
    codes = np.asarray(names.indices)
    first = np.asarray(table.column("first_row"), np.int64)[placed]
    order = np.lexsort((first, codes))
    for part in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        yield names.dictionary[int(codes[part[0]])].as_py(), placed[part]
