"""A change of the index without embedding anything: what `moved`, `forget` and `rollback` have in common.

In: an index, its lock, and other roots or documents. Out: the next generation with the same vectors, a line in the
history of runs, and a Done that says what was changed.
Not here: the verbs themselves (moved.py, forget.py, rollback.py).
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.errors import DamagedShard, InputError, StorageError, quoted
from embedcli.index import changes, compaction, documents, lock, shards, state
from embedcli.index.documents import amend
from embedcli.index.generations import Index, current_of
from embedcli.index.manifest import Generation
from embedcli.index.publish import Draft, publish
from embedcli.index.shards import Shard
from embedcli.records import Root, printable, shown_path
from embedcli.report import Say
from embedcli.sources.roots import below_root, inside
from embedcli.urls import absolute, is_url

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Done:
    """What a verb did: the generation that is current now, the one before, and how many sources and chunks it changed.

    `before` is None where the link `current` was lost; `changes` is the number of the file in `changes/`.
    """

    verb: str
    index: str
    generation: int
    before: int | None
    changes: int
    sources: int
    chunks: int
    elapsed_s: float
    has_changes: bool = True
    """Whether that file names all that changed."""


# ---- one change, under the lock


class Change:
    """One change of a locked index: reads the current generation and publishes the next one."""

    def __init__(self, index: Index, verb: str, acquired: lock.Hold, warn: Say) -> None:
        self.index = index
        self.verb = verb
        self.lock = acquired
        self._warn = warn
        self.current = self.generation = current_of(index)
        self.number = index.next_number()
        self._started = time.monotonic()

    def documents(self) -> pa.Table:
        """The documents of the current generation, with the stats that runs have seen since it was published."""
        seen = state.read_seen(self.index.state, self.current.number)
        return amend(self.index.documents(self.current.number), seen)

    @contextmanager
    def room_for_shards(self) -> Iterator[Path]:
        """A folder for new shards until they are published. No run adopts its content; if a kill leaves it behind, the
        next run clears it."""
        folder = self.index.generations / f"{self.number:06d}.{self.verb}.tmp"
        self.index.disk.make_folder(folder)
        try:
            yield folder
        finally:
            self.index.disk.remove(folder)

    def publish(
        self, *, roots: Sequence[Root], table: pa.Table, changed: pa.Table, new_shards: Sequence[Shard] = ()
    ) -> None:
        """Publish the current generation with other roots and documents; everything about vectors stays."""
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
        self.generation, _ = publish(self.index, draft, parent=current.number, lock_held=self.lock.held)

    def done(self, concerned: pa.Table) -> Done:
        """Write the verb to the history of runs; returns what it did."""
        numbers = (self.generation.number, self.current.number, self.generation.number)
        return done(self.index, self.verb, numbers, concerned, self._started, self._warn)


def done(
    index: Index,
    verb: str,
    numbers: tuple[int, int | None, int],
    concerned: pa.Table,
    started: float,
    warn: Say,
    *,
    has_changes: bool = True,
) -> Done:
    """Write the verb to the history of runs; a line that cannot be written is a warning, as the change is published.
    `numbers`: Done's generation, before and changes."""
    generation, before, number = numbers
    chunks = int(pc.sum(concerned.column("rows")).as_py() or 0)
    elapsed_s = round(time.monotonic() - started, 3)
    done = Done(
        verb, index.shown, generation, before, number,
        sources=concerned.num_rows, chunks=chunks, elapsed_s=elapsed_s, has_changes=has_changes,
    )  # fmt: skip
    line = {"ended_at": datetime.now(UTC).isoformat(timespec="seconds"), **dataclasses.asdict(done)}
    try:
        state.append_run(index.state, line, index.disk)
    except StorageError as error:
        warn(f"the change is done, but not written to the history: {error}")
    return done


@contextmanager
def changing(index: Index, verb: str, warn: Say) -> Iterator[Change]:
    """Lock the index for one change. Raises StorageError where a file of the current generation cannot be read."""
    current_of(index)  # first of all: no lock file may be made in a folder that is not an index
    with locked(index, warn) as acquired:
        try:
            yield Change(index, verb, acquired, warn)
        except (OSError, pa.ArrowException, DamagedShard) as error:
            raise StorageError(
                f"`{verb}` failed and the current generation stays: {error}",
                f"`embedcli verify {quoted(index.shown)}` names what is damaged",
            ) from error


@contextmanager
def locked(index: Index, warn: Say) -> Iterator[lock.Hold]:
    with lock.hold(index.folder, index.disk, warn) as acquired:
        index.create()  # makes folders of the index that were lost
        yield acquired


# ---- roots


def known_part(current: Generation, path: str, table: pa.Table) -> tuple[Root, str, Bools]:
    """The root that is at this path or holds it, the path below that root, and which documents of `table` lie there,
    those inside containers included.

    Raises InputError where the index has no document there.
    """
    place = absolute(path)
    stream = next((root for root in current.roots if root.stream and root.path == path), None)
    if stream is not None:
        return stream, "", np.asarray(pc.equal(table.column("root"), stream.id), np.bool_)
    for root in sorted(current.roots, key=lambda root: -len(root.path)):
        if root.stream or not inside(place, root.path):
            continue
        below = below_root(root, place)
        there = np.asarray(pc.equal(table.column("root"), root.id), np.bool_)
        if below:
            paths = table.column("path")
            there &= np.asarray(pc.or_(pc.equal(paths, below), pc.starts_with(paths, f"{below}/")), np.bool_)
            inside_them = documents.members(table, documents.keys(table.filter(pa.array(there))))
            there[documents.positions(table, inside_them)] = True
        if there.any() or not below:
            _refuse_inside(table, root, below)
            return root, below, there
    raise _no_root(current, place, "is neither a root of this index nor a source or a folder with sources")


def _refuse_inside(table: pa.Table, root: Root, below: str) -> None:
    """A document inside a container comes and goes with it."""
    places = documents.positions(table, {(root.id, below)})
    container = table.column("container")[int(places[0])].as_py() if places.size else None
    if container is not None:
        raise InputError(f"`{below}` lies in `{container}`", "name the file that it lies in")


def _no_root(current: Generation, place: str, why: str) -> InputError:
    names = ", ".join(f"`{shown_path(root)}`" for root in current.roots)
    hint = f"name one of its roots: {names}" if names else "this index has no roots"
    return InputError(f"`{printable(os.fsencode(place))}` {why}", hint)


def _mounts(current: Generation, root: Root) -> tuple[str, ...]:
    """The mount points of a root. For a root that moved, its new path decides whether the root itself is one."""
    known = current.mounts.get(root.id, ())
    if is_url(root.path):
        return ()
    if root in current.roots or not os.path.isdir(root.path):
        return tuple(known)
    device, parents = (os.stat(path).st_dev for path in (root.path, os.path.dirname(root.path)))
    return (*([""] if device != parents else []), *(mount for mount in known if mount))


def put(table: pa.Table, name: str, values: object) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


def ops(table: pa.Table, current: Generation, op: str) -> pa.Table:
    """The changes table with the operation `op` for every chunk of the documents in `table`."""
    ids = [
        part.column("chunk_id").cast(pa.string())
        for piece in compaction.live_pieces(table, current.shards)
        for part in shards.read_rows(piece.shard.path, piece.ranges, ["chunk_id"])
    ]
    tables = [pa.table([column, pa.repeat(op, len(column))], schema=changes.SCHEMA) for column in ids]
    return pa.concat_tables([changes.SCHEMA.empty_table(), *tables]).combine_chunks()
