"""`moved`: give a root of the index, or a folder or source below one, another path after it was moved.

In: an index, the old and the new path. Out: the next generation, in which the uris of the documents are changed and
nothing is embedded. Of a root all ids stay; what moves below a root gets the ids that the next run would give it.
Not here: where NEW lies (new_place.py), locking and publishing (change.py), the text on the screen (cli/upkeep.py).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.index import changes, shards
from embedcli.index.documents import InPlaceOrder, in_walk_order
from embedcli.index.generations import Index
from embedcli.index.shards import Shard
from embedcli.records import digest, from_printable_path, printable
from embedcli.report import Say
from embedcli.verbs.edits.change import Bools, Change, Done, changing, known_part, ops, put
from embedcli.verbs.edits.new_place import Place, new_place


def moved(index: Index, old: str, new: str, *, warn: Say) -> Done:
    """Publish the next generation with a root, or what lies below one, under another path. Raises InputError."""
    with changing(index, "moved", warn) as change:
        table = change.documents()
        root, below, mine = known_part(change.current, old, table)
        place = new_place(index.folder, change.current, (root, below), new, table.filter(pa.array(mine)))
        place.refuse_doubled(table.filter(pa.array(~mine)))
        concerned = table.filter(pa.array(mine))
        table = _with_names(table, mine, place)
        with change.room_for_shards() as folder:
            rewritten = _rewrite(change, table, mine, folder)
            names = {old_name: shard.name for old_name, shard in rewritten.items()}
            shard = [names.get(name, name) for name in table.column("shard").to_pylist()]
            change.publish(
                roots=place.roots,
                table=in_walk_order(put(table, "shard", shard), [other.id for other in place.roots]),
                changed=_changes(change, concerned, rewritten, same_ids=not below),
                new_shards=list(rewritten.values()),
            )
        return change.done(concerned)


def _changes(change: Change, concerned: pa.Table, rewritten: dict[str, Shard], *, same_ids: bool) -> pa.Table:
    """What a loader has to do: chunks of a root have other uris, those below a root have other ids too."""
    if same_ids:
        return ops(concerned, change.current, "changed")
    removed = ops(concerned, change.current, "removed")
    rows = [
        part.filter(pc.equal(part.column("changed_in"), change.number)).column("chunk_id").cast(pa.string())
        for shard in rewritten.values()
        for part in shards.read_rows(shard.path, [(0, shard.rows)], ["chunk_id", "changed_in"])
    ]
    added = [pa.table([column, pa.repeat("added", len(column))], schema=changes.SCHEMA) for column in rows]
    return pa.concat_tables([removed, *added]).combine_chunks()


# ---- rows


def _with_names(table: pa.Table, mine: Bools, place: Place) -> pa.Table:
    """The documents with the root, path and uri that those of `mine` have now."""
    base = os.fsencode(place.root.path)
    is_file = os.path.isfile(place.root.path)
    names: dict[str, tuple[str, str, str | None]] = {}
    rows = table.filter(pa.array(mine)).select(["path", "container"])
    for old, container in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        if container is None:
            path = place.path_of(old)
            uri = printable(base if is_file else base + b"/" + from_printable_path(path))
            names[old] = path, uri, None
        else:  # it follows, in walk order, the document that it lies in
            path, uri, _ = names[container]
            names[old] = path + old[len(container) :], uri + old[len(container) :], path
    paths, uris, containers = zip(*names.values(), strict=True) if names else ((), (), ())
    new = {"root": [place.root.id] * len(names), "path": paths, "uri": uris, "container": containers}
    for name, values in new.items():
        column = table.column(name).combine_chunks()
        table = put(table, name, pc.replace_with_mask(column, pa.array(mine), pa.array(values, pa.string())))
    return table


def _rewrite(change: Change, table: pa.Table, mine: Bools, folder: Path) -> dict[str, Shard]:
    """Rewrite every shard that has rows of `mine`, with the uris of `table`; returns the new shards by old name."""
    known, disk = change.current.shards, change.index.disk
    parts = [(known[name], rows) for name, rows in InPlaceOrder(table) if mine[rows].any()]
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
    """The rows of a shard with the names of their documents; iterated from the start again when a write is retried."""

    def __init__(self, shard: Shard, owners: pa.Table, mine: Bools, number: int) -> None:
        rows = np.asarray(owners.column("rows"), np.int64)
        self._shard = shard
        self._number = number
        self._owner = np.repeat(np.arange(rows.size), rows)
        self._owners = owners.select(["root", "path", "uri"]).combine_chunks()
        self._mine = mine

    def __iter__(self) -> Iterator[pa.Table]:
        start = 0
        seen: Counter[tuple[int, str]] = Counter()
        keys = list(zip(*(self._owners.column(name).to_pylist() for name in ("root", "path")), strict=True))
        for rows in shards.read_rows(self._shard.path, [(0, self._shard.rows)]):
            owner = self._owner[start : start + rows.num_rows]
            start += rows.num_rows
            mine = self._mine[owner]
            rows = _with_ids(rows, owner, mine, keys, seen)
            for name in ("path", "uri"):
                rows = put(rows, name, self._owners.column(name).combine_chunks().take(pa.array(owner)))
            yield put(rows, "changed_in", np.where(mine, self._number, np.asarray(rows.column("changed_in"))))


def _with_ids(
    rows: pa.Table, owner: Any, mine: Bools, keys: list[tuple[str, str]], seen: Counter[tuple[int, str]]
) -> pa.Table:
    """The rows with the ids that reading/rows.py makes of root, path and text; `seen` counts equal texts."""
    columns = {name: rows.column(name).to_pylist() for name in ("doc_id", "chunk_id", "chunk_digest")}
    for at in np.flatnonzero(mine).tolist():
        document, text = int(owner[at]), columns["chunk_digest"][at]
        columns["doc_id"][at] = digest(*keys[document])
        columns["chunk_id"][at] = digest(*keys[document], text, seen[document, text])
        seen[document, text] += 1
    return put(put(rows, "doc_id", columns["doc_id"]), "chunk_id", columns["chunk_id"])
