"""Publishing the next generation by one rename of `current`, once all its files are durable; and going back.

In: an index and a draft of documents and shards. Out: `generations/N`, and `current` pointing to it; INDEX is fsynced
after the swap.
Not here: which rows are published (run/publishing/publish.py), how shards are merged (compaction.py), removing old
generations (clearing.py).
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.columns import Floats
from embedcli.config import IndexSettings
from embedcli.errors import StorageError, storage_errors
from embedcli.fingerprints import PROBE_VERSION, Fingerprints
from embedcli.index import change_lists, compaction, documents
from embedcli.index.generations import Index
from embedcli.index.lock import published_elsewhere
from embedcli.index.manifest import Generation, manifest_bytes
from embedcli.index.shards import Shard, regroup
from embedcli.index.tables.mapped import passing
from embedcli.records import Root
from embedcli.vault.disk import Written


@dataclass(frozen=True)
class Draft:
    """The content of the next generation; `shards` says where each shard that `table` names lies now."""

    number: int
    complete: bool
    settings: IndexSettings
    fingerprints: Fingerprints
    roots: tuple[Root, ...]
    mounts: Mapping[str, tuple[str, ...]]
    query: Mapping[str, Any]
    probe: Floats
    probe_max_tokens: int
    table: pa.Table
    changes: pa.Table
    shards: Mapping[str, Shard]
    probe_version: int = PROBE_VERSION


GROUP_ROWS = 1 << 16
"""Of a row group of documents or changes; so many are in memory while they are written."""

MERGED_BYTES_PER_S = 30e6
"""How fast shards are merged, at the least: read, compressed, digested and written."""


def publish(
    index: Index,
    draft: Draft,
    *,
    parent: int | None,
    lock_held: Callable[[], bool],
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> tuple[Generation, int]:
    """Make `draft` the current generation; returns it and the bytes that compaction wrote for it.

    Shards are merged if that can be done in the seconds that are left.
    Raises StorageError, or Locked when another run published or took the lock meanwhile: then nothing changed.
    """
    temporary = index.generations / f"{draft.number:06d}.tmp"
    try:
        index.disk.make_folder(temporary, must_be_new=True)
    except StorageError as error:
        is_taken = isinstance(error.__cause__, FileExistsError)
        raise (published_elsewhere(index.shown) if is_taken else error) from None
    index.disk.make_folder(temporary / "vectors")
    compacted = _compact(index, draft, temporary / "vectors", seconds_left())
    generation = _write_files(index, temporary, draft, _describe(draft, parent, compacted), compacted.tables)
    index.disk.step("generation written")
    _check_unchanged(index, parent, lock_held)
    _announce(index, draft.number, draft.number, draft.changes)
    with storage_errors(temporary):
        index.disk.rename(temporary, index.path(draft.number))
    index.disk.fsync_folder(index.generations)
    _swap(index, draft.number, parent)
    moved = {
        name: dataclasses.replace(shard, folder=index.path(draft.number) / "vectors")
        for name, shard in generation.shards.items()
    }
    return dataclasses.replace(generation, shards=moved), compacted.bytes_rewritten


def point_back(
    index: Index, number: int, *, expected: int | None, changes: pa.Table, lock_held: Callable[[], bool]
) -> int:
    """Make generation `number`, which is on disk, the current one; `expected` is the current one until then.

    `changes` are published under a number of their own, which no generation gets; returns it.
    Raises StorageError, or Locked when another run published or took the lock meanwhile: then nothing changed.
    """
    _check_unchanged(index, expected, lock_held)
    own_number = index.next_number()
    _announce(index, own_number, number, changes)
    _swap(index, number, expected)
    return own_number


def _check_unchanged(index: Index, expected: int | None, lock_held: Callable[[], bool]) -> None:
    if not lock_held() or index.linked_number() != expected:
        raise published_elsewhere(index.shown)


def _swap(index: Index, number: int, retired: int | None) -> None:
    if retired is not None:
        with suppress(OSError):
            os.utime(index.path(retired))  # `clear` keeps a retired generation for an hour after this time
    index.disk.step("before swap")
    index.disk.point(index.folder / "current", f"generations/{number:06d}")
    index.disk.step("after swap")
    index.disk.fsync_folder(index.folder)
    finish_changes(index)


def _announce(index: Index, number: int, target: int, changes: pa.Table) -> None:
    """Write the change list under a pending name; it becomes `.parquet` only once `target` is current, because loaders
    apply every `.parquet` they find."""
    finish_changes(index)
    whole = change_lists.stamped(index, changes, generation=target)
    index.disk.write(index.pending_changes(number, target), _parquet(whole.schema, lambda: documents.parts(whole)))


def finish_changes(index: Index) -> None:
    """Publish the pending change lists whose generation became current; delete those of generations that were killed
    before the swap."""
    current = index.linked_number()
    for path, number, target in change_lists.pending(index):
        if target == current:
            with storage_errors(path):
                index.disk.rename(path, index.change_list(number))
            index.disk.fsync_folder(index.changes)
            continue
        with storage_errors(index.path(number)):
            unseen = number == target and index.has(number)
        if unseen:
            index.disk.remove(index.path(number))  # no reader has seen this generation, and `staging/` has all of it
        index.disk.remove(path)


def _compact(index: Index, draft: Draft, vectors: Path, seconds_left: float) -> compaction.Compacted:
    current = index.linked_number()
    apart = index.damaged(index.read(current)) if current is not None else set()
    pieces = compaction.live_pieces(draft.table, draft.shards)
    groups = compaction.plan_groups(pieces, apart=apart)
    copying = not index.disk.has_hard_links(vectors)
    if copying:
        index.warn(f"`{index.shown}` is on a filesystem without hard links: each generation is a whole copy")
    merged_bytes = compaction.written_bytes(groups, copying=copying)
    if merged_bytes > seconds_left * MERGED_BYTES_PER_S or not index.disk.has_room(index.folder, merged_bytes):
        groups = [(piece,) for piece in pieces]  # merging can wait for a run that has the time and the space
    index.disk.check_room(
        index.folder, compaction.written_bytes(groups, copying=copying), purpose="publishing",
        hint="free some space, then run the same command again: finished documents are kept",
    )  # fmt: skip
    dim = draft.settings.dim
    return compaction.write(draft.table, groups, dim=dim, folder=vectors, keys_folder=index.keys, disk=index.disk)


def _write_files(
    index: Index, folder: Path, draft: Draft, generation: Generation, tables: Callable[[], Iterator[pa.Table]]
) -> Generation:
    def probe(sink: Any) -> None:
        np.save(sink, draft.probe, allow_pickle=False)

    files: dict[str, Written] = {
        "documents.parquet": index.disk.write(folder / "documents.parquet", _parquet(documents.SCHEMA, tables)),
        "probe.npy": index.disk.write(folder / "probe.npy", probe),
    }
    whole = dataclasses.replace(generation, files=files)
    data = manifest_bytes(whole.to_json())
    index.disk.write(folder / "manifest.json", lambda sink: sink.write(data))
    index.disk.fsync_folder(folder / "vectors")
    index.disk.fsync_folder(index.keys)
    return whole


def _parquet(schema: pa.Schema, tables: Callable[[], Iterator[pa.Table]]) -> Callable[[Any], None]:
    def write(sink: Any) -> None:
        options = {"compression": "zstd", "write_page_checksum": True}
        with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, **options) as writer:
            for table in passing(regroup(tables(), GROUP_ROWS), lambda table: int(table.nbytes)):
                writer.write_table(table)

    return write


def _describe(draft: Draft, parent: int | None, compacted: compaction.Compacted) -> Generation:
    table = draft.table
    counts = {
        "sources": table.num_rows,
        "status": documents.count_by(table, "status"),
        "chunks": sum(shard.rows for shard in compacted.shards),
        "tokens": int(pa.compute.sum(table.column("tokens")).as_py() or 0),
        "bytes": sum(shard.size_bytes for shard in compacted.shards),
    }
    return Generation(
        number=draft.number,
        parent=parent,
        complete=draft.complete,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=draft.settings,
        fingerprints=draft.fingerprints,
        roots=draft.roots,
        mounts=draft.mounts,
        query=draft.query,
        probe_max_tokens=draft.probe_max_tokens,
        probe_version=draft.probe_version,
        counts=counts,
        shards={shard.name: shard for shard in compacted.shards},
    )
