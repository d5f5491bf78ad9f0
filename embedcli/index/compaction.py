"""Compaction: decide which shards are kept, which are rewritten without dead rows, which are merged; then do it.

In: the documents of a generation (where its live rows lie) and the shards that hold these rows. Out: the shards of the
generation, from the oldest rows to the newest, and the documents with their new places.

A shard with a dead row has to be written anew, whole: what a night writes is the size of the shards that its changes
touch. So what is written anew is cut into small shards, which costs nothing then, and the next change touches one of
them. Shards that nothing touches stay as large as they are. Small shards of many runs are merged by size tier: eight of
a tier become one.
Not here: publishing (publish.py).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli import columns
from embedcli.index import documents
from embedcli.index.disk import Disk
from embedcli.index.shards import LastGroup, Shard, read_rows, write_shard

DOCUMENTS = 32
"""In a shard that is cut: when 1 % of all documents change at random, 28 % of such shards are touched."""
MOST_SHARDS = 3072
"""Of an index that changes everywhere. Each file costs a reader from 0.2 ms (DuckDB, Polars) to 1 ms (pyarrow)."""
SMALLEST_BYTES = 256 << 10
LARGEST_BYTES = 64 << 20
FAN = 8

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Piece:
    """Live rows of one shard: `first` and `lengths` are the place of each of their documents in it, ascending; `at`
    is where the documents are in the documents table."""

    shard: Shard
    first: Ints
    lengths: Ints
    at: Ints

    @cached_property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Of rows, half-open, ascending."""
        return _coalesce(self.first, self.lengths)

    @cached_property
    def rows(self) -> int:
        return int(self.lengths.sum())

    @property
    def whole(self) -> bool:
        return self.rows == self.shard.rows

    @property
    def live_bytes(self) -> int:
        return self.shard.size_bytes * self.rows // max(1, self.shard.rows)

    def part(self, chosen: Ints | slice) -> Piece:
        """Some of the documents."""
        return Piece(self.shard, self.first[chosen], self.lengths[chosen], self.at[chosen])


Group = tuple[Piece, ...]
"""Pieces that become one shard; a single whole piece is kept: its file is linked into the next generation."""


def written_bytes(groups: Sequence[Group], *, copying: bool) -> int:
    """Estimate of the bytes that `write` will write; with `copying` (no hard links) kept shards count too."""
    return sum(piece.live_bytes for group in groups if copying or not _carried(group) for piece in group)


def _carried(group: Group) -> bool:
    return len(group) == 1 and group[0].whole


def live_pieces(table: pa.Table, known: Mapping[str, Shard]) -> list[Piece]:
    """The shards in which the documents of `table` have rows, in the order of `known`, each with its live rows."""
    column = table.column("shard").combine_chunks()
    at = np.flatnonzero(np.asarray(column.is_valid()))
    if not at.size:
        return []
    names = column.take(pa.array(at)).dictionary_encode()
    first, lengths = (np.asarray(table.column(name), np.int64)[at] for name in ("first_row", "rows"))
    place = {name: number for number, name in enumerate(known)}
    codes = np.array([place[name] for name in names.dictionary.to_pylist()])[np.asarray(names.indices)]
    order = np.lexsort((first, codes))
    bounds = np.flatnonzero(np.diff(codes[order])) + 1
    ordered = list(known.values())
    return [Piece(ordered[codes[part[0]]], first[part], lengths[part], at[part]) for part in np.split(order, bounds)]


def _coalesce(first: Ints, rows: Ints) -> tuple[tuple[int, int], ...]:
    ends = first + rows
    new = np.concatenate(([True], first[1:] != ends[:-1]))
    starts = np.flatnonzero(new)
    stops = np.concatenate((starts[1:], [first.size])) - 1
    return tuple(zip(first[starts].tolist(), ends[stops].tolist(), strict=True))


# ---- which rows become one shard


