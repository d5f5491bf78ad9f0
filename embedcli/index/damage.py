"""Repair of the current generation: documents of damaged shards are read again, and some cannot be; the probe set.

In: the names of damaged shards, the documents of the current generation, and which documents this run has replaced.
Out: the documents table in which these documents look new to the plan; after the run, the documents that keep their
damaged rows or lose them.
Not here: finding damage (verbs/verify.py, shards.py), writing anything (compaction.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa

from embedcli.errors import DamagedShard
from embedcli.index import compaction, documents, shards
from embedcli.index.compaction import Piece
from embedcli.index.documents import Mark
from embedcli.index.shards import Shard
from embedcli.paths import exists
from embedcli.records import SourceKey

if TYPE_CHECKING:
    from embedcli.index.generations import Index


def mend_probe(index: Index) -> None:
    """Put a damaged probe set of the current generation back, if an older generation has the same."""
    current = index.current()
    if current is None or index.has_sound_probe(current):
        return
    for other in index.made_alike(current):
        if other.files["probe.npy"] == current.files["probe.npy"] and index.has_sound_probe(other):
            data = (index.path(other.number) / "probe.npy").read_bytes()
            path = index.path(current.number) / "probe.npy"
            index.disk.write(path, partial(_put, data))
            index.warn(f"`{path}` was damaged; it is that of generation {other.number}, which is the same")
            return


def _put(data: bytes, sink: BinaryIO) -> None:
    sink.write(data)


def as_unread(table: pa.Table, damaged: Collection[str]) -> pa.Table:
    """`table` in which the documents of damaged shards, and what holds them, look new to the plan; where their rows lie
    does not change."""
    unread = {"size": -1, "sha256": None}
    mine = set(documents.keys(documents.in_shards(table, damaged)))
    return documents.amend(table, [Mark(key, unread) for key in mine | documents.holders(table, mine)])


@dataclass(frozen=True)
class Left:
    """Documents of damaged shards that this run did not read again, and whose rows cannot be copied out either.

    `waiting`: the shard's file is there, so they keep their damaged rows until a later run can read the documents.
    `held`: all documents of those shards, also those that were read again, because a shard is kept or removed whole.
    `lost`: the shard's file is gone, and their rows with it.
    """

    waiting: frozenset[SourceKey] = frozenset()
    held: frozenset[SourceKey] = frozenset()
    lost: frozenset[SourceKey] = frozenset()


def left_over(
    base: pa.Table, replaced: Collection[SourceKey], damaged: Collection[str], known: Mapping[str, Shard]
) -> Left:
    """Which documents of the `damaged` shards are left; `replaced` are those that have new rows or are removed."""
    mine = documents.in_shards(base, damaged)
    stuck = [
        piece for piece in compaction.live_pieces(documents.without(mine, replaced), known) if not _readable(piece)
    ]
    torn = {piece.shard.name for piece in stuck if exists(piece.shard.path)}
    missing = {piece.shard.name for piece in stuck} - torn

    def keys(names: Collection[str]) -> frozenset[SourceKey]:
        return frozenset(documents.keys(documents.in_shards(mine, names)))

    return Left(keys(torn) - set(replaced), keys(torn), keys(missing) - set(replaced))


def _readable(piece: Piece) -> bool:
    try:
        for _ in shards.read_rows(piece.shard.path, piece.ranges):
            pass
    except DamagedShard:
        return False
    return True


def without_rows(table: pa.Table, lost: Collection[SourceKey]) -> pa.Table:
    """`table` in which the documents in `lost` have no rows; their reason `io` makes every run try them again."""
    no_rows = {"status": "failed", "reason": "io", "shard": None, "first_row": 0, "rows": 0}
    return documents.amend(table, [Mark(key, no_rows) for key in lost])
