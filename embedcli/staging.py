"""The run in progress: finished shards and the journal that names them; adopting what a killed run had finished.

In: finished documents (their rows with vectors, or a refusal). Out: `staging/<run>/` with shards, their keys, vectors
of documents not yet finished (`loose-*.npy`), and `journal.jsonl`, appended and fsynced after the shards it names.
Not here: what is published (generations.py) and what tonight's plan says (plan.py).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedcli import shards
from embedcli.disk import Disk, digest_of, is_full
from embedcli.documents import DocumentRow, Key, Mark
from embedcli.errors import StorageError
from embedcli.records import Stat
from embedcli.shards import Floats, Keys, Shard

RESERVE_BYTES = 1 << 20
"""Held from the start, so that on a full disk the journal can still name what was stored before."""
_RUN = re.compile(r"\d{6,}-[0-9a-f]+")


@dataclass(frozen=True)
class RunHeader:
    """What a staging folder was begun for; a later run goes on with it only from the same parent."""

    number: int
    parent: int | None
    settings: dict[str, Any]
    fingerprints: dict[str, str]
    rebuild: bool
    roots: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Loose:
    """Vectors of documents that are not finished yet, with their keys in the same order."""

    name: str
    keys: Keys
    vectors: Floats


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished source: a new row, or a mark on the row it had. `stat` is of the reading it stands for."""

    stat: Stat | None
    row: DocumentRow | None = None
    mark: Mark | None = None

    @property
    def key(self) -> Key:
        if self.row is not None:
            return self.row.key
        assert self.mark is not None
        return self.mark.key

    def to_json(self) -> dict[str, Any]:
        return {
            "stat": asdict(self.stat) if self.stat else None,
            "row": self.row.to_json() if self.row else None,
            "mark": {"key": self.mark.key, "columns": dict(self.mark.columns)} if self.mark else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        stat, row, mark = data["stat"], data["row"], data["mark"]
        return cls(
            Stat(**stat) if stat else None,
            DocumentRow.from_json(row) if row else None,
            Mark((mark["key"][0], mark["key"][1]), mark["columns"]) if mark else None,
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """A document ready to be stored: its outcome (shard and first_row still open), its rows and their keys."""

    outcome: Outcome
    rows: pa.Table | None
    keys: Keys | None


class Staging:
    """One folder `staging/<run>`. Methods that write raise StorageError; nothing is adopted half."""

    def __init__(self, folder: Path, header: RunHeader, *, dim: int, disk: Disk) -> None:
        self.folder = folder
        self.header = header
        self._dim = dim
        self._disk = disk
        self.shards: dict[str, Shard] = {}

    @classmethod
    def begin(cls, parent_folder: Path, header: RunHeader, *, dim: int, disk: Disk) -> Staging:
        folder = parent_folder / f"{header.number:06d}-{time.time_ns():x}"
        disk.make_folder(folder)
        data = json.dumps(asdict(header)).encode()
        disk.write(folder / "run.json", lambda sink: sink.write(data))
        disk.write(folder / "reserve", lambda sink: sink.write(bytes(RESERVE_BYTES)))
        disk.fsync_folder(parent_folder)
        disk.step("staging begun")
        return cls(folder, header, dim=dim, disk=disk)

    def checkpoint(self, finished: Sequence[Finished], loose: Loose | None) -> list[Outcome]:
        """Store rows, then name them in the journal; returns the outcomes with their places filled in."""
        with_rows = [item for item in finished if item.rows is not None and item.rows.num_rows]
        shard = self._store(with_rows) if with_rows else None
        if loose is not None:
            self._store_loose(loose)
        outcomes = _placed(finished, shard)
        self._disk.step("before journal")
        self._journal([{"shard": _shard_json(shard)}] if shard else [], outcomes)
        self._disk.step("after journal")
        return outcomes

    def _store(self, finished: Sequence[Finished]) -> Shard:
        tables = [item.rows for item in finished]
        keys = np.concatenate([item.keys for item in finished if item.keys is not None], axis=1)
        shard = shards.write_shard(
            tables, keys, dim=self._dim, folder=self.folder, keys_folder=self.folder, disk=self._disk
        )
        self.shards[shard.name] = shard
        self._disk.step("shard stored")
        return shard

    def _store_loose(self, loose: Loose) -> None:
        self._disk.write(
            self.folder / f"{loose.name}.vectors.npy", lambda sink: np.save(sink, loose.vectors, allow_pickle=False)
        )
        shards.write_keys(loose.keys, self.folder / f"{loose.name}.npy", self._disk)  # last: what it names is there

    def drop_loose(self, name: str) -> None:
        """The documents of these vectors are stored: their rows have them now."""
        for path in (self.folder / f"{name}.npy", self.folder / f"{name}.vectors.npy"):
            self._disk.remove(path)

    def adopt(self, outcomes: Sequence[Outcome], found: Mapping[str, Shard]) -> None:
        """Take over outcomes of a killed run with the shards that hold their rows."""
        names = sorted({o.row.shard for o in outcomes if o.row is not None and o.row.shard is not None})
        for name in names:
            old = found[name]
            new = replace(old, folder=self.folder, keys_folder=self.folder)
            self._disk.carry(old.path, new.path)
            if old.keys_path.exists():
                self._disk.carry(old.keys_path, new.keys_path)
            self.shards[name] = new
        self._disk.fsync_folder(self.folder)
        self._journal([{"shard": _shard_json(self.shards[name])} for name in names], outcomes)

    def _journal(self, named: Sequence[Mapping[str, Any]], outcomes: Sequence[Outcome]) -> None:
        lines = [*named, *(outcome.to_json() for outcome in outcomes)]
        if lines:
            data = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
            try:
                self._disk.append(self.folder / "journal.jsonl", data)
            except StorageError as error:
                if not is_full(error):
                    raise
                self._disk.remove(self.folder / "reserve")  # what it names is stored, and shall not be lost for a line
                self._disk.append(self.folder / "journal.jsonl", data)

    def keep_probe(self, vectors: Floats) -> None:
        """Remember how the first engine of this run embedded the probe set, for whoever goes on with it."""
        self._disk.write(self.folder / "probe.npy", lambda sink: np.save(sink, vectors, allow_pickle=False))

    def remove(self) -> None:
        self._disk.remove(self.folder)


def _placed(finished: Iterable[Finished], shard: Shard | None) -> list[Outcome]:
    outcomes = []
    first_row = 0
    for item in finished:
        outcome = item.outcome
        if item.rows is not None and item.rows.num_rows and outcome.row is not None and shard is not None:
            row = outcome.row.replace(shard=shard.name, first_row=first_row, rows=item.rows.num_rows)
            outcome = Outcome(outcome.stat, row)
            first_row += item.rows.num_rows
        outcomes.append(outcome)
    return outcomes


def _shard_json(shard: Shard) -> dict[str, Any]:
    return {
        "name": shard.name,
        "rows": shard.rows,
        "size_bytes": shard.size_bytes,
        "sha256": shard.sha256,
        "keys_sha256": shard.keys_sha256,
    }


@dataclass(frozen=True)
class Leftover:
    """What a run that did not end has left."""

    folder: Path
    header: RunHeader

    def load(self) -> tuple[dict[str, Shard], list[Outcome]]:
        """Shards and outcomes, as far as the journal is whole; the last outcome of a source is the one that counts."""
        shards_found: dict[str, Shard] = {}
        outcomes: dict[Key, Outcome] = {}
        for data in self._lines():
            if "shard" in data:
                shard = Shard(**data["shard"], folder=self.folder, keys_folder=self.folder)
                if _is_whole(shard):
                    shards_found[shard.name] = shard
            else:
                outcome = Outcome.from_json(data)
                outcomes[outcome.key] = outcome
        kept = (o for o in outcomes.values() if o.row is None or o.row.shard is None or o.row.shard in shards_found)
        return shards_found, list(kept)

    def count_documents(self) -> int:
        """How many sources its journal says are finished."""
        try:
            with (self.folder / "journal.jsonl").open("rb") as journal:
                return sum(not line.startswith(b'{"shard"') for line in journal)
        except OSError:
            return 0

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            with (self.folder / "journal.jsonl").open("rb") as journal:
                for line in journal:
                    if not line.endswith(b"\n"):
                        return  # torn
                    yield json.loads(line)
        except (OSError, ValueError):
            return

    def loose(self) -> Iterator[tuple[Keys, Floats]]:
        """Sorted keys [3, n] and vectors of documents that were not finished; what is not whole is passed over."""
        for path in sorted(self.folder.glob("loose-*.vectors.npy")):
            keys = shards.load_keys(path.with_name(path.name.replace(".vectors", "")))
            if keys is not None:
                yield keys, np.load(path, mmap_mode="r", allow_pickle=False)

    def probe(self) -> Floats | None:
        """The probe set as that run's engine embedded it, if it came to that."""
        return _read_probe(self.folder)


def _is_whole(shard: Shard) -> bool:
    """Its bytes are those that were written: it may be published as it is."""
    try:
        return digest_of(shard.path) == shard.sha256
    except OSError:
        return False


def run_folders(parent_folder: Path) -> list[Path]:
    """Folders that are named as runs name theirs, the oldest first; anything else in `staging/` is somebody's."""
    return sorted(path for path in parent_folder.iterdir() if _RUN.fullmatch(path.name))


def leftovers(parent_folder: Path) -> list[Leftover]:
    """What is left of runs that did not end, the oldest first."""
    found = []
    for folder in run_folders(parent_folder) if parent_folder.exists() else ():
        try:
            found.append(Leftover(folder, RunHeader(**json.loads((folder / "run.json").read_bytes()))))
        except (OSError, ValueError, TypeError):
            continue
    return found


def _read_probe(folder: Path) -> Floats | None:
    try:
        vectors: Floats = np.load(folder / "probe.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors
