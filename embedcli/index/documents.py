"""The documents table: one row for each source, in walk order, with its status and where its chunks' rows lie.

In: the rows of this run and the table of the current generation. Out: the Arrow table that becomes
`documents.parquet`.
Not here: what this run does with a source (run/looking/), writing the table (publish.py).
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.index.tables.mapped import passing
from embedcli.records import Source, SourceKey, Stat, Status

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.uint32]
"""Of rows of a table that may be too large for memory."""
Mask = npt.NDArray[np.bool_]

PART_ROWS = 1 << 14
"""Rows that are looked at at once where a table may be too large for memory."""

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


def of_columns(rows: int, columns: Mapping[str, Any]) -> pa.Table:
    """So many documents with these columns: an array, or one value for all of them; as DocumentRow has it otherwise."""
    arrays = []
    for field in SCHEMA:
        value = columns.get(field.name, _DEFAULTS.get(field.name))
        is_column = isinstance(value, pa.Array | pa.ChunkedArray)
        arrays.append(value if is_column else pa.repeat(pa.scalar(value, field.type), rows))
    return pa.table(arrays, schema=SCHEMA)


_DEFAULTS = {"attempts": 1, "pages_skipped": 0, "missing": (), "first_row": 0}


def placed(table: pa.Table, shard: str, first_row: int) -> pa.Table:
    """Documents whose rows lie one after another in a shard, from `first_row` on."""
    rows = np.asarray(table.column("rows"), np.int64)
    first = first_row + np.cumsum(rows) - rows
    table = table.set_column(SCHEMA.get_field_index("shard"), "shard", pa.repeat(shard, table.num_rows))
    return table.set_column(SCHEMA.get_field_index("first_row"), "first_row", pa.array(first))


def files(table: pa.Table) -> pa.Table:
    """The sources that are files: without the documents inside them."""
    return chosen(table, np.asarray(pc.is_null(table.column("container"))))


def chosen(table: pa.Table, mask: Mask) -> pa.Table:
    """The rows for which the mask is True; only parts of which some are left out are copied."""
    if mask.all():
        return table
    found = []
    for number, part in enumerate(parts(table)):
        wanted = mask[number * PART_ROWS :][: part.num_rows]
        found.append(part if wanted.all() else part.filter(pa.array(wanted)))
    return pa.concat_tables([table.slice(0, 0), *found])


def taken(table: pa.Table, numbers: npt.NDArray[Any]) -> pa.Table:
    """The rows with these numbers, in the order of the numbers. Of a table in several chunks Arrow would copy every
    column of strings as a whole, whichever rows are taken of it."""
    batches = table.to_batches()
    if len(batches) < 2:
        return table.take(pa.array(numbers))
    ends = np.cumsum([batch.num_rows for batch in batches])
    batch_of = np.searchsorted(ends, numbers, side="right")
    order = np.argsort(batch_of, kind="stable")
    starts = np.searchsorted(batch_of[order], np.arange(len(batches) + 1))
    found = [
        batch.take(pa.array(numbers[order[first:stop]] - (end - batch.num_rows)))
        for batch, end, first, stop in zip(batches, ends.tolist(), starts[:-1], starts[1:], strict=True)
        if first < stop
    ]
    in_batches = pa.Table.from_batches(found, table.schema)
    return in_batches if (order[1:] > order[:-1]).all() else in_batches.take(pa.array(np.argsort(order)))


def members(table: pa.Table, containers: Collection[SourceKey]) -> set[SourceKey]:
    """The documents inside these sources, and those inside them."""
    found: set[SourceKey] = set()
    above: Collection[SourceKey] = containers
    while above:
        inside = are_in(table, joined(above), of=join_holders)
        above = set(keys(taken(table.select(["root", "path"]), np.flatnonzero(inside)))) - found
        found |= above
    return found


def holders(table: pa.Table, inside: Collection[SourceKey]) -> set[SourceKey]:
    """The sources that these documents lie in, and those that these lie in."""
    found: set[SourceKey] = set()
    below: Collection[SourceKey] = inside
    while below:
        rows = taken(table.select(["root", "container"]), positions(table, below))
        pairs = zip(rows.column("root").to_pylist(), rows.column("container").to_pylist(), strict=True)
        below = {(root, container) for root, container in pairs if container is not None} - found
        found |= below
    return found


class MemberCounts:
    """How many documents are inside each source of a table, those inside them included."""

    def __init__(self, table: pa.Table) -> None:
        direct: Counter[str] = Counter()
        for part in parts(table.select(["root", "container"])):
            inside = part.filter(pc.is_valid(part.column("container")))
            for item in join_holders(inside).value_counts().to_pylist():
                direct[item["values"]] += item["counts"]
        holding = are_in(table, pa.array(direct, pa.string()))
        rows = taken(table.select(["root", "path", "container"]), np.flatnonzero(holding))
        above = dict(zip(join_keys(rows).to_pylist(), join_holders(rows).to_pylist(), strict=True))
        self._counts = Counter(direct)
        for name, count in direct.items():
            holder = above.get(name)
            while holder is not None:
                self._counts[holder] += count
                holder = above.get(holder)

    def __contains__(self, key: SourceKey) -> bool:
        return f"{key[0]}\0{key[1]}" in self._counts

    def of(self, table: pa.Table) -> Ints:
        """For each source of `table`, which has some of the rows."""
        if not self._counts:
            return np.zeros(table.num_rows, np.int64)
        counts = np.array([*self._counts.values(), 0], np.int64)
        names = pa.array(self._counts, pa.string())
        found = [
            counts[np.asarray(pc.fill_null(pc.index_in(join_keys(part), value_set=names), -1))]
            for part in parts(table.select(["root", "path"]))
        ]
        return np.concatenate([np.zeros(0, np.int64), *found])


def orphans(table: pa.Table) -> pa.Table:
    """The documents inside sources that have no row."""
    named: set[str] = set()
    for part in parts(table.select(["root", "container"])):
        named.update(pc.drop_null(join_holders(part).unique()).to_pylist())
    rows = taken(table.select(["root", "path"]), np.flatnonzero(are_in(table, pa.array(named, pa.string()))))
    missing = pa.array(sorted(named.difference(join_keys(rows).to_pylist())), pa.string())
    return taken(table, np.flatnonzero(are_in(table, missing, of=join_holders)))


def join_holders(table: pa.Table) -> pa.ChunkedArray:
    """Root and container joined as by `join_keys`; null for a file."""
    return pc.binary_join_element_wise(table.column("root"), table.column("container"), "\0")


def join_keys(table: pa.Table) -> pa.ChunkedArray:
    """Root and path joined to one string by NUL, which occurs in neither."""
    return pc.binary_join_element_wise(table.column("root"), table.column("path"), "\0")


def joined(keys: Iterable[SourceKey]) -> pa.Array:
    """The keys as `join_keys` gives them."""
    return pa.array([f"{root}\0{path}" for root, path in keys], pa.string())


def are_in(table: pa.Table, wanted: pa.Array, *, of: Callable[[pa.Table], pa.ChunkedArray] = join_keys) -> Mask:
    """For each row of `table` whether what it is called is among the names `wanted`; a part at a time, as the names of
    a million rows take as much memory as all else about them."""
    if not len(wanted):
        return np.zeros(table.num_rows, np.bool_)
    found = [np.asarray(pc.is_in(of(part), value_set=wanted)) for part in parts(table)]
    return np.concatenate([np.zeros(0, np.bool_), *found])


def parts(table: pa.Table) -> Iterator[pa.Table]:
    """The table, PART_ROWS at a time."""
    starts = range(0, table.num_rows, PART_ROWS)
    yield from passing((table.slice(start, PART_ROWS) for start in starts), lambda part: int(part.nbytes))


def positions(table: pa.Table, keys: Collection[SourceKey]) -> Ints:
    """Row numbers of `keys` in `table`, in the order of the table."""
    return np.flatnonzero(are_in(table, joined(keys)))


def without(table: pa.Table, keys: Collection[SourceKey]) -> pa.Table:
    """`table` without the rows of `keys`."""
    if not keys or not table.num_rows:
        return table
    return chosen(table, ~are_in(table, joined(keys)))


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


class Amendment:
    """Marks, ready to be put into one part of a table after another."""

    def __init__(self, marks: Iterable[Mark]) -> None:
        self._marks = fold(marks)
        self._keys = joined(mark.key for mark in self._marks)

    def of(self, table: pa.Table) -> pa.Table:
        """`table` with the marks' values put in; marks whose key is not in the table are ignored."""
        if not self._marks or not table.num_rows:
            return table
        at = pc.index_in(join_keys(table), value_set=self._keys)
        rows = np.flatnonzero(np.asarray(pc.is_valid(at)))
        changes = [self._marks[i].columns for i in at.take(pa.array(rows)).to_pylist()]
        for name in {name for columns in changes for name in columns}:
            table = _put(table, name, rows, changes)
        return table


