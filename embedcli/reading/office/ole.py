"""A compound file (OLE: .doc, .xls, .ppt, .msg, encrypted office files) -> its streams by path.

In: the bytes of a file. Out: names and contents of streams; UnreadableSource `damaged`. Not here: what the streams say
(message.py, sheets.py).

A compound file is a small file system: chains of sectors in a table (FAT), a directory as a tree, and streams under
4,096 bytes packed into sectors of 64. A chain is followed no longer than the table has entries, so one that bites its
tail ends.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from embedcli.errors import UnreadableSource

HEADER_BYTES = 512
ENTRY_BYTES = 128
MOST_ENTRIES = 1_000_000
END = 0xFFFFFFFA  # from here on no sector
NONE = 0xFFFFFFFF
STORAGE, STREAM, ROOT = 1, 2, 5

_HEADER = struct.Struct("<24xHHHHH6xIIIIIIIII")
_ENTRY = struct.Struct("<64sHBxIII36xIQ")


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    kind: int
    left: int
    right: int
    child: int
    start: int
    size: int


class CompoundFile:
    """The streams of one file, by paths such as `__attach_version1.0_#00000000/__substg1.0_3707001F`."""

    def __init__(self, data: bytes) -> None:
        try:
            self._open(data)
        except (struct.error, IndexError, ValueError, OverflowError) as error:
            raise UnreadableSource("damaged", str(error)) from None

    def _open(self, data: bytes) -> None:
        self._data = data
        (
            _minor, _major, _order, shift, mini_shift, _directory_count, _fat_count, directory, _transaction, cutoff,
            mini_fat, _mini_count, difat, difat_count,
        ) = _HEADER.unpack_from(data)  # fmt: skip
        if not (7 <= shift <= 16 and mini_shift < shift):
            raise UnreadableSource("damaged", "sectors of an odd size")
        self._sector_bytes, self._mini_bytes, self._cutoff = 1 << shift, 1 << mini_shift, cutoff
        self._fat = self._table(self._fat_sectors(difat, difat_count))
        self._mini_fat = self._table(self._chain(self._fat, mini_fat))
        self._entries = self._directory(self._joined(directory))
        root = self._entries[0] if self._entries else None
        self._mini_stream = self._joined(root.start)[: root.size] if root is not None else b""
        self._by_path = dict(self._paths())

    def __contains__(self, path: str) -> bool:
        return path in self._by_path

    def names(self, folder: str = "") -> list[str]:
        """The names of storages and streams at the top, or directly in a storage."""
        prefix = f"{folder}/" if folder else ""
        below = (path[len(prefix) :] for path in self._by_path if path.startswith(prefix))
        return [name for name in below if name and "/" not in name]

    def read(self, path: str) -> bytes:
        """The content of a stream; empty where there is none."""
        entry = self._by_path.get(path)
        if entry is None or entry.kind != STREAM:
            return b""
        if entry.size >= self._cutoff:
            return self._joined(entry.start)[: entry.size]
        size = self._mini_bytes
        parts = (self._mini_stream[n * size : (n + 1) * size] for n in self._chain(self._mini_fat, entry.start))
        return b"".join(parts)[: entry.size]

    def _sector(self, number: int) -> bytes:
        start = (number + 1) * self._sector_bytes
        return self._data[start : start + self._sector_bytes]

    def _joined(self, start: int) -> bytes:
        return b"".join(map(self._sector, self._chain(self._fat, start)))

    def _chain(self, table: array[int], start: int) -> Iterator[int]:
        number = start
        for _ in range(len(table)):
            if number >= END or number >= len(table):
                return
            yield number
            number = table[number]

    def _table(self, sectors: Iterator[int]) -> array[int]:
        data = b"".join(map(self._sector, sectors))
        return _numbers(data)

    def _fat_sectors(self, difat: int, difat_count: int) -> Iterator[int]:
        """The sectors of the FAT: 109 in the header, more in a chain of sectors whose last number is the next."""
        most = len(self._data) // self._sector_bytes + 1
        numbers = _numbers(self._data[76:HEADER_BYTES])
        for _ in range(min(difat_count, most) + 1):
            yield from (number for number in numbers if number < END and number < most)
            if difat >= END:
                return
            numbers = _numbers(self._sector(difat))
            difat = numbers.pop() if numbers else NONE

    def _directory(self, data: bytes) -> list[_Entry]:
        found = []
        for start in range(0, min(len(data), MOST_ENTRIES * ENTRY_BYTES) - ENTRY_BYTES + 1, ENTRY_BYTES):
            raw, size, kind, left, right, child, first, length = _ENTRY.unpack_from(data, start)
            name = raw[: max(0, min(size, 64) - 2)].decode("utf-16-le", "replace")
            # files of old versions have rubbish in the upper half
            length = length & 0xFFFFFFFF if self._sector_bytes == HEADER_BYTES else length
            found.append(_Entry(name, kind, left=left, right=right, child=child, start=first, size=length))
        return found

    def _paths(self) -> Iterator[tuple[str, _Entry]]:
        """Each entry once, however the tree is knotted."""
        seen: set[int] = set()
        waiting = [(self._entries[0].child, "")] if self._entries else []
        while waiting:
            number, folder = waiting.pop()
            if number >= len(self._entries) or number in seen:
                continue
            seen.add(number)
            entry = self._entries[number]
            path = folder + entry.name.replace("/", "_")
            waiting += [(entry.left, folder), (entry.right, folder)]
            if entry.kind == STORAGE:
                waiting.append((entry.child, f"{path}/"))
            yield path, entry


def _numbers(data: bytes) -> array[int]:
    """Little-endian numbers of 32 bits."""
    numbers = array("I", data[: len(data) // 4 * 4])
    if struct.pack("=I", 1) != struct.pack("<I", 1):
        numbers.byteswap()
    return numbers
