"""Rows -> one Parquet shard and its sorted keys, whole or absent; and rows back out of it, with checked checksums.

In: Arrow tables of rows with their vector keys. Out: `part-<id>.parquet`, complete and durable, under a name never
used before, and `part-<id>.npy`: (key high, key low, row), sorted, memory-mapped when vectors are looked up.
Not here: which rows belong to which generation (generations.py), vectors by key (known_vectors.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.columns import READ_SCHEMA, Floats, VectorKeys, row_schema
from embedcli.errors import DamagedShard
from embedcli.vault.disk import Disk, Written, digest_of
from embedcli.vault.stubs import fetched

Ranges = Sequence[tuple[int, int]] | npt.NDArray[np.int64]
"""Half-open row ranges, ascending, none of which begins before another one ends."""

ROW_GROUP_ROWS = 8192
BATCH_ROWS = 1024

DAMAGE = (OSError, pa.ArrowException, ValueError, IndexError)
"""The exceptions that reading a damaged file can raise."""

_PLAIN = {"chunk_id", "chunk_digest", "text", "char_start", "char_end", "core_start", "meta"}


@dataclass(frozen=True, slots=True)
class Shard:
    """One immutable Parquet file of rows: its name (`part-<id>`), size and digests. `folder` is where it is now."""

    name: str
    rows: int
    size_bytes: int
    sha256: str
    keys_sha256: str
    folder: Path
    keys_folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.parquet"

    @property
    def keys_path(self) -> Path:
        return self.keys_folder / f"{self.name}.npy"


def complete_rows(
    rows: pa.Table,
    vectors: Floats,
    *,
    changed_in: int,
    keep: npt.NDArray[np.bool_] | None = None,
    chunks: npt.NDArray[np.int32] | None = None,
) -> pa.Table:
    """Rows as read and float32 unit vectors [n, dim] -> rows as stored; with `keep` [n] only those where it is True.

    They are the `chunks` of so many documents; of one if None."""
    n, dim = vectors.shape
    counts = np.full(n, n, np.int32) if chunks is None else np.repeat(chunks, chunks)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)
    columns = [rows.column(name) for name in READ_SCHEMA.names]
    columns[READ_SCHEMA.get_field_index("chunk_count")] = pa.array(counts)
    columns += [pa.array(np.full(n, changed_in, np.int64)), flat]
    table = pa.table(columns, schema=row_schema(dim))
    return table if keep is None else table.filter(pa.array(keep))


def write_shard(
    tables: Iterable[pa.Table], keys: VectorKeys, *, dim: int, folder: Path, keys_folder: Path, disk: Disk
) -> Shard:
    """Write rows, in the order given, and their keys [2, rows]. Raises StorageError.

    `tables` is iterated from the start again when a failed write is retried.
    """
    name = f"part-{secrets.token_hex(8)}"
    written = disk.write(folder / f"{name}.parquet", lambda sink: _write_parquet(tables, dim, sink))
    keys_written = write_keys(keys, keys_folder / f"{name}.npy", disk)
    return Shard(
        name=name,
        rows=keys.shape[1],
        size_bytes=written.size_bytes,
        sha256=written.sha256,
        keys_sha256=keys_written.sha256,
        folder=folder,
        keys_folder=keys_folder,
    )


def _write_parquet(tables: Iterable[pa.Table], dim: int, sink: BinaryIO) -> None:
    schema = row_schema(dim)
    options: dict[str, Any] = {
        "compression": "zstd",
        "use_dictionary": [name for name in schema.names if name not in _PLAIN and name != "vector"],
        "use_byte_stream_split": ["vector.list.element"],
        "write_page_index": True,
        "write_page_checksum": True,
    }
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, **options) as writer:
        for group in regroup(iter(tables), ROW_GROUP_ROWS):
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)


def regroup(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `rows` rows, the last one shorter."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows)
            waiting, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(waiting)


def read_rows(path: Path, ranges: Ranges, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of `ranges`, in order, a row group at a time. Raises DamagedShard where a checksum is wrong."""
    try:
        yield from _row_groups(path, ranges, columns)
    except DAMAGE as error:
        raise DamagedShard(path.stem, str(error)) from error


