"""Published, consistent states of an index: reading the current one, publishing the next, clearing what is old.

In: an index folder; a draft of documents and shards. Out: `generations/N` complete on disk before `current` points to
it by one rename; INDEX fsynced after the swap; only then does anything old go.
Not here: which rows are to be published (ingest.py), how shards are put together (compaction.py).
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
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

from embedcli.columns import Floats
from embedcli.config import IndexSettings
from embedcli.errors import Locked, NoIndex, StorageError, storage_errors
from embedcli.fingerprints import PROBE_VERSION, Fingerprints
from embedcli.index import compaction, state
from embedcli.index.disk import Disk, Written, digest_of
from embedcli.index.documents import SCHEMA, count_by
from embedcli.index.leftovers import leftovers, run_folders
from embedcli.index.manifest import FORMAT, Generation
from embedcli.index.shards import Shard
from embedcli.records import Root

RETIRED_KEPT_S = 3600.0
CHANGES_KEPT_S = 90 * 86400.0
_NUMBER = re.compile(r"\d{6,}")
_OURS = {"current", "generations", "staging", "keys", "changes", "state"}


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
    """An index folder. Only this class knows links and renames. `warn` hears of what had to be passed over."""

    def __init__(
        self,
        folder: Path,
        *,
        disk: Disk,
        clock: Callable[[], float] = time.time,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder = folder
        self.disk = disk
        self._clock = clock
        self._warn = warn
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
            names = {name for name in os.listdir(self.folder) if name != "lock" and not name.endswith(".tmp")}
        except OSError as error:
            raise StorageError(f"cannot read `{self.folder}`: {error.strerror}", "check its permissions") from error
        if names and not self._is_ours(names):
            raise NoIndex(
                f"`{self.folder}` is not an index: it holds `{min(names)}`",
                "name an empty or a new folder with `--index`",
            )

    def _is_ours(self, names: set[str]) -> bool:
        """By a link, a manifest or a run of ours; or, killed while it was made, by our folders without a file."""
        if self.linked_number() is not None or any(self.generations.glob("[0-9]*/manifest.json")):
            return True
        if any(self.staging.glob("[0-9]*-*/run.json")):
            return True
        if "generations" not in names or not names <= _OURS:
            return False
        inside = (path for name in names - {"state"} for path in (self.folder / name).rglob("*"))
        return not any(path.is_file() and path.suffix != ".tmp" for path in inside)

    def create(self) -> None:
        """Raises StorageError, at once where the filesystem could not publish."""
        for folder in (self.generations, self.staging, self.keys, self.changes, self.state):
            self.disk.make_folder(folder)
        if self.linked_number() is None:
            self.disk.check_symlinks(self.folder)

    def linked_number(self) -> int | None:
        """Where `current` points to, be it there or not; None where there is no such link."""
        try:
            target = Path(os.readlink(self.folder / "current"))
        except OSError:
            return None
        return int(target.name) if target.parent.name == "generations" and target.name.isdigit() else None

    def current_number(self) -> int | None:
        """None where nothing was published yet. Raises NoIndex when `current` is lost, or no link of ours."""
        number = self.linked_number()
        link = self.folder / "current"
        if number is None and os.path.lexists(link):
            raise NoIndex(f"`{link}` is not a link to a generation", self.way_back())
        if number is None and self.numbers():
            raise NoIndex(f"`{link}` is gone, and generations that were published are there", self.way_back())
        return number

    def current(self) -> Generation | None:
        number = self.current_number()
        return None if number is None else self.read(number)

    def path(self, number: int) -> Path:
        return self.generations / f"{number:06d}"

    def read(self, number: int) -> Generation:
        """The generation as its manifest tells it. Raises NoIndex when it is damaged or from a newer version."""
        try:
            return self._load(number)
        except (OSError, ValueError) as error:
            path = self.path(number) / "manifest.json"
            raise NoIndex(f"cannot read `{path}`: {error}", self.way_back(number)) from error

    def _load(self, number: int) -> Generation:
        """Raises OSError, ValueError, and NoIndex when it is from a newer version."""
        data = json.loads((self.path(number) / "manifest.json").read_bytes())
        if isinstance(data, dict) and isinstance(data.get("format"), int) and data["format"] > FORMAT:
            raise NoIndex(
                f"index `{self.folder}` was written by a newer version:"
                f" its format is {data['format']}, this one knows {FORMAT}",
                "upgrade with `pip install --upgrade embedcli`",
            )
        return Generation.from_json(data, vectors=self.path(number) / "vectors", keys=self.keys)

    def documents(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The documents of a generation. Raises StorageError."""
        path = self._sound_file(number, "documents.parquet")
        return pq.read_table(path, schema=SCHEMA, columns=list(columns) if columns else None)

    def probe(self, number: int) -> Floats:
        """The probe set of a generation; where it is damaged, that of an older one made alike, else one of no text."""
        generation = self.read(number)
        for other in [generation, *self._made_alike(generation)]:
            try:
                path = self._sound_file(other.number, "probe.npy")
            except StorageError as error:
                self._warn(f"{error}; an older one is taken, or it is made anew")
                continue
            vectors: Floats = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
            return vectors
        return np.zeros((0, generation.settings.dim), np.float32)

    def _made_alike(self, generation: Generation) -> Iterator[Generation]:
        """The older generations on disk of the same model, dim and cut of the probe set, the newest first."""
        for number in reversed(self.numbers()):
            other = self.readable(number) if number < generation.number else None
            if other is not None and _probe_settings(other) == _probe_settings(generation):
                yield other

    def _sound_file(self, number: int, name: str) -> Path:
        """A file of a generation, its bytes those that were written. Raises StorageError."""
        path = self.path(number) / name
        known = self.read(number).files[name]
        try:
            sound = digest_of(path) == known.sha256
        except OSError as error:
            raise StorageError(f"cannot read `{path}`: {error.strerror}", self.way_back(number)) from error
        if not sound:
            raise StorageError(f"`{path}` is damaged: it is not what was written", self.way_back(number))
        return path

    def way_back(self, damaged: int | None = None) -> str:
        """What to type when the current generation cannot be read."""
        for number in reversed(self.numbers()):
            if number != damaged and not self.lacks(number):
                return f"`embedcli rollback --to {number} --index {self.folder}` makes generation {number} current"
        return "restore the folder from a copy with its links (`cp -a`, `rsync -a`), or begin a new one with `--index`"

    def lacks(self, number: int) -> str:
        """Why a generation cannot be read; empty where every file is there in its size."""
        try:
            generation = self._load(number)
        except (OSError, ValueError, NoIndex) as error:
            return f"cannot read `{self.path(number) / 'manifest.json'}`: {error}"
        files = {self.path(number) / name: file.size_bytes for name, file in generation.files.items()}
        files |= {shard.path: shard.size_bytes for shard in generation.shards.values()}
        torn = next((path for path, size_bytes in files.items() if _size_bytes(path) != size_bytes), None)
        return "" if torn is None else f"`{torn}` is missing or torn"

    def damaged(self, generation: Generation) -> set[str]:
        """Names of shards that are not there, have another size, or were found damaged by `verify`."""
        found = state.read_damaged(self.state)
        found |= {shard.name for shard in generation.shards.values() if _size_bytes(shard.path) != shard.size_bytes}
        return found & generation.shards.keys()

    def ancestors(self) -> Iterator[Generation]:
        """The current generation, its parent, and so on, as far as they can be read."""
        generation = self.current()
        while generation is not None:
            yield generation
            generation = None if generation.parent is None else self.readable(generation.parent)

    def readable(self, number: int) -> Generation | None:
        """A generation that is at most a way back: None where its manifest cannot be read."""
        try:
            return self._load(number)
        except (OSError, ValueError, NoIndex):
            return None

    def numbers(self) -> list[int]:
        """The generations on disk that readers have seen, ascending, be they ancestors of the current one or not."""
        names = (path.parent.name for path in self.generations.glob("[0-9]*/manifest.json"))
        found = sorted(int(name) for name in names if name.isdigit())
        current = self.linked_number()
        return [number for number in found if number == current or not self._announced(number, number).exists()]

    def next_number(self) -> int:
        """One more than any number ever published; such numbers are never used again."""
        names = [path.name for folder in (self.generations, self.changes) for path in folder.glob("*")]
        used = [int(match.group()) for name in names if (match := _NUMBER.search(name))]
        return 1 + max([*used, self.linked_number() or 0])

    def kept_shards(self) -> Iterable[Shard]:
        """Every shard of every generation on disk, the oldest first, each once."""
        found: dict[str, Shard] = {}
        for number in self.numbers():
            generation = self.readable(number)
            if generation is None:
                self._warn(f"the vectors of generation {number} are not used again: its manifest cannot be read")
            else:
                found |= generation.shards
        return found.values()

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
        generation = self._write_files(temporary, draft, _describe(draft, parent, settled), settled.table)
        self.disk.step("generation written")
        self._check_unchanged(parent, lock_held)
        self._announce(draft.number, draft.number, draft.changes)
        with storage_errors(temporary):
            self.disk.rename(temporary, self.path(draft.number))
        self.disk.fsync_folder(self.generations)
        self._swap(draft.number, parent)
        moved = {
            name: dataclasses.replace(shard, folder=self.path(draft.number) / "vectors")
            for name, shard in generation.shards.items()
        }
        return dataclasses.replace(generation, shards=moved), settled.bytes_rewritten

    def point_back(
        self, number: int, *, expected: int | None, changes: pa.Table, lock_held: Callable[[], bool]
    ) -> None:
        """Make a generation that is on disk the current one; `expected`, the one until now, is then retired.

        `changes` are told under a number of their own, which is never used again.
        Raises StorageError, or Locked when another run published or took the lock meanwhile: then nothing changed.
        """
        self._check_unchanged(expected, lock_held)
        self._announce(self.next_number(), number, changes)
        self._swap(number, expected)

    def _check_unchanged(self, expected: int | None, lock_held: Callable[[], bool]) -> None:
        if not lock_held() or self.linked_number() != expected:
            raise self._published_elsewhere()

    def _published_elsewhere(self) -> Locked:
        return Locked(
            f"index `{self.folder}` was published by another run meanwhile; nothing was changed",
            "run the same command again",
        )

    def _swap(self, number: int, retired: int | None) -> None:
        if retired is not None:
            with suppress(OSError):
                os.utime(self.path(retired))  # from now on it is retired: `clear` counts its hour from here
        self.disk.step("before swap")
        self.disk.point(self.folder / "current", f"generations/{number:06d}")
        self.disk.step("after swap")
        self.disk.fsync_folder(self.folder)
        self.tell_changes()

    def _announced(self, number: int, target: int) -> Path:
        return self.changes / f"{number:06d}.when-{target:06d}"

    def _announce(self, number: int, target: int, changes: pa.Table) -> None:
        """Write down what is to be told as soon as `target` is current: loaders apply every `.parquet` they find."""
        self.tell_changes()
        self.disk.write(self._announced(number, target), _parquet(changes))

    def tell_changes(self) -> None:
        """What was announced and came to be is told; what did not, by a kill before its swap, goes without a trace."""
        current = self.linked_number()
        for path in sorted(self.changes.glob("[0-9]*.when-*")):
            number, target = map(int, path.name.split(".when-"))
            if target == current:
                with storage_errors(path):
                    self.disk.rename(path, self.changes / f"{number:06d}.parquet")
                self.disk.fsync_folder(self.changes)
                continue
            if number == target and self.path(number).exists():
                self.disk.remove(self.path(number))  # no reader has seen it, and all of it is in `staging/` too
            self.disk.remove(path)

    def _settle(self, draft: Draft, vectors: Path) -> compaction.Compacted:
        current = self.linked_number()
        apart = self.damaged(self.read(current)) if current is not None else set()
        pieces = compaction.live_pieces(draft.table, draft.shards)
        groups = compaction.plan_groups(pieces, apart=apart)
        free = self.disk.free_bytes(self.folder)
        copying = not self.disk.has_hard_links(vectors)
        if copying:
            self._warn(f"`{self.folder}` lies on a filesystem without hard links: each generation is a whole copy")
        if compaction.written_bytes(groups, copying=copying) * 1.05 > free:
            groups = [(piece,) for piece in pieces]
        needed = compaction.written_bytes(groups, copying=copying) * 1.05
        if needed > free:
            raise StorageError(
                f"publishing into `{self.folder}` needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free",
                "free some space, then run the same command again: what was finished is kept",
            )
        dim = draft.settings.dim
        return compaction.write(draft.table, groups, dim=dim, folder=vectors, keys_folder=self.keys, disk=self.disk)

    def _write_files(self, folder: Path, draft: Draft, generation: Generation, table: pa.Table) -> Generation:
        def probe(sink: Any) -> None:
            np.save(sink, draft.probe, allow_pickle=False)

        files: dict[str, Written] = {
            "documents.parquet": self.disk.write(folder / "documents.parquet", _parquet(table)),
            "probe.npy": self.disk.write(folder / "probe.npy", probe),
        }
        whole = dataclasses.replace(generation, files=files)
        data = json.dumps(whole.to_json(), indent=1).encode()
        self.disk.write(folder / "manifest.json", lambda sink: sink.write(data))
        self.disk.fsync_folder(folder / "vectors")
        self.disk.fsync_folder(self.keys)
        return whole

    # ---- clearing

    def clear(self, *, keep: int) -> None:
        """Remove what no reader and no resumed run needs: trash, half generations, old ones, orphaned keys."""
        halves = (
            (self.generations, ".trash-*"), (self.generations, "*.tmp"), (self.staging, ".trash-*"),
            (self.keys, ".*.tmp"), (self.state, ".*.tmp"), (self.changes, ".*.tmp"),
        )  # fmt: skip
        for folder, pattern in halves:
            for path in folder.glob(pattern):
                self.disk.remove(path)
        for path in run_folders(self.staging):
            if not (path / "run.json").exists():
                self.disk.remove(path)
        self.tell_changes()
        self._clear_retired(keep)
        needed = {path.stem for path in self.generations.glob("*/vectors/*.parquet")}
        for path in [*self.keys.glob("part-*.npy"), *(self.state / "damaged").glob("part-*")]:
            if path.stem not in needed:
                self.disk.remove(path)
        for path in sorted(self.changes.glob("*.parquet"))[:-1]:  # the last one remembers the highest number used
            if self._clock() - path.stat().st_mtime > CHANGES_KEPT_S:
                self.disk.remove(path)

    def _clear_retired(self, keep: int) -> None:
        """As long as nothing is current, nothing is retired."""
        chain = [generation.number for generation in self.ancestors()]
        for path in self.generations.iterdir() if chain else ():
            young = self._clock() - path.stat().st_mtime < RETIRED_KEPT_S
            if path.name.isdigit() and int(path.name) not in chain[:keep] and not young:
                self.disk.remove(path)


