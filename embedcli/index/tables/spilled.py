"""A table that is too large for memory, in a file without a name, mapped: its pages are the system's to take back.

In: parts of a table, a folder. Out: one table with the same rows. The file goes with the table, and with the process
whatever ends that.
Not here: how its columns lie in the file (contiguous.py), the mapping (mapped.py), files that a later run reads
(staging.py, publish.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from embedcli.errors import storage_errors
from embedcli.index.tables import contiguous
from embedcli.index.tables.mapped import mapped, passing

IN_MEMORY_ROWS = 1 << 15
"""A table of so many rows, or fewer, stays in memory: about 15 MB of documents."""


def spilled(parts: Iterable[pa.Table], schema: pa.Schema, folder: Path | None) -> pa.Table:
    """The rows of the parts, which are taken one after another; without a folder in memory. Raises StorageError."""
    taken: list[pa.Table] = []
    rows, left = 0, iter(parts)
    for part in left:
        taken.append(part)
        rows += part.num_rows
        if folder is not None and rows > IN_MEMORY_ROWS:
            return _in_file(chain(taken, left), schema, folder)
    return pa.concat_tables([schema.empty_table(), *taken])


def _in_file(parts: Iterable[pa.Table], schema: pa.Schema, folder: Path) -> pa.Table:
    """Of one chunk, as long as that can be: Arrow copies all of a column of strings in several chunks, whichever rows
    are taken of it. How much room each column needs is known after the last part, so the file is written twice."""

    def write_parts(file: BinaryIO) -> None:
        with pa.ipc.new_stream(pa.PythonFile(file, "w"), schema) as writer:
            for part in passing(parts, lambda part: int(part.nbytes)):
                writer.write_table(part)

    with storage_errors(folder):
        table = pa.ipc.open_stream(pa.py_buffer(mapped(folder, write_parts))).read_all()
        if table.column(0).num_chunks == 1:
            return table
        places: list[contiguous.Places] = []
        file = mapped(folder, lambda file: places.extend(contiguous.write(file, table)))
    return contiguous.read(pa.py_buffer(file), places, schema)
