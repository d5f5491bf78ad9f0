"""Files mapped into memory, the room that they take on the disk, and their pages, given back while more are read.

In: what fills a file without a name, or how large one is to be. Out: its bytes, mapped. By themselves pages that were
read stay counted for this process until the system is short of memory, and a table that was read once from end to end
would seem to be in memory as a whole.
Not here: what is in the files (spilled.py).
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

GIVE_BACK_BYTES = 32 << 20

Part = TypeVar("Part")


class _Maps:
    """Those of this process, and about how much was read of them since their pages were given back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._read_bytes = 0

    def add(self, one: mmap.mmap) -> None:
        with self._lock:
            self._maps.add(one)

    def note_read(self, size_bytes: int) -> None:
        self._read_bytes += size_bytes
        if self._read_bytes >= GIVE_BACK_BYTES:
            self.give_back()

    def give_back(self) -> None:
        with self._lock:
            self._read_bytes = 0
            for one in self._maps:
                one.madvise(mmap.MADV_DONTNEED)


_maps = _Maps()


def mapped(folder: Path, fill: Callable[[BinaryIO], None]) -> mmap.mmap:
    """What is written into a file without a name. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder) as file:
        fill(file)
        return map_file(file)


def map_file(file: BinaryIO) -> mmap.mmap:
    """All that was written into an open file; it may be closed then. Raises OSError."""
    file.flush()
    found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _maps.add(found)
    return found


def take_room(file: BinaryIO, size_bytes: int) -> None:
    """Have the disk keep room for a file that is written through a map, at least so many bytes. Raises OSError.

    A disk that is full ends a process that writes to a mapped page; here it is an error like any other.
    """
    if size_bytes and hasattr(os, "posix_fallocate"):  # macOS has none
        os.posix_fallocate(file.fileno(), 0, size_bytes)


def give_back() -> None:
    """Give back the pages of all files; they stay in the system's cache."""
    _maps.give_back()


def passing(parts: Iterable[Part], size_of: Callable[[Part], int]) -> Iterator[Part]:
    """The same parts; what was read of the files for them, and for others before, is given back now and then."""
    for part in parts:
        yield part
        _maps.note_read(size_of(part))