def _size_bytes(path: Path) -> int:
    """-1 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _probe_settings(generation: Generation) -> tuple[str, int, int, int]:
    return (
        generation.fingerprints.model,
        generation.settings.dim,
        generation.probe_max_tokens,
        generation.probe_version,
    )


def _parquet(content: pa.Table) -> Callable[[Any], None]:
    return lambda sink: pq.write_table(content, pa.PythonFile(sink, mode="w"), compression="zstd")


def _describe(draft: Draft, parent: int | None, settled: compaction.Compacted) -> Generation:
    table = settled.table
    counts = {
        "sources": table.num_rows,
        "status": count_by(table, "status"),
        "chunks": sum(shard.rows for shard in settled.shards),
        "tokens": int(pa.compute.sum(table.column("tokens")).as_py() or 0),
        "bytes": sum(shard.size_bytes for shard in settled.shards),
    }
    return Generation(
        draft.number, parent, draft.complete, datetime.now(UTC).isoformat(timespec="seconds"), draft.settings,
        draft.fingerprints, draft.roots, draft.mounts, draft.query, draft.probe_max_tokens,
        draft.probe_version, counts, {shard.name: shard for shard in settled.shards},
    )  # fmt: skip


def current_of(index: Index) -> Generation:
    """The current generation. Raises NoIndex where there is none."""
    index.check()
    current = index.current()
    if current is not None:
        return current
    if leftovers(index.staging):
        raise NoIndex(
            f"`{index.folder}` has published nothing yet; what its first run had finished is kept",
            f"go on with `embedcli ingest --index {index.folder}`",
        )
    raise NoIndex(
        f"`{index.folder}` is not an index, or has published nothing yet",
        f"make one with `embedcli ingest SOURCE --index {index.folder}`",
    )