def full_bytes(pieces: Sequence[Piece]) -> int:
    """The size of the shards into which rows are cut when they are written anew. One of half that size or more is
    never merged."""
    size = sum(piece.live_bytes for piece in pieces)
    count = sum(piece.first.size for piece in pieces)
    return min(max(size * DOCUMENTS // max(1, count), size // MOST_SHARDS, SMALLEST_BYTES), LARGEST_BYTES)


def plan_groups(pieces: Sequence[Piece], *, apart: Collection[str] = ()) -> list[Group]:
    """Which pieces are kept, cut and merged, so that each row is written at most once; in the order of `pieces`.

    The shards named in `apart` are damaged and never merged: a sound shard merged with them would be damaged too.
    """
    full = full_bytes(pieces)
    groups: list[Group] = [(piece,) for piece in pieces if piece.whole or piece.shard.name in apart]
    groups += _cut([piece for piece in pieces if not piece.whole and piece.shard.name not in apart], full)
    done = [group for group in groups if _live_bytes(group) >= full // 2 or group[0].shard.name in apart]
    settled = set(map(id, done))
    done += _merge([group for group in groups if id(group) not in settled], full)
    order = {piece.shard.name: number for number, piece in enumerate(pieces)}
    return sorted(done, key=lambda group: (order[group[0].shard.name], int(group[0].first[0])))


def _cut(torn: Sequence[Piece], full: int) -> list[Group]:
    """The documents of all `torn` pieces, one after the other, in groups of about `full` bytes."""
    total = sum(piece.live_bytes for piece in torn)
    size = total / max(1, round(total / full))
    groups: dict[int, list[Piece]] = {}
    before = 0.0
    for piece in torn:
        ends = np.cumsum(piece.lengths) * (piece.live_bytes / max(1, piece.rows))
        starts = np.concatenate(([0.0], ends[:-1]))
        numbers = ((before + starts) // max(size, 1.0)).astype(np.int64)
        bounds = np.flatnonzero(np.diff(numbers)) + 1
        for part in np.split(np.arange(numbers.size), bounds):
            groups.setdefault(int(numbers[part[0]]), []).append(piece.part(part))
        before += float(ends[-1])
    return [tuple(group) for group in groups.values()]


def _merge(small: Sequence[Group], full: int) -> list[Group]:
    """Merge by size tier, from the smallest tier up."""
    groups: list[Group] = []
    tiers: dict[int, list[Group]] = {}
    for group in small:
        tiers.setdefault(_tier(group, full), []).append(group)
    while tiers:
        tier = min(tiers)
        bucket = tiers.pop(tier)
        while len(bucket) >= FAN:
            merged, bucket = _fill(bucket, full)
            if _live_bytes(merged) >= full // 2 or _tier(merged, full) <= tier:
                groups.append(merged)
            else:
                tiers.setdefault(_tier(merged, full), []).append(merged)
        groups += bucket
    return groups


def _fill(bucket: list[Group], full: int) -> tuple[Group, list[Group]]:
    taken: list[Group] = []
    size = 0
    while bucket and (len(taken) < FAN or size + _live_bytes(bucket[0]) <= full):
        taken.append(bucket[0])
        size += _live_bytes(bucket[0])
        bucket = bucket[1:]
    return tuple(piece for group in taken for piece in group), bucket


def _live_bytes(group: Group) -> int:
    return sum(piece.live_bytes for piece in group)


def _tier(group: Group, full: int) -> int:
    """-1 from an eighth of `full` up to it, -2 for the eighth below that, and so on; the smallest shards share one
    tier."""
    return math.floor(math.log(max(_live_bytes(group), 4096) / full, FAN))


# ---- writing


@dataclass(frozen=True)
class Compacted:
    """The shards of a generation, its documents with their places, and how many bytes compaction wrote."""

    shards: list[Shard]
    table: pa.Table
    bytes_rewritten: int


def write(
    table: pa.Table, groups: Sequence[Group], *, dim: int, folder: Path, keys_folder: Path, disk: Disk
) -> Compacted:
    """Link or write each group into `folder`; `table` is the documents table. Raises StorageError."""
    result: list[Shard] = []
    moves: list[tuple[Group, str]] = []
    last = LastGroup()
    for group in groups:
        if _carried(group):
            result.append(_carry(group[0].shard, folder, keys_folder, disk))
            continue
        rows = _Rows(group, last)
        shard = write_shard(rows, rows.keys(), dim=dim, folder=folder, keys_folder=keys_folder, disk=disk)
        disk.step("shard merged")
        result.append(shard)
        moves.append((group, shard.name))
    written = {name for _, name in moves}
    rewritten = sum(shard.size_bytes for shard in result if shard.name in written)
    if not result:
        result.append(
            write_shard([], np.zeros((2, 0), np.uint64), dim=dim, folder=folder, keys_folder=keys_folder, disk=disk)
        )
    return Compacted(result, _moved(table, moves), rewritten)


def _carry(shard: Shard, folder: Path, keys_folder: Path, disk: Disk) -> Shard:
    new = replace(shard, folder=folder, keys_folder=keys_folder)
    disk.carry(shard.path, new.path)
    if shard.keys_path.exists() and not new.keys_path.exists():
        disk.carry(shard.keys_path, new.keys_path)
    return new


class _Rows:
    """The live rows of a group, one table after another; iterated from the start again when a write is retried."""

    def __init__(self, group: Group, last: LastGroup) -> None:
        self._group = group
        self._last = last

    def __iter__(self) -> Iterator[pa.Table]:
        for piece in self._group:
            yield from read_rows(piece.shard.path, piece.ranges, last=self._last)

    def keys(self) -> columns.VectorKeys:
        parts = []
        for piece in self._group:
            keys = self._last.keys(piece.shard)
            parts += [keys[:, start:stop] for start, stop in piece.ranges]
        return np.concatenate(parts, axis=1)


def _moved(table: pa.Table, moves: Sequence[tuple[Group, str]]) -> pa.Table:
    """`table` with the new shard and first_row of every document whose rows were rewritten."""
    if not moves:
        return table
    names = table.column("shard").combine_chunks().dictionary_encode()
    codes = np.asarray(pc.fill_null(names.indices, -1)).astype(np.int32)
    shard_of = names.dictionary.to_pylist()
    first = np.asarray(table.column("first_row"), np.int64).copy()
    for group, name in moves:
        offset = 0
        for piece in group:
            first[piece.at] = offset + np.cumsum(piece.lengths) - piece.lengths
            codes[piece.at] = len(shard_of)
            offset += piece.rows
        shard_of.append(name)
    indices = pa.array(codes, mask=codes < 0)
    shard = pa.DictionaryArray.from_arrays(indices, pa.array(shard_of, pa.string())).cast(pa.string())
    return _with(_with(table, "shard", shard), "first_row", first)


def _with(table: pa.Table, name: str, values: Any) -> pa.Table:
    field = documents.SCHEMA.field(name)
    column = values if isinstance(values, pa.Array) else pa.array(values, field.type)
    return table.set_column(documents.SCHEMA.get_field_index(name), field, column)
