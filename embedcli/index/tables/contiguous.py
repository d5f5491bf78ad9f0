"""The columns of a table in a file, each in one piece, however many chunks they had.

In: a table of strings, numbers and lists of numbers; a file. Out: the same rows as arrays over the bytes of the file,
in as few chunks as Arrow allows. Nothing of the size of a column is in memory but a byte a row.
Not here: which file that is (spilled.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedcli.index.tables.mapped import passing

MOST_BYTES = (1 << 31) - 1
"""Of a chunk: Arrow counts the bytes of the strings of one in 31 bits."""
ALIGNED = 64

Span = tuple[int, int]
"""Where bytes begin in the file, and how many they are."""


@dataclass(frozen=True)
class Place:
    """Where the buffers of an array lie, and those of the arrays inside it; None for a buffer that it does not need."""

    kind: pa.DataType
    rows: int
    spans: tuple[Span | None, ...]
    inside: tuple[Place, ...] = ()

    def array(self, file: pa.Buffer) -> pa.Array:
        buffers = [None if span is None else file.slice(*span) for span in self.spans]
        inside = [place.array(file) for place in self.inside]
        return pa.Array.from_buffers(self.kind, self.rows, buffers, children=inside)


Places = tuple[Place, ...]
"""Of the columns of one chunk of a table."""


def write(file: BinaryIO, table: pa.Table) -> Iterator[Places]:
    """Write the columns of a table that has rows; yields their places for each chunk that it has in the file."""
    for batches in _chunks(table):
        yield tuple(_write(file, [batch.column(number) for batch in batches]) for number in range(table.num_columns))


def read(file: pa.Buffer, chunks: Iterable[Places], schema: pa.Schema) -> pa.Table:
    """The table that was written."""
    arrays = ([place.array(file) for place in places] for places in chunks)
    return pa.Table.from_batches([pa.record_batch(columns, schema=schema) for columns in arrays])


def _chunks(table: pa.Table) -> Iterator[list[pa.RecordBatch]]:
    """The batches of a table, those together that fit into one chunk."""
    together: list[pa.RecordBatch] = []
    size = 0
    for batch in table.to_batches():
        if together and size + batch.nbytes > MOST_BYTES:
            yield together
            together, size = [], 0
        together.append(batch)
        size += batch.nbytes
    yield together


def _write(file: BinaryIO, arrays: Sequence[pa.Array]) -> Place:
    """Arrays of one type, one after another as one array."""
    kind, rows = arrays[0].type, sum(map(len, arrays))
    validity = _put(file, [_bits(arrays)]) if any(array.null_count for array in arrays) else None
    if not (pa.types.is_string(kind) or pa.types.is_list(kind)):
        return Place(kind, rows, (validity, _put(file, map(_numbers, arrays))))
    ends = _put(file, _ends(arrays))
    if pa.types.is_string(kind):
        return Place(kind, rows, (validity, ends, _put(file, map(_text, arrays))))
    return Place(kind, rows, (validity, ends), (_write(file, [_values(array) for array in arrays]),))


def _put(file: BinaryIO, parts: Iterable[Any]) -> Span:
    file.write(bytes(-file.tell() % ALIGNED))
    start = file.tell()
    for part in passing(parts, lambda part: memoryview(part).nbytes):
        file.write(part)
    return start, file.tell() - start


def _bits(arrays: Sequence[pa.Array]) -> npt.NDArray[np.uint8]:
    return np.packbits(np.concatenate([np.asarray(array.is_valid()) for array in arrays]), bitorder="little")


def _numbers(array: pa.Array) -> memoryview:
    size = array.type.bit_width // 8
    return memoryview(array.buffers()[1])[array.offset * size : (array.offset + len(array)) * size]


def _ends(arrays: Sequence[pa.Array]) -> Iterator[npt.NDArray[np.int32]]:
    """Where each string or list ends, after a zero."""
    end = np.int32(0)
    yield np.zeros(1, np.int32)
    for array in arrays:
        offsets = _offsets(array)
        yield offsets[1:] + (end - offsets[0])
        end += offsets[-1] - offsets[0]


def _offsets(array: pa.Array) -> npt.NDArray[np.int32]:
    if not len(array):
        return np.zeros(1, np.int32)
    return np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]


def _text(array: pa.Array) -> memoryview:
    offsets, data = _offsets(array), array.buffers()[2]
    return memoryview(data if data is not None else b"")[offsets[0] : offsets[-1]]


def _values(array: pa.Array) -> pa.Array:
    offsets = _offsets(array)
    return array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
