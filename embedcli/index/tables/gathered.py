"""An array that comes in parts, and may be larger than memory: in memory as long as it is small, then in a file without
a name, mapped.

In: parts of one array, a folder. Out: the array. Its file goes with it, and with the process whatever ends that.
Not here: the mapping (mapped.py), files that are kept (search/sealed.py), tables (spilled.py).
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from embedcli.errors import storage_errors
from embedcli.index.tables.mapped import map_file

IN_MEMORY_BYTES = 4 << 20


class Gathered:
    """One array; its items along the first axis are added in their order. Adding raises StorageError."""

    def __init__(self, folder: Path | None) -> None:
        """Without a folder all of it stays in memory."""
        self._folder = folder
        self._memory: io.BytesIO | None = io.BytesIO()
        self._sink: BinaryIO = self._memory
        self._empty: np.ndarray | None = None
        """A part without items: of the same kind as the array."""

    def add(self, part: np.ndarray) -> None:
        if self._empty is None:
            self._empty = part[:0].copy()
        data = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        if self._memory is not None and self._folder is not None and self.nbytes + len(data) > IN_MEMORY_BYTES:
            self._move_into_file(self._folder, self._memory)
        if self._folder is None:
            self._sink.write(data)
        else:
            with storage_errors(self._folder):
                self._sink.write(data)

    @property
    def nbytes(self) -> int:
        return self._sink.tell()

    def array(self) -> np.ndarray:
        """All that was added; a part, be it empty, must have been. Nothing is added any more."""
        assert self._empty is not None
        if self._memory is not None:
            data = self._memory.getbuffer()
        else:
            data = memoryview(map_file(self._sink))
            self._sink.close()
        return np.frombuffer(data, self._empty.dtype).reshape(-1, *self._empty.shape[1:])

    def _move_into_file(self, folder: Path, memory: io.BytesIO) -> None:
        with storage_errors(folder):
            self._sink = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            self._sink.write(memory.getbuffer())
        self._memory = None
