"""`recut`: the stored vectors of an index, narrower or in fewer bits, as Parquet for other programs.

In: an index, a width, a type. Out: a new folder: `vectors/*.parquet` with every column of the index, and
`manifest.json`, which says how the vectors are to be read; and how many of the ten nearest rows are still found. No
engine is needed, but for a file of queries. The folder appears whole or not at all; it is no index.
Not here: the numbers (search/narrow.py), the text on the screen (cli/recut.py).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.columns import Floats, row_schema
from embedcli.errors import UsageError, storage_errors
from embedcli.index.generations import Index, current_of
from embedcli.index.shards import Shard, cut, read_rows, vectors_of
from embedcli.paths import exists, is_link
from embedcli.search.narrow import DTYPES, FORMULAS, column, column_type, meant, narrowed
from embedcli.search.recall import Recall

if TYPE_CHECKING:
    from embedcli.index.manifest import Generation

SAMPLES = 200
"""How many rows of the index are asked as queries."""
DICTIONARIES = ["doc_id", "uri", "path", "title", "section"]


@dataclass(frozen=True)
class Recut:
    """What was made. `scale` is 0 but for int8. A recall is None where there is nothing to compare."""

    index: str
    generation: int
    out: str
    dim: int
    dtype: str
    scale: float
    rows: int
    bytes: int
    recall_of_chunks: float | None
    recall_of_queries: float | None


def recut(
    index: Index, out: Path, *, dim: int | None, dtype: str, queries: Callable[[Generation], Floats] | None = None
) -> Recut:
    """Write the vectors of the current generation to the new folder `out`. `queries` gives unit vectors [n, width].

    Raises UsageError, DamagedShard, StorageError; then there is no folder.
    """
    generation = current_of(index)
    work = _Work(index, generation, _checked_dim(generation, dim, dtype), dtype)
    _check_out(index, out)
    asked = None if queries is None else queries(generation)
    temporary = out.with_name(f".{out.name}.tmp")
    with storage_errors(temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / "vectors").mkdir(parents=True)
    try:
        made = work.write(temporary, asked)
        with storage_errors(out):
            index.disk.rename(temporary, out)
        index.disk.fsync_folder(out.parent)
        return dataclasses.replace(made, out=str(out))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _checked_dim(generation: Generation, dim: int | None, dtype: str) -> int:
    width = generation.settings.dim
    found = width if dim is None else dim
    if not 1 <= found <= width:
        raise UsageError(
            f"`--dim {found}` cannot be cut from vectors of {width} dimensions", f"use `--dim {width}` or less"
        )
    if dtype not in DTYPES:
        raise UsageError(f"`--dtype {dtype}` is not one of {', '.join(DTYPES)}", "name one of them")
    if dtype == "binary" and found % 8:
        raise UsageError(f"`--dim {found}` does not fill whole bytes of bits", f"use `--dim {max(8, found // 8 * 8)}`")
    return found


def _check_out(index: Index, out: Path) -> None:
    if index.folder == out or index.folder in out.parents:
        raise UsageError(f"`{out}` is in the index itself", "name a folder elsewhere with `--out`")
    if exists(out) or is_link(out):
        raise UsageError(f"`{out}` exists already", "name a new folder with `--out`")


class _Work:
    """The vectors of a generation on their way from one folder to another."""

    def __init__(self, index: Index, generation: Generation, dim: int, dtype: str) -> None:
        self._index = index
        self._generation = generation
        self._dim = dim
        self._dtype = dtype
        self._scale = self._largest() if dtype == "int8" else 0.0

    def write(self, folder: Path, queries: Floats | None) -> Recut:
        chunks = self._own_queries()
        recalls = [chunks, *([] if queries is None else [self._recall(queries)])]
        first, size = 0, 0
        for shard in self._generation.shards.values():
            write = _Writer(self, shard)
            size += self._index.disk.write(folder / "vectors" / f"{shard.name}.parquet", write).size_bytes
            for vectors in _vectors(shard):
                for recall in recalls:
                    recall.add(first, vectors, self.meant(vectors))
                first += len(vectors)
        made = Recut(
            index=self._index.shown, generation=self._generation.number, out="", dim=self._dim,
            dtype=self._dtype, scale=self._scale, rows=first, bytes=size, recall_of_chunks=chunks.result(),
            recall_of_queries=recalls[1].result() if queries is not None else None,
        )  # fmt: skip
        data = json.dumps(self._manifest(made), indent=1).encode()
        self._index.disk.write(folder / "manifest.json", lambda sink: sink.write(data))
        return made

    @property
    def schema(self) -> pa.Schema:
        schema = row_schema(self._dim)
        field = pa.field("vector", column_type(self._dtype, self._dim))
        told = {"embedcli.recut": json.dumps({"dtype": self._dtype, "dim": self._dim, "scale": self._scale})}
        return schema.set(schema.get_field_index("vector"), field).with_metadata(told)

    def table(self, rows: pa.Table) -> pa.Table:
        stored = narrowed(self._cut(vectors_of(rows.column("vector"))), self._dtype, self._scale)
        arrays = [*rows.columns[:-1], column(stored, self._dtype, self._dim)]
        return pa.table(arrays, schema=self.schema)

    def meant(self, vectors: Floats) -> Floats:
        return meant(narrowed(self._cut(vectors), self._dtype, self._scale), self._dtype, self._scale)

    def _cut(self, vectors: Floats) -> Floats:
        try:
            return cut(vectors, self._dim)
        except ValueError as error:
            raise UsageError(f"the vectors cannot be cut: {error}", "use a larger `--dim`") from error

    def _largest(self) -> float:
        """The largest component of all vectors: with this scale none is clipped."""
        shards = self._generation.shards.values()
        found = (float(np.abs(self._cut(part)).max(initial=0.0)) for shard in shards for part in _vectors(shard))
        return max(found, default=0.0) or 1.0

    def _own_queries(self) -> Recall:
        """Rows of the index, evenly spread, as queries."""
        count = sum(shard.rows for shard in self._generation.shards.values())
        rows = np.unique(np.linspace(0, max(0, count - 1), min(count, SAMPLES)).astype(np.int64))
        parts, first = [np.zeros((0, self._generation.settings.dim), np.float32)], 0
        for shard in self._generation.shards.values():
            ranges = [(row - first, row - first + 1) for row in rows.tolist() if first <= row < first + shard.rows]
            parts += [vectors_of(table.column("vector")) for table in read_rows(shard.path, ranges, ["vector"])]
            first += shard.rows
        return self._recall(np.concatenate(parts), rows[:count])

    def _recall(self, queries: Floats, own_rows: np.ndarray | None = None) -> Recall:
        """Bits are compared with bits; all else with the query in float32."""
        narrow = self.meant(queries) if self._dtype == "binary" else self._cut(queries)
        return Recall(queries, narrow, own_rows)

    def _manifest(self, made: Recut) -> dict[str, Any]:
        said = {name: value for name, value in dataclasses.asdict(made).items() if name != "out"}
        return {
            "recut": 1,
            **said,
            "formula": FORMULAS[self._dtype],
            "query": {**self._generation.query, "dim": self._dim},
        }


class _Writer:
    """Fills the file of one shard; may be called again where a write is retried."""

    def __init__(self, work: _Work, shard: Shard) -> None:
        self._work = work
        self._shard = shard

    def __call__(self, sink: BinaryIO) -> None:
        options = {"compression": "zstd", "use_dictionary": DICTIONARIES}  # DuckDB reads float16 only where it is plain
        with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), self._work.schema, **options) as writer:
            for rows in read_rows(self._shard.path, [(0, self._shard.rows)]):
                writer.write_table(self._work.table(rows))


def _vectors(shard: Shard) -> Iterator[Floats]:
    for table in read_rows(shard.path, [(0, shard.rows)], ["vector"]):
        yield vectors_of(table.column("vector"))


def query_texts(file: Path) -> Sequence[str]:
    """The lines of a file of queries that are not blank. Raises UsageError."""
    try:
        lines = [line.strip() for line in file.read_text("utf-8", errors="replace").splitlines()]
    except OSError as error:
        raise UsageError(f"cannot read `{file}`: {error.strerror}", "name a file with a query on each line") from error
    found = [line for line in lines if line]
    if not found:
        raise UsageError(f"`{file}` holds no queries", "name a file with a query on each line")
    return found
