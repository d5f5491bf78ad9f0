"""The verbs of whoever keeps an index: moved, forget, rollback, unlock.

In: an index with a published generation. Out: the next generation, with other roots and not one vector embedded; or
`current` on an older one; or a lock file without its dead holder.
Not here: status (standing.py), verify (verifying.py), the text on the screen (keeper_cli.py).
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli import changes, documents, lock, merging, shards, sources, state
from embedcli.disk import storage_errors
from embedcli.errors import DamagedShard, InputError, Locked, StorageError, UsageError
from embedcli.generations import Draft, Index
from embedcli.manifest import Generation
from embedcli.records import Root, from_printable, printable
from embedcli.scopes import inside
from embedcli.shards import Shard
from embedcli.standing import Holder, read_holder, shown_path
from embedcli.verifying import by_shard, current_of

Warn = Callable[[str], None]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Done:
    """What a verb did: the generation that is current now, the one that was, and how much was concerned.

    `before` is None where no link told it.
    """

    verb: str
    index: str
    generation: int
    before: int | None
    sources: int
    chunks: int
    elapsed_s: float


def forget(index: Index, root: str, *, warn: Warn) -> Done:
    """Publish the next generation without a root and its documents. Raises InputError for a root unknown."""
    with _changing(index, "forget", warn) as change:
        leaving = _known_root(change.current, root)
        table = change.documents()
        mine = pc.equal(table.column("root"), leaving.id)
        gone = table.filter(mine)
        change.publish(
            roots=[other for other in change.current.roots if other.id != leaving.id],
            table=table.filter(pc.invert(mine)),
            changed=_ops(gone, change.current, "removed"),
        )
        return change.done(gone)


def moved(index: Index, old: str, new: str, *, warn: Warn) -> Done:
    """Publish the next generation with a root under another path: uris change, ids and vectors stay."""
    with _changing(index, "moved", warn) as change:
        root = _known_root(change.current, old)
        table = change.documents()
        mine = np.asarray(pc.equal(table.column("root"), root.id), np.bool_)
        renamed = dataclasses.replace(root, path=_new_place(change.current, root, new, table.filter(mine)))
        table = _put(table, "uri", _uris(table, mine, renamed))
        with change.room_for_shards() as folder:
            rewritten = _rewrite(change, table, mine, folder)
            names = {old_name: shard.name for old_name, shard in rewritten.items()}
            places = [names.get(name, name) for name in table.column("shard").to_pylist()]
            change.publish(
                roots=[renamed if other.id == root.id else other for other in change.current.roots],
                table=_put(table, "shard", places),
                changed=_ops(table.filter(pa.array(mine)), change.current, "changed"),
                new_shards=list(rewritten.values()),
            )
        return change.done(table.filter(pa.array(mine)))


def rollback(index: Index, *, to: int | None = None, warn: Warn) -> Done:
    """Make the parent, or generation `to`, the current one again: of the current one nothing is needed but its shards.

    Raises UsageError when it is not on disk, StorageError when it is not whole.
    """
    started = time.monotonic()
    index.check()
    if not index.numbers():
        current_of(index)
    with _locked(index, warn) as held:
        index.tell_changes()
        current = index.linked_number()
        target = _way_back(index, to)
        table = index.documents(target, ["rows"])
        told = _changes_back(index, current, target, warn)
        index.point_back(target, expected=current, changes=told, lock_held=held.held)
        return _done(index, "rollback", (target, current), table, started, warn)


def _way_back(index: Index, to: int | None) -> int:
    """The generation to go back to, whole on disk. Without `to` the current one's manifest has to be read."""
    current = index.linked_number() if to is not None else index.current_number()
    target = index.read(current).parent if to is None and current is not None else to
    others = [number for number in index.numbers() if number != current]
    lacking = {number: index.lacks(number) for number in others}
    whole = [number for number in others if not lacking[number]]
    kept = (
        f"whole are {', '.join(map(str, whole))}: `embedcli rollback --to N --index {index.folder}`"
        if whole
        else "no other one is kept whole"
    )
    if target is not None and target == current:
        raise UsageError(f"generation {target} is current already", kept)
    if target is None or target not in others:
        what = "its parent" if to is None else f"generation {to}"
        raise UsageError(
            f"cannot roll back: generation {current} is current and {what} is not kept in `{index.folder}`", kept
        )
    if lacking[target]:
        raise StorageError(f"cannot roll back to generation {target}: {lacking[target]}", kept)
    return target