def amend(table: pa.Table, marks: Iterable[Mark]) -> pa.Table:
    """`table` with the marks' values put in; marks whose key is not in the table are ignored."""
    return Amendment(marks).of(table)


def _put(table: pa.Table, name: str, rows: np.ndarray[Any, Any], changes: Sequence[Mapping[str, Any]]) -> pa.Table:
    touched = [(int(row), change[name]) for row, change in zip(rows, changes, strict=True) if name in change]
    mask = np.zeros(table.num_rows, np.bool_)
    mask[[row for row, _ in touched]] = True
    field = SCHEMA.field(name)
    column = table.column(name).combine_chunks()
    new = pc.replace_with_mask(column, pa.array(mask), pa.array([value for _, value in touched], field.type))
    return table.set_column(SCHEMA.get_field_index(name), field, new)


def components(path: str) -> str:
    """A path as it is sorted: NUL sorts before any character of a name."""
    return path.replace("/", "\0")


def in_walk_order(table: pa.Table, roots: Sequence[str]) -> pa.Table:
    """Sorted by root, in the order of `roots`, then by path component: NUL sorts before any character of a name."""
    rank = pc.index_in(table.column("root"), value_set=pa.array(roots, pa.string()))
    parts_of_path = pc.replace_substring(table.column("path"), "/", "\0")
    order = pc.sort_indices(
        pa.table({"root": rank, "path": parts_of_path}), sort_keys=[("root", "ascending"), ("path", "ascending")]
    )
    return table.take(order).combine_chunks()