def _row_groups(path: Path, ranges: Ranges, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    starts, stops = np.array(ranges, np.int64).reshape(-1, 2).T
    with open_shard(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            inside = slice(np.searchsorted(stops, start, side="right"), np.searchsorted(starts, stop))
            if starts[inside].size:
                table = file.read_row_group(group, columns=list(columns) if columns else None)
                first, end = np.maximum(starts[inside], start) - start, np.minimum(stops[inside], stop) - start
                whole = (first[0], end[0]) == (0, table.num_rows)
                slices = zip(first.tolist(), (end - first).tolist(), strict=True)
                yield table if whole else pa.concat_tables([table.slice(*one) for one in slices])
            start = stop


def read_row(path: Path, row: int, columns: Sequence[str]) -> pa.RecordBatch:
    """One row; of its row group no more is decoded than lies before it. Raises DamagedShard."""
    try:
        with open_shard(path) as file:
            group, before = row // ROW_GROUP_ROWS, row % ROW_GROUP_ROWS
            for batch in file.iter_batches(BATCH_ROWS, [group], list(columns), use_threads=False):
                if before < batch.num_rows:
                    return batch.slice(before, 1)
                before -= batch.num_rows
        raise IndexError(f"it has no row {row}")
    except DAMAGE as error:
        raise DamagedShard(path.stem, str(error)) from error


def open_shard(path: Path) -> pq.ParquetFile:
    """Open a shard so that each page is checked against its checksum when it is read. Raises one of DAMAGE.

    Checksums do not cover the footer, so its column names, types and row counts are checked here. Any other change of
    the footer makes the file unreadable or affects no row.
    """
    file = pq.ParquetFile(fetched(path), page_checksum_verification=True)
    kind = file.schema_arrow.types[-1]
    if not file.schema_arrow.equals(row_schema(kind.list_size if pa.types.is_fixed_size_list(kind) else 0)):
        raise ValueError("its columns are not those of a shard")
    if sum(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)) != file.metadata.num_rows:
        raise ValueError("its row groups do not add up to its number of rows")
    return file


# ---- keys


def keys_of(digests: Sequence[bytes]) -> VectorKeys:
    """16-byte vector keys -> [2, n]."""
    halves = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)
    return np.ascontiguousarray(halves.T.astype(np.uint64))


def sorted_keys(keys: VectorKeys) -> VectorKeys:
    """Keys in row order [2, n] -> (high, low, row) sorted [3, n]."""
    found = np.empty((3, keys.shape[1]), np.uint64)
    found[2] = np.lexsort((keys[1], keys[0]))
    for half in (0, 1):
        np.take(keys[half], found[2].view(np.int64), out=found[half], mode="clip")
    return found


def write_keys(keys: VectorKeys, path: Path, disk: Disk) -> Written:
    """Sort and write; column i of `keys` is the key of row i."""
    stored = sorted_keys(keys)
    return disk.write(path, lambda sink: np.save(sink, stored, allow_pickle=False))


def load_keys(path: Path, *, sha256: str | None = None) -> VectorKeys | None:
    """The stored [3, n] array (high, low, row), memory-mapped; None when the file is missing or damaged.

    A wrong row number would give a chunk another chunk's vector. Without keys the vectors are not reused; no row is
    lost.
    """
    try:
        if sha256 is not None and digest_of(fetched(path)) != sha256:
            return None
        stored: VectorKeys = np.load(fetched(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return stored if stored.ndim == 2 and stored.shape[0] == 3 and stored.dtype == np.uint64 else None


def keys_by_row(shard: Shard) -> VectorKeys:
    """Keys in row order [2, rows]; all zero where the key file cannot be read (`find` never finds the key 0)."""
    keys = np.zeros((2, shard.rows), np.uint64)
    stored = load_keys(shard.keys_path, sha256=shard.keys_sha256)
    if stored is not None:
        keys[:, stored[2].view(np.int64)] = stored[:2]
    return keys


def find(stored: VectorKeys | Sequence[npt.NDArray[np.uint64]], wanted: VectorKeys) -> npt.NDArray[np.int64]:
    """The position of each wanted key in the sorted `stored`, -1 where it is absent.

    The high halves are bisected; among keys with an equal high half the low halves are compared one by one.
    """
    high, low = stored[0], stored[1]
    found = np.full(wanted.shape[1], -1, np.int64)
    at = np.searchsorted(high, wanted[0], side="left")
    pending = np.flatnonzero((at < high.size) & (wanted[0] != 0))
    while pending.size:
        pending = pending[high[at[pending]] == wanted[0, pending]]
        hit = low[at[pending]] == wanted[1, pending]
        found[pending[hit]] = at[pending[hit]]
        pending = pending[~hit]
        at[pending] += 1
        pending = pending[at[pending] < high.size]
    return found


def vectors_of(column: pa.ChunkedArray) -> Floats:
    """A `vector` column -> float32 [n, dim]."""
    whole = column.combine_chunks()
    dim = column.type.list_size
    values: Floats = whole.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return values


def cut(vectors: Floats, dim: int) -> Floats:
    """The first `dim` dimensions, renormalised in float32; vectors of that width are returned unchanged."""
    if vectors.shape[1] == dim:
        return vectors
    if vectors.shape[1] < dim:
        raise ValueError(f"the vectors have {vectors.shape[1]} dimensions, fewer than {dim}")
    head = vectors[:, :dim]
    norm: Floats = np.linalg.norm(head, axis=1, keepdims=True)
    if not norm.all():
        raise ValueError(f"a vector is zero in its first {dim} dimensions")
    narrow: Floats = head / norm
    return narrow
