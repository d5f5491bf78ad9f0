"""How a target comes to hold exactly one generation, whatever was killed before.

In: an open store, the trail of an index. Out: an Outcome; the target's memory names the generation that it holds.
A live table follows the change lists since the one that it remembers: every chunk they name is written as it is now,
or deleted, so that doing it twice, or after half of it, ends the same. Where that is not possible, a new table is
loaded and swapped in: no table ever holds rows of two models or of two indexes.
Not here: the stores, reading the change lists (index/change_lists.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.columns import READ_SCHEMA
from embedcli.errors import TargetError
from embedcli.index.change_lists import ChangeList, Trail, touched
from embedcli.report import Report, many
from embedcli.stores import rows
from embedcli.stores.contract import FORMAT, VERSIONS, Layout, Memory, Store, Table


@dataclass(frozen=True)
class Outcome:
    """What was done, or with a dry run would be: `loaded` a new table (and `why`), `followed` the changes, or nothing;
    how many rows were written and deleted, and how many the target holds."""

    did: str
    upserts: int
    deletes: int
    rows: int
    why: str = ""


@dataclass(frozen=True)
class Source:
    """The index to follow: its folder (for messages and for indexes without an origin), and its trail."""

    index: str
    trail: Trail

    @property
    def layout(self) -> Layout:
        generation = self.trail.generation
        columns = [(field.name, str(field.type)) for field in READ_SCHEMA]
        said = json.dumps([FORMAT, generation.fingerprints.model, generation.settings.dim, columns])
        return Layout(generation.settings.dim, hashlib.sha256(said.encode()).hexdigest()[:32])

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.trail.generation.shards.values())

    def memory(self, *, finished: bool) -> Memory:
        newest = self.trail.newest
        memory = Memory(self.index, newest.origin, newest.id, self.layout.digest)
        if not finished:
            return memory
        return dataclasses.replace(
            memory,
            applied=newest.id,
            finished=True,
            generation=self.trail.generation.number,
            number=newest.number,
        )


def sync(store: Store, source: Source, *, replace: bool = False, dry_run: bool = False, report: Report) -> Outcome:
    """Make the target hold the current generation. Raises TargetError, StorageError, DamagedShard.

    `replace`: a table that holds another index may be replaced. With `dry_run` nothing is written.
    """
    if not dry_run:
        store.finish_swap()
    live = store.live()
    if live is not None and not replace:
        _check_same_index(live.memory, source)
    lists = _to_follow(live, source)
    if live is not None and lists is not None:
        outcome = _follow(live, source, lists, dry_run=dry_run, report=report)
        if outcome is not None:
            if not dry_run:
                store.drop_unfinished()
            return outcome
    why = _why(live, source, lists)
    if dry_run:
        return Outcome("loaded", source.rows, 0, source.rows, why)
    if why:
        report.line(why)
    return _load(store, source, why, report)


def _is_same_index(memory: Memory, source: Source) -> bool:
    origin = source.trail.newest.origin
    return memory.origin == origin if memory.origin and origin else memory.index == source.index


def _check_same_index(memory: Memory, source: Source) -> None:
    if not _is_same_index(memory, source):
        raise TargetError(
            f"the target holds another index, `{memory.index}`, not `{source.index}`",
            "name another table with `--into NAME`, or let this index take its place with `--replace`",
        )


def _to_follow(live: Table | None, source: Source) -> tuple[ChangeList, ...] | None:
    """The change lists that lead from what the live table holds to the current generation; None without a way."""
    if live is None or not live.memory.finished or live.memory.layout != source.layout.digest:
        return None
    if source.trail.since(live.memory.until) is None:
        return None  # a killed sync wrote rows of changes that this index has not gone through: it was restored since
    return source.trail.since(live.memory.applied)


def _why(live: Table | None, source: Source, lists: tuple[ChangeList, ...] | None) -> str:
    """Why a new table is loaded; empty for the first one."""
    if live is None or not live.memory.finished:
        return ""
    if not _is_same_index(live.memory, source):
        return (
            f"the target holds another index, `{live.memory.index}`:"
            " a new table is loaded and takes the old one's place"
        )
    if live.memory.layout != source.layout.digest:
        return (
            "the index has another model, dimension or columns now: a new table is loaded and takes the old one's place"
        )
    if lists is None:
        return (
            f"the changes since generation {live.memory.generation}, which the target holds, are not kept:"
            " a new table is loaded and takes the old one's place"
        )
    return "the target was changed by somebody else: a new table is loaded and takes the old one's place"


class _Altered(Exception):
    """The live table does not have the rows that it should have after the changes."""


def _follow(
    live: Table, source: Source, lists: tuple[ChangeList, ...], *, dry_run: bool, report: Report
) -> Outcome | None:
    """Apply change lists; None where the table then has another number of rows than the generation: it was altered."""
    named = touched(lists)
    chosen = rows.choose(source.trail.generation, named)
    gone = named.filter(pc.invert(pc.is_in(named, value_set=chosen.ids))).to_pylist()
    did = "followed" if lists else "unchanged"
    outcome = Outcome(did, len(chosen.ids), len(gone), source.rows)
    if dry_run:
        return outcome
    try:
        with live.atomic():
            if lists:
                live.remember(dataclasses.replace(live.memory, until=source.trail.newest.id))
            live.delete(gone)
            if len(chosen.ids):
                live.upsert(chosen.rows(), fresh=False)
            if live.count() != source.rows:
                raise _Altered
            if lists:
                live.settle(report)
                live.remember(source.memory(finished=True))
    except _Altered:
        return None
    return outcome


def _load(store: Store, source: Source, why: str, report: Report) -> Outcome:
    generation = source.trail.generation
    table = _continued(store, source) or store.begin(source.layout, source.memory(finished=False))
    held = pa.concat_tables([VERSIONS.empty_table(), *table.versions()])
    stale = rows.not_current(generation, held).to_pylist()
    table.delete(stale)
    missing = rows.choose_all_but(generation, held)
    held_already = held.num_rows - len(stale)
    table.upsert(_counted(missing.rows(), held_already, source.rows, report), fresh=True)
    table.settle(report)
    if (count := table.count()) != source.rows:
        raise TargetError(
            f"the target has {count:,} rows after {source.rows:,} were loaded",
            "run the same command again when nobody else writes to it",
        )
    table.remember(source.memory(finished=True))
    store.swap_in()
    return Outcome("loaded", source.rows - held.num_rows + len(stale), len(stale), source.rows, why)


def _counted(parts: Iterable[pa.Table], done: int, total: int, report: Report) -> Iterator[pa.Table]:
    """The same rows; the report shows how many of all were read."""
    for part in parts:
        report.looking(f"loading: {done:,} of {many(total, 'row')}")
        yield part
        done += part.num_rows


def _continued(store: Store, source: Source) -> Table | None:
    """The table that an interrupted load left, where all of its rows are versions of this index."""
    table = store.unfinished()
    if table is None or table.memory.layout != source.layout.digest:
        return None
    if source.trail.since(table.memory.until) is None:
        return None
    table.remember(source.memory(finished=False))
    return table
