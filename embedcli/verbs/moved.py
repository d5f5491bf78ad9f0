"""`moved`: give a root of the index another path, after its folder was moved.

In: an index, the old and the new path of a root. Out: the next generation, in which the uris of the root's documents
are changed and all ids and vectors are the same; nothing is embedded.
Not here: locking and publishing (change.py), the text on the screen (cli/upkeep.py).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.errors import InputError, quoted
from embedcli.index import shards
from embedcli.index.documents import by_shard
from embedcli.index.generations import Index
from embedcli.index.manifest import Generation
from embedcli.index.shards import Shard
from embedcli.records import Root, from_printable, printable, shown_path
from embedcli.report import Say
from embedcli.sources import walk
from embedcli.sources.roots import inside
from embedcli.verbs.change import Change, Done, changing, known_root, ops, put

Bools = npt.NDArray[np.bool_]


def moved(index: Index, old: str, new: str, *, warn: Say) -> Done:
    """Publish the next generation with a root under another path: uris change, ids and vectors stay."""
    with changing(index, "moved", warn) as change:
        root = known_root(change.current, old)
        table = change.documents()
        mine = np.asarray(pc.equal(table.column("root"), root.id), np.bool_)
        renamed = dataclasses.replace(
            root, path=_new_place(index.folder, change.current, root, new, table.filter(mine))
        )
        table = put(table, "uri", _uris(table, mine, renamed))
        with change.room_for_shards() as folder:
            rewritten = _rewrite(change, table, mine, folder)
            names = {old_name: shard.name for old_name, shard in rewritten.items()}
            places = [names.get(name, name) for name in table.column("shard").to_pylist()]
            change.publish(
                roots=[renamed if other.id == root.id else other for other in change.current.roots],
                table=put(table, "shard", places),
                changed=ops(table.filter(pa.array(mine)), change.current, "changed"),
                new_shards=list(rewritten.values()),
            )
        return change.done(table.filter(pa.array(mine)))


def _new_place(index: Path, current: Generation, root: Root, new: str, table: pa.Table) -> str:
    """The absolute path of NEW. Raises InputError where it does not exist, is of another kind, or overlaps a root."""
    if root.stream:
        raise InputError(f"`{root.path}` came as a stream, and has no path", "name a folder or a file first")
    place = walk.root_of(new)
    shown = shown_path(place)
    if place.path == root.path:
        raise InputError(f"the root is already at `{shown}`", "name the new path second: `embedcli moved OLD NEW`")
    for other in current.roots:
        pairs = (other.path, place.path), (os.path.realpath(other.path), os.path.realpath(place.path))
        if other.id != root.id and not other.stream and any(inside(one, two) or inside(two, one) for one, two in pairs):
            raise InputError(
                f"`{shown}` and the root `{shown_path(other)}` overlap",
                f"`embedcli forget {quoted(shown_path(root))} --index {quoted(index)}`, then"
                f" `embedcli ingest {quoted(shown)} --index {quoted(index)}`: known vectors are reused",
            )
    single = _is_file(root, table)
    if single is not None and (single != os.path.isfile(new) or (single and _name(root.path) != _name(place.path))):
        kind = f"a file called `{_name(root.path)}`" if single else "a folder"
        raise InputError(f"the root is {kind}, and `{shown}` is not", "name the new path of the root itself")
    return place.path


def _is_file(root: Root, table: pa.Table) -> bool | None:
    """Whether a root is a single file, judged by the uri of its only source; None for a root without sources."""
    return table.column("uri")[0].as_py() == shown_path(root) if table.num_rows else None


def _name(path: str) -> str:
    return printable(os.fsencode(os.path.basename(path)))


# ---- rows


def _uris(table: pa.Table, mine: Bools, root: Root) -> pa.ChunkedArray:
    """The uris of all documents; those where `mine` is True begin with the present path of the root."""
    base = os.fsencode(root.path)
    is_file = os.path.isfile(root.path)
    new: list[str] = []
    holders: dict[str, str] = {}
    rows = table.filter(pa.array(mine)).select(["path", "container"])
    inside = set(rows.column("container").unique().to_pylist())
    for path, container in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        if container is None:
            uri = printable(base if is_file else base + b"/" + b"/".join(map(from_printable, path.split("/"))))
        else:  # in walk order after what holds it
            uri = holders[container] + path[len(container) :]
        new.append(uri)
        if path in inside:
            holders[path] = uri
    column = table.column("uri").combine_chunks()
    return pc.replace_with_mask(column, pa.array(mine), pa.array(new, pa.string()))


def _rewrite(change: Change, table: pa.Table, mine: Bools, folder: Path) -> dict[str, Shard]:
    """Rewrite every shard that has rows of `mine`, with the uris of `table`; returns the new shards by old name."""
    known, disk = change.current.shards, change.index.disk
    parts = [(known[name], rows) for name, rows in by_shard(table) if mine[rows].any()]
    needed_bytes = sum(shard.size_bytes for shard, _ in parts)
    disk.check_room(
        change.index.folder, needed_bytes, purpose="writing the new shards",
        hint="free some space, then run the same command again",
    )  # fmt: skip
    written = {}
    for shard, numbers in parts:
        rows = _Renamed(shard, table.take(pa.array(numbers)), mine[numbers], change.number)
        keys = shards.keys_by_row(shard)
        dim = change.current.settings.dim
        written[shard.name] = shards.write_shard(rows, keys, dim=dim, folder=folder, keys_folder=folder, disk=disk)
    return written


class _Renamed:
    """The rows of a shard with the uris of their documents; iterated from the start again when a write is retried."""

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
            yield put(put(rows, "uri", self._uris.take(pa.array(owner))), "changed_in", changed_in)
