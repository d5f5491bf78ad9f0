"""`verify`: compare every file and row of the index with its manifest.

In: an index with a published generation. Out: a Verdict: what was checked, and the damage, file by file. Memory stays
flat: one row group at a time, and 16 bytes for each chunk to find duplicate ids. No lock is needed: a published
generation does not change, and is kept for an hour after it stopped being current.
Not here: what lies beside the current generation (damage_beside.py), repair. A run reads and embeds damaged documents
again; `rollback` goes to an older generation.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedcli import columns
from embedcli.columns import Floats
from embedcli.engines.probe import compare_probe, least_agreement
from embedcli.fingerprints import PROBE_VERSION
from embedcli.index import documents
from embedcli.index.documents import InPlaceOrder, Numbers, taken
from embedcli.index.generations import Index, current_of
from embedcli.index.manifest import FILES, Generation
from embedcli.index.shards import Shard, keys_of, load_keys, vectors_of
from embedcli.paths import matching
from embedcli.records import digest
from embedcli.verbs import damage_beside

NORM_TOLERANCE = 1e-4
_COLUMNS = ["chunk_id", "doc_id", "chunk_index", "vector"]
_TABLE_COLUMNS = ["root", "path", "status", "tokens", "shard", "first_row", "rows"]
_NOT_LISTED, _NO_GENERATION = "is not in the manifest", "is not a generation"
_BESIDE = {"manifest.json", "vectors", *FILES}
Probe = Callable[[Generation], Floats]
"""Embeds the probe set with the model of a generation."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged file, by its path below the index, and what is wrong with it."""

    file: str
    problem: str


