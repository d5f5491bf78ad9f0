"""Compaction: decide which shards are kept, which are rewritten without dead rows, which are merged; then do it.

In: the documents of a generation (where its live rows lie) and the shards that hold these rows. Out: the shards of the
generation and the documents with their new places. Merging is by size tier only: eight shards of a tier become one,
so rows that changed lately stay together and an old shard is seldom rewritten.
Not here: publishing (publish.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedcli import columns
from embedcli.errors import DamagedShard
from embedcli.index import documents
from embedcli.index.shards import Shard, keys_by_row, read_rows, write_shard
from embedcli.paths import exists
from embedcli.vault.disk import Disk

FULL_BYTES = 64 << 20
"""A shard of this size or more is full: it is never merged."""
LARGEST_BYTES = 256 << 20
FAN = 8

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Piece:
    """The live rows of one shard: half-open `ranges` [n, 2], ascending."""

    shard: Shard
    ranges: Ints

    @property
    def rows(self) -> int:
        return int((self.ranges[:, 1] - self.ranges[:, 0]).sum())

    @property
    def whole(self) -> bool:
        return self.rows == self.shard.rows

    @property
    def live_bytes(self) -> int:
        return self.shard.size_bytes * self.rows // max(1, self.shard.rows)


Group = tuple[Piece, ...]
"""Pieces that become one shard; a single whole piece is kept: its file is linked into the next generation."""


def written_bytes(groups: Sequence[Group], *, copying: bool) -> int:
    """Estimate of the bytes that `write` will write; with `copying` (no hard links) kept shards count too."""
    return sum(piece.live_bytes for group in groups if copying or not _carried(group) for piece in group)


def _carried(group: Group) -> bool:
    return len(group) == 1 and group[0].whole


def live_pieces(table: pa.Table, known: Mapping[str, Shard]) -> list[Piece]:
    """The shards in which the documents of `table` have rows, each with the ranges of its live rows. Raises
    DamagedShard where `known`, what the manifest lists, lacks one."""
    first, rows = (np.asarray(table.column(name)) for name in ("first_row", "rows"))
    pieces = []
    for name, numbers in documents.InPlaceOrder(table):
        if name not in known:
            raise DamagedShard(name, detail="the manifest does not list it")
        pieces.append(Piece(known[name], _coalesce(first[numbers], rows[numbers].astype(np.int64))))
    return pieces


def _coalesce(first: Ints, rows: Ints) -> Ints:
    ends = first + rows
    new = np.concatenate(([True], first[1:] != ends[:-1]))
    starts = np.flatnonzero(new)
    stops = np.concatenate((starts[1:], [first.size])) - 1
    return np.column_stack((first[starts], ends[stops]))


def plan_groups(pieces: Sequence[Piece], *, apart: Collection[str] = ()) -> list[Group]:
    """Group pieces by size tier, from the smallest tier up, so that each row is written at most once.

    The shards named in `apart` are damaged and never merged: a sound shard merged with them would be damaged too.
    """
    groups: list[Group] = []
    tiers: dict[int, list[Group]] = {}
    for piece in pieces:
        if piece.live_bytes >= FULL_BYTES or piece.shard.name in apart:
            groups.append((piece,))
        else:
            tiers.setdefault(_tier(piece.live_bytes), []).append((piece,))
    while tiers:
        tier = min(tiers)
        bucket = tiers.pop(tier)
        while len(bucket) >= FAN:
            merged, bucket = _fill(bucket)
            size = _live_bytes(merged)
            if size >= FULL_BYTES or _tier(size) <= tier:
                groups.append(merged)
            else:
                tiers.setdefault(_tier(size), []).append(merged)
        groups += bucket
    return groups


def _fill(bucket: list[Group]) -> tuple[Group, list[Group]]:
    taken: list[Group] = []
    size = 0
    while bucket and (len(taken) < FAN or size + _live_bytes(bucket[0]) <= LARGEST_BYTES):
        taken.append(bucket[0])
        size += _live_bytes(bucket[0])
        bucket = bucket[1:]
    return tuple(piece for group in taken for piece in group), bucket


def _live_bytes(group: Group) -> int:
    return sum(piece.live_bytes for piece in group)


def _tier(size_bytes: int) -> int:
    """-1 from an eighth of FULL_BYTES up to it, -2 for the eighth below that, and so on; the smallest shards share
    one tier."""
    return math.floor(math.log(max(size_bytes, 4096) / FULL_BYTES, FAN))


@dataclass(frozen=True)
class Compacted:
    """The shards of a generation, its documents with their new places, some at a time, and how many bytes compaction
    wrote."""

    shards: list[Shard]
    tables: Callable[[], Iterator[pa.Table]]
    bytes_rewritten: int


def write(
    table: pa.Table, groups: Sequence[Group], *, dim: int, folder: Path, keys_folder: Path, disk: Disk
) -> Compacted:
    """Link or write each group into `folder`; `table` is the documents table. Raises StorageError."""
    result: list[Shard] = []
    moves: dict[str, tuple[Piece, str, int]] = {}
    written = 0
    for group in groups:
        if _carried(group):
            result.append(_carry(group[0].shard, folder, keys_folder, disk))
            continue
        rows = _Rows(group)
        shard = write_shard(rows, rows.keys(), dim=dim, folder=folder, keys_folder=keys_folder, disk=disk)
        disk.step("shard merged")
        written += shard.size_bytes
        result.append(shard)
        offset = 0
        for piece in group:
            moves[piece.shard.name] = (piece, shard.name, offset)
            offset += piece.rows
    if not result:
        result.append(
            write_shard([], np.zeros((2, 0), np.uint64), dim=dim, folder=folder, keys_folder=keys_folder, disk=disk)
        )
    return Compacted(result, lambda: _moved(table, moves), written)


def _carry(shard: Shard, folder: Path, keys_folder: Path, disk: Disk) -> Shard:
    new = replace(shard, folder=folder, keys_folder=keys_folder)
    disk.carry(shard.path, new.path)
    if exists(shard.keys_path) and not exists(new.keys_path):
        disk.carry(shard.keys_path, new.keys_path)
    return new


class _Rows:
    """The live rows of a group, one table after another; iterated from the start again when a write is retried."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def __iter__(self) -> Iterator[pa.Table]:
        for piece in self._group:
            yield from read_rows(piece.shard.path, piece.ranges)

    def keys(self) -> columns.VectorKeys:
        found = np.empty((2, sum(piece.rows for piece in self._group)), np.uint64)
        start = 0
        for piece in self._group:
            stop = start + piece.rows
            found[:, start:stop] = keys_by_row(piece.shard)[:, _is_live(piece)]
            start = stop
        return found


