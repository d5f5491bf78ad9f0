"""Which records of a container changed, which are new, which stand in it twice, and which have left.

In: Records as they are read; the keys and digests of those that the index has, in memory-mapped arrays. Out: the same
Records with their `prior`, without those that are as they were; at the end the places of the known ones not met.
A known record takes a byte of memory; the keys of the new ones, 16 bytes each, lie in files once they are many.
Not here: what a record is (fields.py), the documents of the index (run/containers/).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcli.columns import VectorKeys
from embedcli.errors import storage_errors
from embedcli.index import shards
from embedcli.index.tables.mapped import take_room
from embedcli.index.tables.merged_keys import SideBySide, merged
from embedcli.reading.containers.fields import bad_line
from embedcli.records import Record, digest, shown_id

RECENT = 1 << 16

Ints = npt.NDArray[np.int64]


Known = tuple[Sequence[str], Sequence[str | None]]
"""Ids of records as they stand in paths, and their digests; None for one that is to be read again whatever it holds."""


@dataclass(frozen=True)
class KnownFiles:
    """Where the arrays of a container's known records lie: sorted keys [3, n] and digests [2, n] in their order."""

    keys: Path
    digests: Path

    @classmethod
    def write(cls, folder: Path, name: str, known: Iterable[Known], *, count: int) -> KnownFiles:
        """Raises StorageError. `known` is a part of the `count` records at a time, so that few of them are in memory:
        of each 16 bytes are, to be sorted."""
        files = cls(folder / f"{name}-keys.npy", folder / f"{name}-digests.npy")
        high = np.zeros(count, np.uint64)
        with storage_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
            take_room(file, count * 8)
            low = np.memmap(file, np.uint64, "w+", shape=(max(1, count),))
            digests = _array(files.digests, (2, count))
            start = 0
            for ids, found in known:
                end = start + len(ids)
                high[start:end], low[start:end] = shards.keys_of([key_of(one) for one in ids])
                digests[:, start:end] = shards.keys_of([bytes.fromhex(one or "00" * 16) for one in found])
                start = end
            order = np.argsort(high)
            keys = _array(files.keys, (3, count))
            for start in range(0, count, RECENT):
                rows = order[start : start + RECENT]
                keys[:, start : start + RECENT] = high[rows], low[rows], rows
        return files

    def remove(self) -> None:
        self.keys.unlink(missing_ok=True)
        self.digests.unlink(missing_ok=True)


def _array(path: Path, shape: tuple[int, int]) -> VectorKeys:
    """An array to be filled in, in a file that has its room already. Raises OSError."""
    made = np.lib.format.open_memmap(path, "w+", np.uint64, shape)
    with open(path, "r+b") as file:
        take_room(file, path.stat().st_size)
    return made


def key_of(shown: str) -> bytes:
    """The key of a record by its id as it stands in a path."""
    return hashlib.blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class KnownRecords:
    """What the index has of one container, and what of it has been met."""

    def __init__(self, files: KnownFiles | None, spool_folder: Path | None = None) -> None:
        """The keys of many new records lie in files of the folder, if one is given."""
        nothing = np.zeros((3, 0), np.uint64)
        self._keys: VectorKeys = np.load(files.keys, mmap_mode="r") if files else nothing
        self._digests: VectorKeys = np.load(files.digests, mmap_mode="r") if files else nothing[:2]
        self._met = np.zeros(self._keys.shape[1], np.bool_)
        self._new = _KeySet(spool_folder)
        self._times: dict[str, int] = {}

    @property
    def left(self) -> Ints:
        """The places of the known records that no reading has met."""
        return np.flatnonzero(~self._met)

    @property
    def known(self) -> int:
        return int(self._met.size)

    def sift(self, records: Sequence[Record]) -> Iterator[Record]:
        """Those that are new, changed or cannot be read, each with its place. A repeated id is a problem, but
        that of a mail, or one that is the digest of a text, gets the number of times that it has come."""
        good = [record if record.id else record._replace(id=digest(record.text)) for record in records]
        keys = [key_of(shown_id(record.id)) for record in good]
        in_runs = self._new.in_runs(shards.keys_of(keys))
        places = self._places(keys)
        for record, original, key, place, was in zip(good, records, keys, places.tolist(), in_runs, strict=True):
            if record.problem:
                yield record
                continue
            if was or self._is_met(key, place):
                if original.id and record.data is None:
                    yield bad_line(record.line, "duplicate_id", record.digest.encode())
                    continue
                record, key, place = self._numbered(record)
            if place < 0:
                self._new.add(key)
                yield record
            else:
                self._met[place] = True
                if not self._is_same(record, place):
                    yield record._replace(prior=place)
        self._new.settle()

    def _places(self, keys: Sequence[bytes]) -> Ints:
        at = shards.find(self._keys, shards.keys_of(keys))
        places = np.full(len(keys), -1, np.int64)
        found = at >= 0
        places[found] = self._keys[2, at[found]].astype(np.int64)
        return places

    def _is_met(self, key: bytes, place: int) -> bool:
        return bool(self._met[place]) if place >= 0 else key in self._new.recent

    def _is_same(self, record: Record, place: int) -> bool:
        high, low = self._digests[:, place].tolist()
        return bool(int(record.digest, 16) == (high << 64) + low)

    def _numbered(self, record: Record) -> tuple[Record, bytes, int]:
        """The record under an id that has not come, its key and its place."""
        while True:
            times = self._times[record.id] = self._times.get(record.id, 1) + 1
            numbered = record._replace(id=f"{record.id}-{times}")
            key = key_of(shown_id(numbered.id))
            place = int(self._places([key])[0])
            if not self._is_met(key, place) and not self._new.in_runs(shards.keys_of([key])).any():
                return numbered, key, place


class _KeySet:
    """16-byte keys in sorted arrays: two of one size become one, so there are few."""

    def __init__(self, folder: Path | None) -> None:
        self.recent: set[bytes] = set()
        self._folder = folder
        self._runs: list[SideBySide] = []

    def in_runs(self, keys: VectorKeys) -> npt.NDArray[np.bool_]:
        """Which of these were added before what is `recent`."""
        found = np.zeros(keys.shape[1], np.bool_)
        for run in self._runs:
            found |= shards.find(run, keys) >= 0
        return found

    def add(self, key: bytes) -> None:
        self.recent.add(key)

    def settle(self) -> None:
        """Sort what is recent once it is much."""
        if len(self.recent) >= RECENT:
            high, low = shards.keys_of(list(self.recent))
            order = np.argsort(high)
            run: SideBySide = (high[order], low[order])
            self.recent = set()
            while self._runs and self._runs[-1][0].size <= run[0].size:
                run = merged([self._runs.pop(), run], self._folder)
            self._runs.append(run)
