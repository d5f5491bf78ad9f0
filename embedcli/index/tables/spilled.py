"""A table that is too large for memory, in a file without a name, mapped: its pages are the system's to take back.

In: parts of a table, a folder. Out: one table with the same rows. The file goes with the table, and with the process
whatever ends that.
Not here: files that a later run reads (staging.py, publish.py).
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pyarrow as pa

from embedcli.errors import storage_errors

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
    with storage_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        with pa.ipc.new_stream(pa.PythonFile(file, "w"), schema) as writer:
            for part in parts:
                writer.write_table(part)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()