def _is_live(piece: Piece) -> documents.Mask:
    """Of each row of the shard."""
    begun = np.zeros(piece.shard.rows + 1, np.int8)
    begun[piece.ranges[:, 0]] = 1
    begun[piece.ranges[:, 1]] -= 1
    return np.cumsum(begun[:-1], dtype=np.int8).astype(np.bool_)


def _moved(table: pa.Table, moves: Mapping[str, tuple[Piece, str, int]]) -> Iterator[pa.Table]:
    """`table`, some rows at a time, with the new shard and first_row of every document whose rows were rewritten."""
    moved = {name: _Moved.of(*move) for name, move in moves.items()}
    for part in documents.parts(table):
        yield _part_moved(part, moved) if moves else part


@dataclass(frozen=True)
class _Moved:
    """Where the rows of one shard are now: those of its range `n` begin in `shard` at `now[n]`."""

    shard: str
    starts: Ints
    now: Ints

    @classmethod
    def of(cls, piece: Piece, shard: str, offset: int) -> _Moved:
        starts, stops = piece.ranges.T
        return cls(shard, starts, offset + np.cumsum(stops - starts) - (stops - starts))

    def places(self, first: Ints) -> Ints:
        inside = np.searchsorted(self.starts, first, side="right") - 1
        return self.now[inside] + first - self.starts[inside]


def _part_moved(part: pa.Table, moved: Mapping[str, _Moved]) -> pa.Table:
    shards = documents.ShardCodes()
    codes = shards.of(part)
    first = np.asarray(part.column("first_row"), np.int64).copy()
    for code, name in enumerate(shards.names):
        if name in moved:
            first[codes == code] = moved[name].places(first[codes == code])
    now = pa.array([*(moved[name].shard if name in moved else name for name in shards.names), None], pa.string())
    return _with(_with(part, "shard", now.take(pa.array(codes % len(now)))), "first_row", first)


def _with(table: pa.Table, name: str, values: Any) -> pa.Table:
    field = documents.SCHEMA.field(name)
    column = values if isinstance(values, pa.Array) else pa.array(values, field.type)
    return table.set_column(documents.SCHEMA.get_field_index(name), field, column)
