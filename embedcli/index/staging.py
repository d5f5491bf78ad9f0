"""The staging folder of the run in progress: finished shards, and the journal that names them.

In: finished documents (their rows with vectors, or a refusal), outcomes adopted from a killed run. Out:
`staging/<run>/` with shards, their keys, vectors of documents not yet finished (`loose-*.npy`), and `journal.jsonl`,
appended and fsynced after the shards it names.
Not here: publishing (publish.py), what is adopted from a killed run (leftovers.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from embedcli.columns import Floats, VectorKeys
from embedcli.config import IndexSettings
from embedcli.errors import StorageError
from embedcli.fields import Fields
from embedcli.fingerprints import Fingerprints
from embedcli.index import documents, shards
from embedcli.index.outcomes import Outcome, Stored
from embedcli.index.shards import Shard
from embedcli.paths import exists
from embedcli.records import Root
from embedcli.vault.disk import Disk, is_full

DIGEST_BYTES = 32
RESERVE_BYTES = 1 << 20
"""Reserved when a run begins: on a full disk it is freed, so that the journal can still name the stored shard."""


WRITER = "writer-"
"""The names of the folders in which the workers of a cluster write begin so: `staging/<run>/writer-<host>-<nonce>`."""


@dataclass(frozen=True)
class RunHeader:
    """The generation that a staging folder was begun for; a later run adopts its rows only for the same generation."""

    number: int
    parent: int | None
    settings: dict[str, Any]
    fingerprints: dict[str, str]
    rebuild: bool
    roots: list[dict[str, Any]]

    @classmethod
    def of(cls, data: Any) -> RunHeader:
        """What is in `run.json`. Raises Malformed."""
        fields = Fields(data)
        settings, prints, roots = fields.object("settings"), fields.object("fingerprints"), fields.objects("roots")
        IndexSettings.of(settings)
        Fingerprints.of(prints)
        for root in roots:
            Root.of(root)
        return cls(
            number=fields.whole("number", least=1),
            parent=fields.maybe("parent", fields.whole),
            settings=fields.raw("settings"),
            fingerprints=fields.raw("fingerprints"),
            rebuild=fields.flag("rebuild"),
            roots=fields.raw("roots"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Loose:
    """Vectors of documents that are not finished yet, with their keys [2, n] in the same order."""

    name: str
    keys: VectorKeys
    vectors: Floats


@dataclass(frozen=True, slots=True)
class Finished:
    """A document ready to be stored: its outcome (without shard and first_row), its rows and their keys."""

    outcome: Outcome
    rows: pa.Table | None
    keys: VectorKeys | None


@dataclass(frozen=True, slots=True)
class FinishedRecords:
    """Records ready to be stored: their rows of the table of documents (without shard and first_row), those of their
    chunks in the same order, and their keys."""

    documents: pa.Table
    rows: pa.Table
    keys: VectorKeys


class Staging:
    """One folder `staging/<run>`. Methods that write raise StorageError; a half-written file is never used."""

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
        return cls._begun(folder, header, dim=dim, disk=disk)

    @classmethod
    def begin_writer(cls, run_folder: Path, name: str, header: RunHeader, *, dim: int, disk: Disk) -> Staging:
        """A folder below that of the run, in which nobody but this worker writes. Its name must be new."""
        folder = run_folder / f"{WRITER}{name}"
        disk.make_folder(folder, must_be_new=True)
        return cls._begun(folder, header, dim=dim, disk=disk)

    @classmethod
    def _begun(cls, folder: Path, header: RunHeader, *, dim: int, disk: Disk) -> Staging:
        disk.write(folder / "reserve", lambda sink: sink.write(bytes(RESERVE_BYTES)))
        disk.fsync_folder(folder.parent)
        disk.step("staging begun")
        return cls(folder, header, dim=dim, disk=disk)

    def checkpoint(self, finished: Sequence[Finished | FinishedRecords], loose: Loose | None) -> Stored:
        """Store rows, then name them in the journal; returns the outcomes with shard and first_row filled in."""
        with_rows = [item for item in finished if item.rows is not None and item.rows.num_rows]
        shard = self._store(with_rows) if with_rows else None
        if loose is not None:
            self._store_loose(loose)
        stored = _placed(finished, shard)
        self._disk.step("before journal")
        self._journal([{"shard": _shard_json(shard)}] if shard else [], stored)
        self._disk.step("after journal")
        return stored

    def _store(self, finished: Sequence[Finished | FinishedRecords]) -> Shard:
        tables = [item.rows for item in finished]
        keys = np.concatenate([item.keys for item in finished if item.keys is not None], axis=1)
        shard = shards.write_shard(
            tables, keys, dim=self._dim, folder=self.folder, keys_folder=self.folder, disk=self._disk
        )
        self.shards[shard.name] = shard
        self._disk.step("shard stored")
        return shard

    def _store_loose(self, loose: Loose) -> None:
        self._keep(f"{loose.name}.vectors.npy", loose.vectors)
        self._keep(f"{loose.name}.npy", shards.sorted_keys(loose.keys))  # last: its vectors exist by now

    def _keep(self, name: str, array: np.ndarray) -> None:
        """Store an array that no manifest will name: its digest is at its end."""

        def fill(sink: BinaryIO) -> None:
            np.save(sink, array, allow_pickle=False)
            sink.write(_digest_of(array))

        self._disk.write(self.folder / name, fill)

    def drop_loose(self, name: str) -> None:
        """Delete loose vectors: their documents are finished, so the stored rows hold them."""
        for path in (self.folder / f"{name}.npy", self.folder / f"{name}.vectors.npy"):
            self._disk.remove(path)

    def adopt(self, stored: Stored, found: Mapping[str, Shard]) -> None:
        """Adopt what a killed run or a worker stored: link the shards with the rows, and name both in the journal."""
        names = sorted(stored.shards)
        for name in names:
            old = found[name]
            new = replace(old, folder=self.folder, keys_folder=self.folder)
            self._disk.carry(old.path, new.path)
            if exists(old.keys_path):
                self._disk.carry(old.keys_path, new.keys_path)
            self.shards[name] = new
        self._disk.fsync_folder(self.folder)
        self._journal([{"shard": _shard_json(self.shards[name])} for name in names], stored)

    def _journal(self, named: Sequence[Mapping[str, Any]], stored: Stored) -> None:
        records = sum(map(len, stored.records))
        counted = [{"records": records}] if records else []
        lines = [*named, *counted, *(outcome.to_json() for outcome in stored.outcomes)]
        if lines:
            data = b"".join(map(journal_line, lines))
            try:
                self._disk.append(self.folder / "journal.jsonl", data)
            except StorageError as error:
                if not is_full(error):
                    raise
                self._disk.remove(self.folder / "reserve")  # the shard is stored: do not lose it for lack of this line
                self._disk.append(self.folder / "journal.jsonl", data)

    def keep_probe(self, vectors: Floats) -> None:
        """Store the probe set as the first engine of this run embedded it, for a run that continues this one."""
        self._keep("probe.npy", vectors)

    def remove(self) -> None:
        self._disk.remove(self.folder)


def journal_line(data: Mapping[str, Any]) -> bytes:
    """A line of the journal: JSON, a tab, a sum by which a damaged line is known."""
    line = json.dumps(data, separators=(",", ":")).encode()
    return b"%s\t%08x\n" % (line, zlib.crc32(line))


def read_journal_line(line: bytes) -> dict[str, Any]:
    """Raises ValueError for a torn or a damaged line; those of older versions have no sum."""
    written, _, crc = line.removesuffix(b"\n").partition(b"\t")
    if not line.endswith(b"\n") or (crc and int(crc, 16) != zlib.crc32(written)):
        raise ValueError("a torn line")
    data: dict[str, Any] = json.loads(written)
    if not isinstance(data, dict):
        raise ValueError("no line of a journal")
    return data


def load_kept(path: Path) -> np.ndarray | None:
    """An array of the staging folder, memory-mapped; None where it is not there, or not as it was written."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        with path.open("rb") as file:
            file.seek(-DIGEST_BYTES, os.SEEK_END)
            return array if file.read() == _digest_of(array) else None
    except (OSError, ValueError, EOFError):
        return None


def _digest_of(array: np.ndarray) -> bytes:
    about = f"{array.dtype.str} {array.shape}".encode()
    return hashlib.sha256(about + hashlib.sha256(np.ascontiguousarray(array).data).digest()).digest()


def _placed(finished: Iterable[Finished | FinishedRecords], shard: Shard | None) -> Stored:
    stored = Stored([], [])
    first_row = 0
    for item in finished:
        if isinstance(item, FinishedRecords):
            assert shard is not None
            stored.records.append(documents.placed(item.documents, shard.name, first_row))
            first_row += item.rows.num_rows
            continue
        outcome = item.outcome
        if item.rows is not None and item.rows.num_rows and outcome.row is not None and shard is not None:
            row = outcome.row.replace(shard=shard.name, first_row=first_row, rows=item.rows.num_rows)
            outcome = Outcome(outcome.stat, row)
            first_row += item.rows.num_rows
        stored.outcomes.append(outcome)
    return stored


def _shard_json(shard: Shard) -> dict[str, Any]:
    return {
        "name": shard.name,
        "rows": shard.rows,
        "size_bytes": shard.size_bytes,
        "sha256": shard.sha256,
        "keys_sha256": shard.keys_sha256,
    }