def _changes_back(index: Index, current: int | None, target: int, warn: Warn) -> pa.Table:
    """What a loader of `changes/` has to do; none where the rows of the current generation cannot be read."""
    now, then = (
        sorted(index.path(number).glob("vectors/*.parquet")) if number is not None else []
        for number in (current, target)
    )
    try:
        if now:
            return changes.between(now, then)
    except DamagedShard as error:
        warn(str(error))
    warn("what changes is not told in `changes/`: whoever follows it has to load the index anew")
    return changes.SCHEMA.empty_table()


def unlock(index: Index, *, warn: Warn, sleep: Callable[[float], None] = time.sleep) -> Holder | None:
    """Clear a lock that a dead host left; returns who held it, None where nobody did.

    Raises Locked while a process holds it, or another host moves it.
    """
    path = index.folder / "lock"
    if not path.exists() or not path.read_bytes().strip():
        current_of(index)
        return None
    holder = read_holder(index) or Holder("unknown", 0, "unknown", None)  # a file that nobody can have meant
    with storage_errors(path), path.open("r+b") as file:
        if _lives(path, file.fileno(), holder, warn, sleep):
            raise Locked(
                f"index `{index.folder}` is held by a run that lives: pid {holder.pid} on `{holder.host}`"
                f" since {holder.since}",
                f"stop it there with `kill {holder.pid}`: what it finished is kept",
            )
        file.truncate(0)
        os.fsync(file.fileno())
    return holder


def _lives(path: Path, file: int, holder: Holder, warn: Warn, sleep: Callable[[float], None]) -> bool:
    try:
        ours = lock.take_flock(file, path) and holder.host == socket.gethostname()
    except BlockingIOError:
        return True
    if ours:
        return False
    warn(f"watching for {1.5 * lock.BEAT_S:.0f} s whether the run on `{holder.host}` still moves its lock")
    return lock.moves(path, sleep)


# ---- one change, under the lock


class _Change:
    """The index while its lock is held: the current generation, and how the next one is made of it."""

    def __init__(self, index: Index, verb: str, held: lock.Lock, warn: Warn) -> None:
        self.index = index
        self.verb = verb
        self.held = held
        self._warn = warn
        self.current = self.generation = current_of(index)
        self.number = index.next_number()
        self._started = time.monotonic()

    def documents(self) -> pa.Table:
        """Those of the current generation, with the stats that were seen since."""
        seen = state.read_seen(self.index.state, self.current.number)
        return documents.amend(self.index.documents(self.current.number), seen)

    @contextmanager
    def room_for_shards(self) -> Iterator[Path]:
        """A folder that no run adopts and the next one clears, for shards until they are published by name."""
        folder = self.index.generations / f"{self.number:06d}.{self.verb}.tmp"
        self.index.disk.make_folder(folder)
        try:
            yield folder
        finally:
            self.index.disk.remove(folder)

    def publish(
        self, *, roots: Sequence[Root], table: pa.Table, changed: pa.Table, new_shards: Sequence[Shard] = ()
    ) -> None:
        """The current generation with other roots and documents; all that concerns vectors stays."""
        current = self.current
        draft = Draft(
            number=self.number,
            complete=current.complete,
            settings=current.settings,
            fingerprints=current.fingerprints,
            roots=tuple(roots),
            mounts={root.id: _mounts(current, root) for root in roots},
            query=current.query,
            probe=self.index.probe(current.number),
            probe_max_tokens=current.probe_max_tokens,
            probe_version=current.probe_version,
            table=table,
            changes=changed,
            shards={**current.shards, **{shard.name: shard for shard in new_shards}},
        )
        self.generation, _ = self.index.publish(draft, parent=current.number, lock_held=self.held.held)

    def done(self, concerned: pa.Table) -> Done:
        """Remember the verb among the runs, and tell what it did."""
        numbers = (self.generation.number, self.current.number)
        return _done(self.index, self.verb, numbers, concerned, self._started, self._warn)


