"""What a search needs of one shard, in one file of `cache/`, memory-mapped: vectors in 8 bits and in 32, ids, words.

In: a shard. Out: a Sidecar. The file is disposable: it names the digest of its shard and the versions of what made it,
no manifest names it, and one that is missing, torn or of another version is built from the shard again. A shard never
changes and is linked from generation to generation under one name, so its sidecar stays with it, as its keys do.
Not here: searching (scan.py, bm25.py), removing the sidecars of shards that are gone (index/clearing.py).
"""

from __future__ import annotations

import json
import mmap
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from embedcli.columns import Floats
from embedcli.errors import StorageError, storage_errors
from embedcli.index.shards import Shard, read_rows, vectors_of
from embedcli.search import postings
from embedcli.search.words import WORDS_VERSION

if TYPE_CHECKING:
    from embedcli.index.generations import Index

SIDECAR_VERSION = 1
"""Must be raised with every change of the arrays in the file."""
ALIGNED = 64
HEADER_BYTES = 4096
LEVELS = 127
"""An int8 component is -127 to 127."""


@dataclass(frozen=True)
class Sidecar:
    """One shard as a search sees it.

    `int8` [rows, dim] times `scales` [rows] is `float32` [rows, dim], but for an error of at most the length `error` in
    each row. `ids` [rows] are the first 64 bits of the chunk ids. `words` is None where the index stores no text.
    """

    shard: Shard
    int8: npt.NDArray[np.int8]
    scales: Floats
    float32: Floats
    ids: npt.NDArray[np.uint64]
    error: float
    words: postings.Postings | None
    file: mmap.mmap | None = None

    def release(self) -> None:
        """Give back the memory of the pages of `float32` that were read: the kernel keeps 64 kB for each row, and in a
        program that lives long it would soon be all of them. They stay in the kernel's cache."""
        if self.file is not None and self.float32.size:
            start = self.float32.ctypes.data - np.frombuffer(self.file, np.uint8, 1).ctypes.data
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            length = start + self.float32.nbytes - first
            if length > 0:
                self.file.madvise(mmap.MADV_DONTNEED, first, length)


def open_sidecar(index: Index, shard: Shard, *, with_text: bool) -> Sidecar:
    """The sidecar of a shard, built first where there is none. Where it cannot be stored, it stays in memory, and
    `index.warn` says so. Raises DamagedShard."""
    arrays, file = _load(index.cache, shard) or (None, None)
    if arrays is None:
        arrays = build(shard, with_text=with_text)
        try:
            _store(index, shard, arrays)
        except StorageError as error:
            index.warn(f"{error}; without it every search reads the whole shard")
        arrays, file = _load(index.cache, shard) or (arrays, None)
    return Sidecar(
        shard=shard, int8=arrays["int8"], scales=arrays["scales"], float32=arrays["float32"], ids=arrays["ids"],
        error=float(arrays["error"][0]), words=postings.Postings(arrays) if "terms" in arrays else None,
        file=file,
    )  # fmt: skip


def complete(index: Index) -> None:
    """Build the sidecars that the shards of the current generation lack, while there is room for them on the disk.

    A run does this after its publish; whatever goes wrong is a warning, as the first search tries again.
    """
    generation = index.current()
    if generation is None:
        return
    with_text = not generation.settings.no_text
    for shard in generation.shards.values():
        try:
            if _load(index.cache, shard) is None:
                arrays = build(shard, with_text=with_text)
                needed = sum(array.nbytes for array in arrays.values())
                if not index.disk.has_room(index.folder, needed):
                    index.warn(f"the disk of `{index.folder}` is too full for the cache of searches")
                    return
                _store(index, shard, arrays)
        except StorageError as error:
            index.warn(f"the cache of searches is not complete: {error}")
            return


def path_of(cache: Path, shard_name: str) -> Path:
    return cache / f"{shard_name}.search"


# ---- building


def build(shard: Shard, *, with_text: bool) -> dict[str, np.ndarray]:
    """The arrays of a sidecar, from the rows of the shard. Raises DamagedShard."""
    names = ["chunk_id", "vector", *(["text"] if with_text else [])]
    vectors, ids, texts = [], [], _Texts()
    for table in read_rows(shard.path, [(0, shard.rows)], names):
        vectors.append(vectors_of(table.column("vector")))
        ids.append(np.array([int(text[:16], 16) for text in table.column("chunk_id").to_pylist()], np.uint64))
        texts.parts.append(table.column("text") if with_text else [])
    float32 = np.concatenate(vectors) if vectors else np.zeros((0, 1), np.float32)
    int8, scales, error = quantise(float32)
    arrays: dict[str, np.ndarray] = {
        "int8": int8,
        "scales": scales,
        "float32": float32,
        "ids": np.concatenate([np.zeros(0, np.uint64), *ids]),
        "error": np.array([error], np.float64),
    }
    return arrays | (postings.build(texts) if with_text else {})


class _Texts:
    """The texts of some columns, one after another: as Python strings they would take three times the memory."""

    def __init__(self) -> None:
        self.parts: list[Iterable[Any]] = []

    def __iter__(self) -> Iterator[str]:
        for part in self.parts:
            for text in part:
                yield text.as_py() or ""


def quantise(vectors: Floats) -> tuple[npt.NDArray[np.int8], Floats, float]:
    """float32 [rows, dim] -> int8 [rows, dim], the scale of each row [rows], and the length of the largest error."""
    scales: Floats = np.abs(vectors).max(axis=1, initial=0.0).astype(np.float32) / np.float32(LEVELS)
    divisors = np.where(scales > 0, scales, np.float32(1.0))[:, None]
    int8 = np.rint(vectors / divisors).astype(np.int8)
    errors = np.linalg.norm(vectors - int8 * scales[:, None], axis=1)
    return int8, scales, float(errors.max(initial=0.0))


# ---- the file: a header of JSON, then the arrays


def _header(shard: Shard) -> dict[str, Any]:
    return {"sidecar": SIDECAR_VERSION, "words": WORDS_VERSION, "shard": shard.name, "sha256": shard.sha256}


def _store(index: Index, shard: Shard, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file whole, under its name at once. Raises StorageError."""
    places: dict[str, Any] = {}
    at = HEADER_BYTES
    for name, array in arrays.items():
        places[name] = [array.dtype.str, list(array.shape), at]
        at += -(-array.nbytes // ALIGNED) * ALIGNED
    header = json.dumps({**_header(shard), "bytes": at, "arrays": places}).encode().ljust(HEADER_BYTES)

    def fill(sink: BinaryIO) -> None:
        sink.write(header)
        for array in arrays.values():
            sink.write(np.ascontiguousarray(array).tobytes())
            sink.write(bytes(-array.nbytes % ALIGNED))

    index.disk.make_folder(index.cache)
    path = path_of(index.cache, shard.name)
    building = path.with_suffix(f".{secrets.token_hex(4)}.building")  # several searches may build it at once
    index.disk.write(building, fill)
    with storage_errors(path):
        index.disk.rename(building, path)


def _load(cache: Path, shard: Shard) -> tuple[dict[str, np.ndarray], mmap.mmap] | None:
    """The arrays of the file, and the file; None where there is none that belongs to this shard and these versions."""
    try:
        with path_of(cache, shard.name).open("rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        wanted = {**_header(shard), "bytes": len(mapped)}
        if {name: header[name] for name in wanted} != wanted:
            return None
        arrays = {
            name: np.frombuffer(mapped, dtype, int(np.prod(shape)), offset).reshape(shape)
            for name, (dtype, shape, offset) in header["arrays"].items()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return arrays, mapped