@dataclass
class Verdict:
    """What was checked, and the damage. `names` are those of the shards; `probe_cosine` is None where no probe set was
    compared."""

    index: str
    generation: int
    shards: int
    rows: int
    sources: int
    size_bytes: int
    names: frozenset[str]
    damage: list[Damage] = field(default_factory=list)
    probe_cosine: float | None = None

    def to_json(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        del data["names"]
        return data

    @property
    def exit_code(self) -> int:
        return 3 if self.damage else 0

    @property
    def damaged_shards(self) -> set[str]:
        """Names of the shards whose rows or keys cannot be trusted."""
        files = (PurePosixPath(item.file) for item in self.damage)
        mine = ("keys", f"generations/{self.generation:06d}/vectors")
        return {file.stem for file in files if str(file.parent) in mine and file.stem in self.names}

    @property
    def damaged_others(self) -> list[int]:
        """Numbers of the other generations of which a file is damaged."""
        parts = (PurePosixPath(item.file).parts for item in self.damage)
        numbers = {int(part[1]) for part in parts if len(part) > 2 and part[0] == "generations" and part[1].isdigit()}
        return sorted(numbers - {self.generation})

    @property
    def has_lost_list(self) -> bool:
        """Whether the first damage of the change lists is that none leads to the current generation."""
        first = self.first_below("changes")
        lost = (damage_beside.LIST_MISSING, damage_beside.LEADS_ELSEWHERE)
        return any(item.file == first and item.problem in lost for item in self.damage)

    @property
    def stray(self) -> str | None:
        """The first file or folder that is no part of the index."""
        return next((item.file for item in self.damage if item.problem in (_NOT_LISTED, _NO_GENERATION)), None)

    def first_below(self, folder: str) -> str | None:
        """The first damaged file in a folder of the index; of `keys` one that no current shard needs."""
        files = (item.file for item in self.damage if item.file.startswith(f"{folder}/"))
        return next((file for file in files if folder != "keys" or PurePosixPath(file).stem not in self.names), None)


def verify(index: Index, *, run_is_under_way: bool = False) -> Verdict:
    """Check the whole current generation, and the files of all else. Raises NoIndex, DamagedIndex."""
    generation = current_of(index)
    counts = generation.counts
    verdict = Verdict(
        index.shown,
        generation.number,
        shards=len(generation.shards),
        rows=counts["chunks"],
        sources=counts["sources"],
        size_bytes=counts["bytes"],
        names=frozenset(generation.shards),
    )
    check = _Check(index, generation, verdict)
    table = check.listed_files()
    check.shards(table)
    check.beside()
    check.unlisted_files()
    if not run_is_under_way:  # a run writes keys before a manifest names their shard
        check.unused_keys()
    return verdict


def compare_engine(index: Index, verdict: Verdict, probe: Probe) -> None:
    """Embed the probe set with today's engine and add the result to the verdict. Raises EngineError."""
    generation = index.read(verdict.generation)
    file = f"generations/{index.path(generation.number).name}/probe.npy"
    if any(item.file == file for item in verdict.damage):
        return
    stored = index.probe(generation.number)
    if not len(stored) or generation.probe_version != PROBE_VERSION:
        return
    verdict.probe_cosine = compare_probe(probe(generation), stored)
    if verdict.probe_cosine < least_agreement(generation.settings.quantization, generation.settings.dim):
        problem = f"the engine now gives other vectors: cosine {verdict.probe_cosine:.4f}"
        verdict.damage.append(Damage(file, problem))


class _Check:
    """One verification: every method adds the damage it finds to the verdict."""

    def __init__(self, index: Index, generation: Generation, verdict: Verdict) -> None:
        self._index = index
        self._generation = generation
        self._verdict = verdict
        self._folder = index.path(generation.number)
        self._ids = _Ids()
        self._used: Set[str] = frozenset()
        """Names of the shards that the documents or the manifest name: the files of these are no strays."""

    def _add(self, file: Path, problem: str) -> None:
        self._verdict.damage.append(Damage(str(file.relative_to(self._index.folder)), problem))

    def listed_files(self) -> pa.Table | None:
        """Check documents.parquet and probe.npy; returns the documents, None where they are damaged."""
        sound = {
            name: self._checksum(self._folder / name, known.size_bytes, known.sha256)
            for name, known in self._generation.files.items()
        }
        if not sound["documents.parquet"]:
            return None
        table = self._index.documents(self._generation.number, _TABLE_COLUMNS)
        for problem in [*self._wrong_counts(table), *self._wrong_sources(table)]:
            self._add(self._folder / "documents.parquet", problem)
        return table

    def _wrong_counts(self, table: pa.Table) -> Iterator[str]:
        expected = self._generation.counts
        found = {
            "sources": table.num_rows,
            "chunks": int(pc.sum(table.column("rows")).as_py() or 0),
            "tokens": int(pc.sum(table.column("tokens")).as_py() or 0),
            "bytes": sum(shard.size_bytes for shard in self._generation.shards.values()),
        }
        for name, count in found.items():
            if count != expected[name]:
                yield f"has {count} {name}, the manifest says {expected[name]}"
        if (by_status := documents.count_by(table, "status")) != expected["status"]:
            yield f"has {by_status}, the manifest says {expected['status']}"

    def _wrong_sources(self, table: pa.Table) -> Iterator[str]:
        roots = pa.array([root.id for root in self._generation.roots], pa.string())
        if strangers := pc.sum(pc.invert(pc.is_in(table.column("root"), value_set=roots))).as_py():
            yield f"has {strangers} sources of roots that are not in the manifest"
        if duplicates := table.num_rows - pc.count_distinct(documents.join_keys(table)).as_py():
            yield f"has {duplicates} sources twice"

    def shards(self, table: pa.Table | None) -> None:
        """Check the bytes, rows and keys of every shard; `table` is the documents, None where they are damaged."""
        owners = {} if table is None else dict(InPlaceOrder(table))
        self._used = owners.keys() | self._generation.shards.keys()
        for name in owners.keys() - self._generation.shards.keys():
            self._add(self._folder / "documents.parquet", f"names the shard {name}, which is not in the manifest")
        for shard in self._generation.shards.values():
            expected = None if table is None else self._expected(table, owners.get(shard.name), shard)
            if self._checksum(shard.path, shard.size_bytes, shard.sha256):
                for problem in _row_problems(shard, expected, self._generation.settings.dim, self._ids):
                    self._add(shard.path, problem)
            if self._checksum(shard.keys_path, None, shard.keys_sha256) and not _sound_keys(shard):
                self._add(shard.keys_path, f"does not hold {shard.rows} sorted keys")
        for name, count in self._ids.duplicates().items():
            problem = f"holds {count} chunk_ids that an earlier shard or row has too"
            self._add(self._generation.shards[name].path, problem)

    def _expected(self, table: pa.Table, numbers: Numbers | None, shard: Shard) -> pa.Array | None:
        """The doc_id of each row of a shard, according to the documents; None where their ranges do not cover it."""
        part = taken(table, np.zeros(0, np.uint32) if numbers is None else numbers)
        first, rows = (np.asarray(part.column(name), np.int64) for name in ("first_row", "rows"))
        starts = np.concatenate(([0], np.cumsum(rows)))
        if starts[-1] != shard.rows or not np.array_equal(starts[:-1], first):
            self._add(self._folder / "documents.parquet", f"its ranges do not cover each row of {shard.name} once")
            return None
        keys = zip(part.column("root").to_pylist(), part.column("path").to_pylist(), strict=True)
        ids = pa.array([digest(*key) for key in keys], pa.string())
        return ids.take(pa.array(np.repeat(np.arange(rows.size), rows)))

    def _checksum(self, path: Path, size_bytes: int | None, sha256: str) -> bool:
        """Whether the bytes of a file are those of the manifest."""
        problem = damage_beside.problem_of(path, size_bytes, sha256)
        if problem:
            self._add(path, problem)
        return not problem

    def beside(self) -> None:
        """Check the manifest, the older generations, the change lists and the cache of searches."""
        for found in (
            damage_beside.in_manifest, damage_beside.in_older, damage_beside.in_change_lists, damage_beside.in_cache,
        ):  # fmt: skip
            for path, problem in found(self._index, self._generation):
                if problem:
                    self._add(path, problem)

    def unlisted_files(self) -> None:
        """Report files no manifest names, and older generations that can no longer be read.

        Leftovers of killed runs are not damage: the next run clears them.
        """
        for path in matching(self._folder / "vectors", "*"):
            if path.suffix != ".parquet" or path.stem not in self._used:
                self._add(path, _NOT_LISTED)
        for path in sorted(self._folder.iterdir()):
            if path.name not in _BESIDE:
                self._add(path, _NOT_LISTED)
        for path in sorted(self._index.generations.iterdir()):
            if path.name.isdigit() and not self._index.readable(int(path.name)):
                self._add(path / "manifest.json", "cannot be read, so no rollback can go to it")
            elif not path.name.isdigit() and path.suffix != ".tmp" and not path.name.startswith(".trash-"):
                self._add(path, _NO_GENERATION)

    def unused_keys(self) -> None:
        """Report key files whose shard does not exist."""
        needed = {path.stem for path in matching(self._index.generations, "*/vectors/*.parquet")}
        for path in matching(self._index.keys, "part-*.npy"):
            if path.stem not in needed:
                self._add(path, "does not belong to a shard")


def _row_problems(shard: Shard, expected: pa.Array | None, dim: int, ids: _Ids) -> Iterator[str]:
    """What is wrong with the rows of a shard whose digest is right."""
    counts: Counter[str] = Counter()
    try:
        with pq.ParquetFile(shard.path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(columns.row_schema(dim)):
                yield "its schema is not that of the index"
                return
            if file.metadata.num_rows != shard.rows:
                yield f"has {file.metadata.num_rows} rows, the manifest says {shard.rows}"
                return
            start = 0
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=_COLUMNS)
                counts["row groups hold chunk_ids that are not 32 hex digits"] += not ids.add(shard.name, rows)
                _count_problems(rows, None if expected is None else expected.slice(start, rows.num_rows), counts)
                start += rows.num_rows
    except (OSError, pa.ArrowException) as error:
        yield f"cannot be read: {error}"
    yield from (f"{count} {problem}" for problem, count in counts.items() if count)


def _count_problems(rows: pa.Table, expected: pa.Array | None, counts: Counter[str]) -> None:
    vectors = vectors_of(rows.column("vector")).astype(np.float64)
    finite = np.isfinite(vectors).all(axis=1)
    norms = np.linalg.norm(vectors[finite], axis=1)
    doc_ids, index = rows.column("doc_id"), np.asarray(rows.column("chunk_index"))
    same_document = np.asarray(pc.equal(doc_ids.slice(1), doc_ids.slice(0, max(0, rows.num_rows - 1))), np.bool_)
    found: dict[str, Any] = {
        "vectors are not finite": ~finite,
        "vectors are not of unit length": np.abs(norms - 1.0) > NORM_TOLERANCE,
        "rows are not in the order of their document": same_document & (np.diff(index) <= 0),
    }
    if expected is not None:
        found["rows are not of the document that documents.parquet says"] = ~np.asarray(pc.equal(doc_ids, expected))
    counts.update({problem: int(np.sum(where)) for problem, where in found.items()})


def _sound_keys(shard: Shard) -> bool:
    stored = load_keys(shard.keys_path)
    if stored is None or stored.shape[1] != shard.rows:
        return False
    high, low, row = stored
    ascending = (high[:-1] < high[1:]) | ((high[:-1] == high[1:]) & (low[:-1] <= low[1:]))
    if not ascending.all():
        return False
    return bool(np.array_equal(np.sort(row), np.arange(shard.rows, dtype=np.uint64)))


class _Ids:
    """Every chunk_id of the generation in 16 bytes, to find duplicates."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.uint64]] = []
        self._names: list[str] = []

    def add(self, shard: str, rows: pa.Table) -> bool:
        """Add the chunk_ids of some rows; False when some are not 32 hex digits, which are left out."""
        texts = rows.column("chunk_id").to_pylist()
        try:
            self._parts.append(keys_of([bytes.fromhex(text) for text in texts if len(text) == 32]))
        except ValueError:
            return False
        self._names.append(shard)
        return bool(self._parts[-1].shape[1] == len(texts))

    def duplicates(self) -> Counter[str]:
        """How many ids of each shard occur in an earlier shard or an earlier row."""
        if not self._parts:
            return Counter()
        high, low = np.concatenate(self._parts, axis=1)
        order = np.lexsort((low, high))  # stable: of equal ids the earliest stays first
        again = (np.diff(high[order]) == 0) & (np.diff(low[order]) == 0)
        ends = np.cumsum([part.shape[1] for part in self._parts])
        at = np.searchsorted(ends, order[1:][again], side="right")
        return Counter(self._names[part] for part in at.tolist())