def _done(
    index: Index, verb: str, numbers: tuple[int, int | None], concerned: pa.Table, started: float, warn: Warn
) -> Done:
    """The verb is done, whatever becomes of its line in the history."""
    generation, before = numbers
    chunks = int(pc.sum(concerned.column("rows")).as_py() or 0)
    elapsed_s = round(time.monotonic() - started, 3)
    done = Done(verb, str(index.folder), generation, before, concerned.num_rows, chunks, elapsed_s)
    line = {"ended_at": datetime.now(UTC).isoformat(timespec="seconds"), **dataclasses.asdict(done)}
    try:
        state.append_run(index.state, line, index.disk)
    except StorageError as error:
        warn(f"done, and not noted in the history: {error}")
    return done


@contextmanager
def _changing(index: Index, verb: str, warn: Warn) -> Iterator[_Change]:
    """The lock, and a StorageError where a file of the current generation cannot be read."""
    current_of(index)  # before a lock file is made in a folder that is no index
    with _locked(index, warn) as held:
        try:
            yield _Change(index, verb, held, warn)
        except (OSError, pa.ArrowException, DamagedShard) as error:
            raise StorageError(
                f"cannot {verb}, the current generation stays: {error}",
                f"`embedcli verify {index.folder}` names what is damaged",
            ) from error


@contextmanager
def _locked(index: Index, warn: Warn) -> Iterator[lock.Lock]:
    with lock.Lock(index.folder, network=lock.on_network(index.folder), warn=warn) as held:
        index.create()  # whoever lost a folder gets it back
        yield held


# ---- roots


def _known_root(current: Generation, path: str) -> Root:
    absolute = os.path.abspath(path)
    for root in current.roots:
        if root.path == absolute:
            return root
    names = ", ".join(f"`{shown_path(root)}`" for root in current.roots) or "none"
    raise InputError(f"`{printable(os.fsencode(absolute))}` is not a root of this index", f"its roots are {names}")


def _new_place(current: Generation, root: Root, new: str, table: pa.Table) -> str:
    """The absolute path of NEW. Raises InputError where it is not there, is of another kind, or overlaps a root."""
    place = sources.root_of(new)
    shown = shown_path(place)
    if place.path == root.path:
        raise InputError(f"the root is at `{shown}` already", "name the new path second: `embedcli moved OLD NEW`")
    for other in current.roots:
        pairs = (other.path, place.path), (os.path.realpath(other.path), os.path.realpath(place.path))
        if other.id != root.id and any(inside(one, two) or inside(two, one) for one, two in pairs):
            raise InputError(
                f"`{shown}` and the root `{shown_path(other)}` lie in one another",
                f"`embedcli forget` the root that moved, then ingest `{shown}`: known vectors are not embedded again",
            )
    single = _is_file(root, table)
    if single is not None and (single != os.path.isfile(new) or (single and _name(root.path) != _name(place.path))):
        kind = f"a file called `{_name(root.path)}`" if single else "a folder"
        raise InputError(f"the root is {kind}, and `{shown}` is not", "name where the root itself has gone")
    return place.path


def _is_file(root: Root, table: pa.Table) -> bool | None:
    """Whether a root is a single file, by the uri of its only source; None for a root without sources."""
    return table.column("uri")[0].as_py() == shown_path(root) if table.num_rows else None


