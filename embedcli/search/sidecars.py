"""What a search needs of one shard, in one file of `cache/`, memory-mapped: vectors in 8 bits and in 32, ids, words.

In: a shard. Out: a Sidecar. The file is disposable: it names the digest of its shard and the versions of what made it,
no manifest names it, and one that is missing, torn or of another version is built from the shard again; so is one of
which a search finds that a page is damaged. A shard never changes and is linked from generation to generation under one
name, so its sidecar stays with it, as its keys do.
Not here: the file and its checks (sealed.py), searching (scan.py, bm25.py), removing the sidecars of shards that are
gone (index/clearing.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedcli.columns import Floats
from embedcli.errors import DamagedShard, StorageError, storage_errors
from embedcli.index.shards import Shard, read_rows, vectors_of
from embedcli.index.tables.gathered import Gathered
from embedcli.search import postings, sealed
from embedcli.search.sealed import Arrays
from embedcli.search.words import WORDS_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedcli.index.generations import Index

SIDECAR_VERSION = 2
"""Must be raised with every change of the arrays in the file."""
BATCH_ROWS = 1024
"""Rows whose vectors are made smaller at once."""
LEVELS = 127
"""An int8 component is -127 to 127."""
_OLDER = b'{"sidecar": 1,'
"""How the files of the first version begin, which had no sums."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sidecar:
    """One shard as a search sees it. What is read of the file is checked: all properties raise DamagedCache.

    `int8` [rows, dim] times `scales` [rows] is `float32` [rows, dim], but for an error of at most the length `error` in
    each row. `ids` [rows] are the first 64 bits of the chunk ids. `words` is None where the index stores no text.
    """

    shard: Shard
    arrays: Arrays

    @property
    def int8(self) -> npt.NDArray[np.int8]:
        return self.arrays.whole("int8")

    @property
    def scales(self) -> Floats:
        return self.arrays.whole("scales")

    @property
    def ids(self) -> npt.NDArray[np.uint64]:
        return self.arrays.whole("ids")

    @property
    def error(self) -> float:
        return float(self.arrays.whole("error")[0])

    @property
    def words(self) -> postings.Postings | None:
        return postings.Postings(self.arrays) if "terms" in self.arrays else None

    def exact(self, rows: Rows) -> Floats:
        """Some rows of `float32`; the memory of what was read of the file is given back."""
        found: Floats = self.arrays.rows("float32", rows)
        self.arrays.release("float32")
        return found


def open_sidecar(index: Index, shard: Shard, *, with_text: bool, anew: bool = False) -> Sidecar:
    """The sidecar of a shard, built first where there is none, or `anew`. Where it cannot be stored, it stays in
    memory, and `index.warn` says so. Raises DamagedShard."""
    arrays = None if anew else _load(index.cache, shard)
    if arrays is None:
        try:
            built = build(shard, with_text=with_text, folder=index.folder)
        except DamagedShard:  # in memory it is damaged too
            raise
        except StorageError:  # of a folder in which nothing can be written
            built = build(shard, with_text=with_text)
        arrays = Arrays(built)
        try:
            store(index, shard, built)
            arrays = _load(index.cache, shard) or arrays
        except StorageError as error:
            index.warn(f"{error}; without it every search reads the whole shard")
    return Sidecar(shard, arrays)


def has_sidecar(index: Index, shard: Shard) -> bool:
    """Whether the cache has a whole sidecar of this shard and these versions."""
    return _load(index.cache, shard) is not None


def path_of(cache: Path, shard_name: str) -> Path:
    return cache / f"{shard_name}.search"


# ---- building


def build(shard: Shard, *, with_text: bool, folder: Path | None = None) -> dict[str, np.ndarray]:
    """The arrays of a sidecar, from the rows of the shard; those that are large lie in files of the folder, if one is
    given. Raises DamagedShard, StorageError."""
    names = ["chunk_id", "vector", *(["text"] if with_text else [])]
    vectors = _Vectors(folder)
    words = postings.Builder(folder=folder) if with_text else None
    for table in read_rows(shard.path, [(0, shard.rows)], names):
        for part in table.to_batches(BATCH_ROWS):
            ids = part.column("chunk_id").to_pylist()
            vectors.add(vectors_of(pa.chunked_array([part.column("vector")])), [int(text[:16], 16) for text in ids])
        if words is not None:
            for texts in table.column("text").chunks:
                words.add(texts)
    return vectors.arrays() | (words.arrays() if words is not None else {})


class _Vectors:
    """The vectors of a shard in 8 bits and in 32, and their ids."""

    def __init__(self, folder: Path | None) -> None:
        self._gathered = {name: Gathered(folder) for name in ("int8", "scales", "float32", "ids")}
        self._error = 0.0

    def add(self, float32: Floats, ids: Sequence[int]) -> None:
        int8, scales, error = quantise(float32)
        self._error = max(self._error, error)
        parts: tuple[np.ndarray, ...] = (int8, scales, float32, np.array(ids, np.uint64))
        for gathered, part in zip(self._gathered.values(), parts, strict=True):
            gathered.add(part)

    def arrays(self) -> dict[str, np.ndarray]:
        if not self._gathered["ids"].nbytes:
            self.add(np.zeros((0, 1), np.float32), [])
        whole = {name: gathered.array() for name, gathered in self._gathered.items()}
        return {**whole, "error": np.array([self._error], np.float64)}


def quantise(vectors: Floats) -> tuple[npt.NDArray[np.int8], Floats, float]:
    """float32 [rows, dim] -> int8 [rows, dim], the scale of each row [rows], and the length of the largest error."""
    scales: Floats = np.abs(vectors).max(axis=1, initial=0.0).astype(np.float32) / np.float32(LEVELS)
    divisors = np.where(scales > 0, scales, np.float32(1.0))[:, None]
    int8 = np.rint(vectors / divisors).astype(np.int8)
    errors = np.linalg.norm(vectors - int8 * scales[:, None], axis=1)
    return int8, scales, float(errors.max(initial=0.0))


# ---- the file


def _header(shard: Shard) -> dict[str, Any]:
    return {"sidecar": SIDECAR_VERSION, "words": WORDS_VERSION, "shard": shard.name, "sha256": shard.sha256}


def store(index: Index, shard: Shard, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file whole, under its name at once. Raises StorageError."""
    index.disk.make_folder(index.cache)
    path = path_of(index.cache, shard.name)
    building = path.with_suffix(f".{secrets.token_hex(4)}.building")  # several searches may build it at once
    index.disk.write(building, lambda sink: sealed.write(sink, _header(shard), arrays))
    with storage_errors(path):
        index.disk.rename(building, path)


def _load(cache: Path, shard: Shard) -> Arrays | None:
    """The arrays of the file; None where there is none that is whole and belongs to this shard and these versions."""
    return sealed.load(path_of(cache, shard.name), _header(shard))


def is_damaged(path: Path) -> bool:
    """Whether a byte of a sidecar is not as it was written; one of an older version cannot tell. Raises OSError."""
    with path.open("rb") as file:
        older = file.read(len(_OLDER)) == _OLDER
    return not older and not sealed.is_as_written(path)
