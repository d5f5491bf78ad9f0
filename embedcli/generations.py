"""Published, consistent states of an index: reading the current one, publishing the next, clearing what is old.

In: an index folder; a draft of documents and shards. Out: `generations/N` complete on disk before `current` points to
it by one rename; INDEX fsynced after the swap; only then does anything old go.
Not here: which rows are to be published (ingest.py), how shards are put together (merging.py).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedcli import documents, merging, state
from embedcli.config import Fingerprints, IndexSettings
from embedcli.disk import Disk, Written, storage_errors
from embedcli.engine import PROBE_VERSION
from embedcli.errors import Locked, NoIndex, StorageError
from embedcli.records import Root
from embedcli.shards import Floats, Shard

FORMAT = 1
RETIRED_KEPT_S = 3600.0
CHANGES_KEPT_S = 90 * 86400.0
_NUMBER = re.compile(r"\d{6,}")


@dataclass(frozen=True)
class Generation:
    """One published state, as its manifest tells it. `mounts` are the mount points of each root id, below the root.

    `probe_max_tokens` is where the texts of the probe set were cut: a `--rebuild` under another `--max-tokens` that
    finds all its vectors opens no engine, and keeps the probe set that there was. `probe_version` is what its rows are.
    """

    number: int
    parent: int | None
    complete: bool
    created_at: str
    settings: IndexSettings
    fingerprints: Fingerprints
    roots: tuple[Root, ...]
    mounts: Mapping[str, tuple[str, ...]]
    query: Mapping[str, Any]
    probe_max_tokens: int
    probe_version: int
    counts: Mapping[str, Any]
    shards: Mapping[str, Shard]

    def to_json(self, files: Mapping[str, Written]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "generation": self.number,
            "parent": self.parent,
            "complete": self.complete,
            "created_at": self.created_at,
            "settings": self.settings.to_json(),
            "fingerprints": dataclasses.asdict(self.fingerprints),
            "roots": [
                {**dataclasses.asdict(root), "mounts": list(self.mounts.get(root.id, ()))} for root in self.roots
            ],
            "query": dict(self.query),
            "probe_max_tokens": self.probe_max_tokens,
            "probe_version": self.probe_version,
            "counts": dict(self.counts),
            "shards": [
                {
                    "key": f"vectors/{shard.name}.parquet",
                    "rows": shard.rows,
                    "bytes": shard.size_bytes,
                    "sha256": shard.sha256,
                    "keys_sha256": shard.keys_sha256,
                }
                for shard in self.shards.values()
            ],
            "files": {name: {"bytes": file.size_bytes, "sha256": file.sha256} for name, file in files.items()},
        }


@dataclass(frozen=True)
class Draft:
    """What is to become the next generation; `shards` says where each shard that `table` names lies now."""

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


class Index:
    """An index folder. Only this class knows links and renames."""

    def __init__(self, folder: Path, *, disk: Disk, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.disk = disk
        self._clock = clock
        self.generations = folder / "generations"
        self.staging = folder / "staging"
        self.keys = folder / "keys"
        self.changes = folder / "changes"
        self.state = folder / "state"

    # ---- what is there

    def check(self) -> None:
        """Raise NoIndex when the folder is a file, or holds things that are not ours."""
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise NoIndex(f"`{self.folder}` is a file, not an index", "name a folder with `--index`")
        try:
            names = {name for name in os.listdir(self.folder) if name != "lock"}
        except OSError as error:
            raise StorageError(f"cannot read `{self.folder}`: {error.strerror}", "check its permissions") from error
        if names and not names & {"current", "staging", "generations"}:
            raise NoIndex(
                f"`{self.folder}` is not an index: it holds `{min(names)}`",
                "name an empty or a new folder with `--index`",
            )

    def create(self) -> None:
        for folder in (self.generations, self.staging, self.keys, self.changes, self.state):
            self.disk.make_folder(folder)

    def current_number(self) -> int | None:
        try:
            return int(Path(os.readlink(self.folder / "current")).name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise NoIndex(
                f"`{self.folder / 'current'}` is not a link to a generation",
                "copy an index with its links (`cp -a`, `rsync -a`), or begin a new one with `--index`",
            ) from error

    def current(self) -> Generation | None:
        number = self.current_number()
        return None if number is None else self.read(number)

    def path(self, number: int) -> Path:
        return self.generations / f"{number:06d}"

    def read(self, number: int) -> Generation:
        """The generation as its manifest tells it. Raises NoIndex when it is damaged or from a newer version."""
        path = self.path(number) / "manifest.json"
        try:
            data = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise NoIndex(
                f"cannot read `{path}`: {error}",
                "restore the folder from a copy, or begin a new index with `--index`",
            ) from error
        if data["format"] > FORMAT:
            raise NoIndex(
                f"index `{self.folder}` was written by a newer version:"
                f" its format is {data['format']}, this one knows {FORMAT}",
                "upgrade with `pip install --upgrade embedcli`",
            )
        return self._from_json(data)

    def _from_json(self, data: dict[str, Any]) -> Generation:
        folder = self.path(data["generation"]) / "vectors"
        listed = [
            Shard(
                Path(entry["key"]).stem, entry["rows"], entry["bytes"], entry["sha256"], entry["keys_sha256"],
                folder, self.keys,
            )
            for entry in data["shards"]
        ]  # fmt: skip
        return Generation(
            number=data["generation"],
            parent=data["parent"],
            complete=data["complete"],
            created_at=data["created_at"],
            settings=IndexSettings.from_json(data["settings"]),
            fingerprints=Fingerprints(**data["fingerprints"]),
            roots=tuple(_root(entry) for entry in data["roots"]),
            mounts={entry["id"]: tuple(entry["mounts"]) for entry in data["roots"]},
            query=data["query"],
            probe_max_tokens=data["probe_max_tokens"],
            probe_version=data.get("probe_version", 1),
            counts=data["counts"],
            shards={shard.name: shard for shard in listed},
        )

    def documents(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        chosen = list(columns) if columns else None
        return pq.read_table(self.path(number) / "documents.parquet", schema=documents.SCHEMA, columns=chosen)

    def probe(self, number: int) -> Floats:
        vectors: Floats = np.load(self.path(number) / "probe.npy", allow_pickle=False)
        return vectors

    def damaged(self, generation: Generation) -> set[str]:
        """Names of shards that are not there, have another size, or were found damaged by `verify`."""
        found = state.read_damaged(self.state)
        for shard in generation.shards.values():
            try:
                size_bytes = shard.path.stat().st_size
            except FileNotFoundError:
                size_bytes = -1
            if size_bytes != shard.size_bytes:
                found.add(shard.name)
        return found & generation.shards.keys()

    def ancestors(self) -> Iterator[Generation]:
        """The current generation, its parent, and so on, as far as they are still on disk."""
        number = self.current_number()
        while number is not None and (self.path(number) / "manifest.json").exists():
            generation = self.read(number)
            yield generation
            number = generation.parent

    def numbers(self) -> list[int]:
        """The generations on disk, ascending, whether they are ancestors of the current one or not."""
        found = (path for path in self.generations.iterdir() if path.name.isdigit())
        return sorted(int(path.name) for path in found if (path / "manifest.json").exists())

    def next_number(self) -> int:
        """One more than any number ever used; numbers are never used again."""
        names = [p.name for folder in (self.generations, self.changes, self.staging) for p in folder.glob("*")]
        used = [int(match.group()) for name in names if (match := _NUMBER.search(name))]
        return 1 + max([*used, self.current_number() or 0])

    # ---- publishing

    def publish(self, draft: Draft, *, parent: int | None, lock_held: Callable[[], bool]) -> tuple[Generation, int]:
        """Make `draft` the current generation; returns it and the bytes written anew for it.

        Raises StorageError, or Locked when another run published or took the lock meanwhile: then nothing changed.
        """
        temporary = self.generations / f"{draft.number:06d}.tmp"
        try:
            with storage_errors(temporary):
                temporary.mkdir()
        except StorageError as error:
            raise self._published_elsewhere() if isinstance(error.__cause__, FileExistsError) else error from None
        self.disk.make_folder(temporary / "vectors")
        settled = self._settle(draft, temporary / "vectors")
        generation = self._describe(draft, parent, settled)
        self._write_files(temporary, draft, generation, settled.table)
        self.disk.step("generation written")
        if not lock_held() or self.current_number() != parent:
            raise self._published_elsewhere()
        with storage_errors(temporary):
            self.disk.rename(temporary, self.path(draft.number))
        self.disk.fsync_folder(self.generations)
        if parent is not None:
            with suppress(OSError):
                os.utime(self.path(parent))  # from now on it is retired: `clear` counts its hour from here
        self.disk.step("before swap")
        self.disk.point(self.folder / "current", f"generations/{draft.number:06d}")
        self.disk.step("after swap")
        self.disk.fsync_folder(self.folder)
        self._tell_changes(draft.number)
        moved = {
            name: dataclasses.replace(shard, folder=self.path(draft.number) / "vectors")
            for name, shard in generation.shards.items()
        }
        return dataclasses.replace(generation, shards=moved), settled.bytes_rewritten

    def _published_elsewhere(self) -> Locked:
        return Locked(
            f"index `{self.folder}` was published by another run meanwhile; nothing was changed",
            "run the same command again",
        )

    def _tell_changes(self, number: int) -> None:
        """Changes are told only of a generation that became current: loaders apply every file they find."""
        told = self.changes / f"{number:06d}.parquet"
        if not told.exists() and (self.path(number) / "changes.parquet").exists():
            self.disk.carry(self.path(number) / "changes.parquet", told)
            self.disk.fsync_folder(self.changes)

    def _settle(self, draft: Draft, vectors: Path) -> merging.Settled:
        pieces = merging.live_pieces(draft.table, draft.shards)
        groups = merging.plan_groups(pieces)
        free = shutil.disk_usage(self.folder).free
        if merging.rewritten_bytes(groups) * 1.05 > free:
            groups = merging.plan_groups(pieces, merge=False)
        needed = merging.rewritten_bytes(groups)
        if needed * 1.05 > free:
            raise StorageError(
                f"publishing into `{self.folder}` needs {needed * 1.05 / 1e9:.2f} GB, {free / 1e9:.2f} GB are free",
                "free some space, then run the same command again: what was finished is kept",
            )
        dim = draft.settings.dim
        return merging.write(draft.table, groups, dim=dim, folder=vectors, keys_folder=self.keys, disk=self.disk)

    def _describe(self, draft: Draft, parent: int | None, settled: merging.Settled) -> Generation:
        table = settled.table
        rows = sum(shard.rows for shard in settled.shards)
        counts = {
            "sources": table.num_rows,
            "status": documents.count_by(table, "status"),
            "chunks": rows,
            "tokens": int(pa.compute.sum(table.column("tokens")).as_py() or 0),
            "bytes": sum(shard.size_bytes for shard in settled.shards),
        }
        return Generation(
            draft.number, parent, draft.complete, datetime.now(UTC).isoformat(timespec="seconds"), draft.settings,
            draft.fingerprints, draft.roots, draft.mounts, draft.query, draft.probe_max_tokens, draft.probe_version,
            counts, {shard.name: shard for shard in settled.shards},
        )  # fmt: skip

    def _write_files(self, folder: Path, draft: Draft, generation: Generation, table: pa.Table) -> None:
        def parquet(content: pa.Table) -> Callable[[Any], None]:
            return lambda sink: pq.write_table(content, pa.PythonFile(sink, mode="w"), compression="zstd")

        files = {
            "changes.parquet": self.disk.write(folder / "changes.parquet", parquet(draft.changes)),
            "documents.parquet": self.disk.write(folder / "documents.parquet", parquet(table)),
            "probe.npy": self.disk.write(
                folder / "probe.npy", lambda sink: np.save(sink, draft.probe, allow_pickle=False)
            ),
        }
        data = json.dumps(generation.to_json(files), indent=1).encode()
        self.disk.write(folder / "manifest.json", lambda sink: sink.write(data))
        self.disk.fsync_folder(folder / "vectors")

    def point_back(self, number: int, *, expected: int, lock_held: Callable[[], bool]) -> None:
        """Make generation `number`, which is on disk, the current one; `expected`, the one until now, is then retired.

        Raises StorageError, or Locked when another run published or took the lock meanwhile: then nothing changed.
        """
        if not lock_held() or self.current_number() != expected:
            raise Locked(f"index `{self.folder}` was published by another run meanwhile", "run the command again")
        with suppress(OSError):
            os.utime(self.path(expected))  # `clear` counts its hour from here
        self.disk.step("before rollback")
        self.disk.point(self.folder / "current", f"generations/{number:06d}")
        self.disk.step("after rollback")
        self.disk.fsync_folder(self.folder)

    # ---- clearing

    def clear(self, *, keep: int) -> None:
        """Remove what no reader and no resumed run needs: trash, half generations, old ones, orphaned keys."""
        for path in [
            *self.generations.glob(".trash-*"),
            *self.generations.glob("*.tmp"),
            *self.staging.glob(".trash-*"),
        ]:
            self.disk.remove(path)
        for pattern in (self.keys.glob(".*.tmp"), self.state.glob(".*.tmp"), self.changes.glob(".*.tmp")):
            for path in pattern:
                self.disk.remove(path)
        for path in self.staging.glob("[0-9]*-*"):
            if not (path / "run.json").exists():
                self.disk.remove(path)
        chain = [generation.number for generation in self.ancestors()]
        if chain:
            self._tell_changes(chain[0])  # killed between the swap and the telling
        kept = set(chain[:keep])
        for path in self.generations.iterdir():
            young = self._clock() - path.stat().st_mtime < RETIRED_KEPT_S
            if path.name.isdigit() and int(path.name) not in kept and not young:
                self.disk.remove(path)
        self._clear_keys()
        for path in sorted(self.changes.glob("*.parquet"))[:-1]:  # the last one remembers the highest number used
            if self._clock() - path.stat().st_mtime > CHANGES_KEPT_S:
                self.disk.remove(path)

    def _clear_keys(self) -> None:
        needed = {path.stem for folder in self.generations.iterdir() for path in folder.glob("vectors/*.parquet")}
        for path in self.keys.glob("part-*.npy"):
            if path.stem not in needed:
                self.disk.remove(path)

    def kept_shards(self) -> Iterable[Shard]:
        """Every shard of every generation on disk, the oldest first, each once."""
        found: dict[str, Shard] = {}
        for path in sorted(self.generations.iterdir()):
            if path.name.isdigit() and (path / "manifest.json").exists():
                found |= self.read(int(path.name)).shards
        return found.values()


def _root(entry: Mapping[str, Any]) -> Root:
    return Root(entry["id"], entry["path"], tuple(entry["include"]), tuple(entry["exclude"]), entry["gitignore"])
