"""A damaged shard of the current generation: its documents are read again, and what becomes of those that cannot be.

In: the names of damaged shards, the documents of the current generation, tonight's plan and what came of it. Out:
documents that look new to the plan; sources to read beyond what the run speaks of; what stays as it is for tonight.
Not here: finding damage (verbs/verify.py, shards.py), writing anything (compaction.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa

from embedcli.errors import DamagedShard
from embedcli.index import compaction, documents, shards
from embedcli.index.compaction import Piece
from embedcli.index.documents import Mark
from embedcli.index.shards import Shard
from embedcli.records import SourceKey


def as_unread(table: pa.Table, damaged: Collection[str]) -> pa.Table:
    """`table` where the documents of damaged shards look new; what lies where is left as it is."""
    unread = {"size": -1, "sha256": None}
    return documents.amend(table, [Mark(key, unread) for key in documents.keys(documents.in_shards(table, damaged))])


@dataclass(frozen=True)
class Left:
    """Documents of damaged shards that were not read anew, and whose rows cannot be taken out either.

    `waiting`: they keep the rows they have, as `held` do, all documents of their shards: a shard stays whole or goes.
    `lost`: the shard's file is gone.
    """

    waiting: frozenset[SourceKey] = frozenset()
    held: frozenset[SourceKey] = frozenset()
    lost: frozenset[SourceKey] = frozenset()


def left_over(
    base: pa.Table, replaced: Collection[SourceKey], damaged: Collection[str], known: Mapping[str, Shard]
) -> Left:
    """`replaced`: the documents that have new rows, or leave."""
    mine = documents.in_shards(base, damaged)
    stuck = [
        piece for piece in compaction.live_pieces(documents.without(mine, replaced), known) if not _readable(piece)
    ]
    torn = {piece.shard.name for piece in stuck if piece.shard.path.exists()}
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
    """`table` where the documents in `lost` have no rows any more, and are tried every night."""
    nothing = {"status": "failed", "reason": "io", "shard": None, "first_row": 0, "rows": 0}
    return documents.amend(table, [Mark(key, nothing) for key in lost])
