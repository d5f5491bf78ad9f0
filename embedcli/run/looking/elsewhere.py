"""Sources that a run reads although none of its walks came to them, or although the walk found them unchanged.

In: the plan, the documents of the index. Out: more tasks in the plan; the documents whose container nobody saw go.
Not here: what the walks themselves find (join.py).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.errors import BucketError
from embedcli.index import documents
from embedcli.records import Source, SourceKey, from_printable, stat_of
from embedcli.run.plan import Plan
from embedcli.run.tasks import last_seen_rows
from embedcli.sources.buckets.fetched import stat_of_object
from embedcli.sources.roots import Scopes
from embedcli.urls import is_url


def read_elsewhere(plan: Plan, base: pa.Table, damaged: Collection[str]) -> int:
    """Add the sources of damaged shards that this run does not cover; returns how many. None of them counts as gone."""
    count = 0
    if not damaged:
        return count
    inside_damaged = documents.are_in_shards(base, damaged)
    holders = documents.holders(base, documents.keys(base.filter(inside_damaged)))
    mask = np.asarray(inside_damaged).copy()
    mask[documents.positions(base, holders)] = True
    mine = pa.array(mask[np.asarray(pc.is_null(base.column("container")))])
    rows = documents.files(base).filter(mine).select(["root", "path", "uri"]).to_pylist()
    for row, prior in zip(rows, last_seen_rows(plan.tasks.seen.filter(mine)), strict=True):
        covered = any(s.root.id == row["root"] and s.holds(row["path"]) for s in plan.scopes.scopes)
        source = None if covered or row["root"] in plan.scopes.absorbed else _source(row)
        if source is not None:
            plan.tasks.add(source, prior)
            count += 1
    return count


def keep_apart(plan: Plan, base: pa.Table, files: pa.Table) -> None:
    """Read a source again if a new file has the path of a document inside it, which then gets another name."""
    known = files.filter(pc.match_substring(files.column("path"), "#"))
    plan.marked |= set(documents.keys(known)) - plan.dropped
    if not plan.marked:
        return
    shadowed = documents.taken(base, documents.positions(base, plan.marked))
    shadowed = shadowed.filter(pc.is_valid(shadowed.column("container")))
    if not shadowed.num_rows:
        return
    planned = {task.key for task in plan.tasks}
    again = documents.holders(base, documents.keys(shadowed)) - planned - plan.dropped
    places = documents.positions(files, again)
    rows = documents.taken(files.select(["root", "path", "uri"]), places).to_pylist()
    for row, prior in zip(rows, last_seen_rows(documents.taken(plan.tasks.seen, places)), strict=True):
        source = _source(row)
        if source is not None:
            plan.tasks.add(source, prior)
            plan.unchanged -= 1 + prior.members


def _source(row: Mapping[str, str]) -> Source | None:
    file = os.fsdecode(from_printable(row["uri"]))
    try:
        if is_url(file):
            return Source(row["root"], row["path"], file, stat_of_object(file))
        found = os.stat(file)
    except OSError:
        return None
    return Source(row["root"], row["path"], file, stat_of(found)) if stat.S_ISREG(found.st_mode) else None


def orphans(scopes: Scopes, base: pa.Table) -> set[SourceKey]:
    """Documents in a file that is gone, which a run that ended early had not read to its end: it has no row."""
    walked = {scope.root.id for scope in scopes.scopes if scope.is_whole and scope.stream is None}
    rows = documents.orphans(base).select(["root", "path", "container", "uri"]).to_pylist()
    gone = set()
    for row in rows:
        end = row["path"][len(row["container"]) :]
        file = os.fsdecode(from_printable(row["uri"].removesuffix(end)))
        if row["root"] in walked and not _is_there(file):
            gone.add((row["root"], row["path"]))
    return gone


def _is_there(file: str) -> bool:
    """Of a bucket that cannot be asked everything is there."""
    if not is_url(file):
        return os.path.lexists(file)
    try:
        stat_of_object(file)
    except BucketError as error:
        return error.reason != "vanished"
    return True