def count_by(table: pa.Table, column: str) -> dict[str, int]:
    """How many rows have each value of `column`, sorted by value; nulls are not counted."""
    counted = table.column(column).value_counts().to_pylist()
    return dict(sorted((item["values"], item["counts"]) for item in counted if item["values"] is not None))


def any_rows(table: pa.Table) -> bool:
    """Whether any of the documents has rows."""
    return bool(table.column("shard").null_count < table.num_rows)


def in_shards(table: pa.Table, names: Collection[str]) -> pa.Table:
    """The documents of `table` whose chunks lie in the shards called `names`."""
    return table.filter(are_in_shards(table, names))


def are_in_shards(table: pa.Table, names: Collection[str]) -> pa.ChunkedArray:
    """For each document of `table`, whether its chunks lie in one of the shards called `names`."""
    return pc.is_in(table.column("shard"), value_set=pa.array(sorted(names), pa.string()))


def keys(table: pa.Table) -> list[SourceKey]:
    return list(zip(table.column("root").to_pylist(), table.column("path").to_pylist(), strict=True))


class ShardCodes:
    """Numbers for the names of shards, in the order in which they come up."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        return list(self._numbers)

    def of(self, table: pa.Table) -> npt.NDArray[np.int32]:
        """For each document the number of the shard that holds its rows, -1 for a document without rows."""
        codes = np.full(table.num_rows, -1, np.int32)
        start = 0
        for chunk in table.column("shard").chunks:
            encoded = chunk.dictionary_encode()
            found = [self._numbers.setdefault(name, len(self._numbers)) for name in encoded.dictionary.to_pylist()]
            there = np.flatnonzero(np.asarray(encoded.indices.is_valid()))
            codes[start + there] = np.array(found, np.int32)[np.asarray(encoded.indices.drop_null())]
            start += len(chunk)
        return codes


_ROW_BITS = 40


class InPlaceOrder:
    """The documents of a table by shard, in the order in which `names` has them, and by their place in it; those
    without rows come first. `order`: their row numbers in the table, in 4 bytes each."""

    def __init__(self, table: pa.Table) -> None:
        """For a moment it takes 20 bytes a document."""
        codes = ShardCodes()
        # one number for both: sorting by two keys takes twice the memory
        place = np.empty(table.num_rows, np.int64)
        for number, part in enumerate(parts(table.select(["shard", "first_row"]))):
            first = np.asarray(part.column("first_row"), np.int64)
            place[number * PART_ROWS :][: part.num_rows] = first + (codes.of(part).astype(np.int64) << _ROW_BITS)
        self.names = codes.names
        self.order: Numbers = np.argsort(place, kind="stable").astype(np.uint32)
        shard = np.arange(len(self.names) + 1) << _ROW_BITS
        self._bounds = [bisect_left(self.order, one, key=place.__getitem__) for one in shard.tolist()]

    def __iter__(self) -> Iterator[tuple[str, Numbers]]:
        """Each shard's name, with its documents."""
        for name, start, stop in zip(self.names, self._bounds, self._bounds[1:], strict=False):
            yield name, self.order[start:stop]