def _name(path: str) -> str:
    return printable(os.fsencode(os.path.basename(path)))


def _mounts(current: Generation, root: Root) -> tuple[str, ...]:
    """The mount points of a root; of one that moved, whether its top is one is asked of its new place."""
    known = current.mounts.get(root.id, ())
    if root in current.roots or not os.path.isdir(root.path):
        return tuple(known)
    device, parents = (os.stat(path).st_dev for path in (root.path, os.path.dirname(root.path)))
    return (*([""] if device != parents else []), *(mount for mount in known if mount))


# ---- rows


def _uris(table: pa.Table, mine: Bools, root: Root) -> pa.ChunkedArray:
    """The uris of all documents, where those of `mine` begin at the root's path of now."""
    base = os.fsencode(root.path)
    is_file = os.path.isfile(root.path)
    new = [
        printable(base if is_file else base + b"/" + b"/".join(map(from_printable, path.split("/"))))
        for path in table.column("path").filter(pa.array(mine)).to_pylist()
    ]
    column = table.column("uri").combine_chunks()
    return pc.replace_with_mask(column, pa.array(mine), pa.array(new, pa.string()))


def _put(table: pa.Table, name: str, values: object) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


def _ops(table: pa.Table, current: Generation, op: str) -> pa.Table:
    """The changes table that says `op` of every chunk of the documents in `table`."""
    ids = [
        part.column("chunk_id").cast(pa.string())
        for piece in merging.live_pieces(table, current.shards)
        for part in shards.read_rows(piece.shard.path, piece.ranges, ["chunk_id"])
    ]
    tables = [pa.table([column, pa.repeat(op, len(column))], schema=changes.SCHEMA) for column in ids]
    return pa.concat_tables([changes.SCHEMA.empty_table(), *tables]).combine_chunks()


def _rewrite(change: _Change, table: pa.Table, mine: Bools, folder: Path) -> dict[str, Shard]:
    """Write every shard with rows of `mine` anew, with the uris that `table` says; the new shards by the old names."""
    known, disk = change.current.shards, change.index.disk
    parts = [(known[name], rows) for name, rows in by_shard(table) if mine[rows].any()]
    needed = sum(shard.size_bytes for shard, _ in parts) * 1.05
    if needed > (free := disk.free_bytes(folder)):
        raise StorageError(
            f"the new shards need {needed / 1e9:.2f} GB in `{change.index.folder}`, {free / 1e9:.2f} GB are free",
            "free some space, then run the same command again",
        )
    written = {}
    for shard, numbers in parts:
        rows = _Renamed(shard, table.take(pa.array(numbers)), mine[numbers], change.number)
        keys = shards.keys_by_row(shard)
        dim = change.current.settings.dim
        written[shard.name] = shards.write_shard(rows, keys, dim=dim, folder=folder, keys_folder=folder, disk=disk)
    return written


class _Renamed:
    """The rows of a shard with the uris of their documents; iterated anew when a write is tried again."""

    def __init__(self, shard: Shard, owners: pa.Table, mine: Bools, number: int) -> None:
        rows = np.asarray(owners.column("rows"), np.int64)
        self._shard = shard
        self._number = number
        self._owner = np.repeat(np.arange(rows.size), rows)
        self._uris = owners.column("uri").combine_chunks()
        self._mine = mine

    def __iter__(self) -> Iterator[pa.Table]:
        start = 0
        for rows in shards.read_rows(self._shard.path, [(0, self._shard.rows)]):
            owner = self._owner[start : start + rows.num_rows]
            start += rows.num_rows
            changed_in = np.where(self._mine[owner], self._number, np.asarray(rows.column("changed_in")))
            yield _put(_put(rows, "uri", self._uris.take(pa.array(owner))), "changed_in", changed_in)
