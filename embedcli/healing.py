"""A damaged shard of the current generation: its documents are read again, and what becomes of those that cannot be.

In: the names of damaged shards, the documents of the current generation, tonight's plan and what came of it. Out:
documents that look new to the plan; sources to read beyond what the run speaks of; what stays as it is for tonight.
Not here: finding damage (verifying.py, shards.py), writing anything (merging.py).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa

from embedcli import documents, merging, shards
from embedcli.documents import Key, Mark
from embedcli.errors import DamagedShard
from embedcli.merging import Piece
from embedcli.plan import Plan
from embedcli.records import Source, from_printable, stat_of
from embedcli.shards import Shard
from embedcli.tasks import Prior


def as_unread(table: pa.Table, damaged: Collection[str]) -> pa.Table:
    """`table` where the documents of damaged shards look new; what lies where is left as it is."""
    unread = {"size": -1, "sha256": None}
    return documents.amend(table, [Mark(key, unread) for key in documents.keys(documents.in_shards(table, damaged))])


def read_elsewhere(plan: Plan, base: pa.Table, damaged: Collection[str]) -> int:
    """Add the sources of damaged shards that the run does not speak of; returns how many. None of them is ever gone."""
    count = 0
    for row in documents.in_shards(base, damaged).to_pylist():
        spoken_of = any(s.root.id == row["root"] and s.holds(row["path"]) for s in plan.scopes.scopes)
        source = None if spoken_of or row["root"] in plan.scopes.absorbed else _source(row)
        if source is not None:
            known = {name: row[name] for name in Prior._fields if name != "lacking"}
            plan.tasks.add(source, Prior(**known, lacking=row["pages_skipped"] + len(row["missing"])))
            count += 1
    return count


def _source(row: Mapping[str, str]) -> Source | None:
    file = os.fsdecode(from_printable(row["uri"]))
    try:
        found = os.stat(file)
    except OSError:
        return None
    return Source(row["root"], row["path"], file, stat_of(found)) if stat.S_ISREG(found.st_mode) else None


@dataclass(frozen=True)
class Left:
    """Documents of damaged shards that were not read anew, and whose rows cannot be taken out either.

    `waiting`: they keep the rows they have, as `held` do, all documents of their shards: a shard stays whole or goes.
    `lost`: the shard's file is gone.
    """

    waiting: frozenset[Key] = frozenset()
    held: frozenset[Key] = frozenset()
    lost: frozenset[Key] = frozenset()


def left_over(base: pa.Table, replaced: Collection[Key], damaged: Collection[str], known: Mapping[str, Shard]) -> Left:
    """`replaced`: the documents that have new rows, or leave."""
    mine = documents.in_shards(base, damaged)
    stuck = [piece for piece in merging.live_pieces(documents.without(mine, replaced), known) if not _readable(piece)]
    torn = {piece.shard.name for piece in stuck if piece.shard.path.exists()}
    missing = {piece.shard.name for piece in stuck} - torn

    def keys(names: Collection[str]) -> frozenset[Key]:
        return frozenset(documents.keys(documents.in_shards(mine, names)))

    return Left(keys(torn) - set(replaced), keys(torn), keys(missing) - set(replaced))


def _readable(piece: Piece) -> bool:
    try:
        for _ in shards.read_rows(piece.shard.path, piece.ranges):
            pass
    except DamagedShard:
        return False
    return True


def without_rows(table: pa.Table, lost: Collection[Key]) -> pa.Table:
    """`table` where the documents in `lost` have no rows any more, and are tried every night."""
    nothing = {"status": "failed", "reason": "io", "shard": None, "first_row": 0, "rows": 0}
    return documents.amend(table, [Mark(key, nothing) for key in lost])
