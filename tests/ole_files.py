"""Compound files (OLE) for tests, written sector by sector, and what stands in them: messages, workbooks.

In: streams by path. Out: the bytes of a file. Not here: what is read out of it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

SECTOR, MINI, CUTOFF = 512, 64, 4096
END, FREE, FAT = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD


def compound(streams: Mapping[str, bytes]) -> bytes:
    """A file with these streams; `a/b` stands in the storage `a`."""
    names: list[str] = []
    for path in streams:
        parts = path.split("/")
        names += [name for depth in range(1, len(parts) + 1) if (name := "/".join(parts[:depth])) not in names]
    sectors: list[bytes] = []
    fat: list[int] = []
    mini, mini_fat, starts = b"", [], {}

    def put(data: bytes) -> int:
        start = len(sectors)
        count = -(-len(data) // SECTOR)
        sectors.extend(data[n * SECTOR : (n + 1) * SECTOR].ljust(SECTOR, b"\0") for n in range(count))
        fat.extend([*range(start + 1, start + count), END] if count else [])
        return start if count else END

    for path, data in streams.items():
        if len(data) >= CUTOFF:
            starts[path] = put(data)
        else:
            count = -(-len(data) // MINI)
            starts[path] = len(mini_fat) if count else END
            mini_fat += [*range(len(mini_fat) + 1, len(mini_fat) + count), END] if count else []
            mini += data.ljust(count * MINI, b"\0")

    def entry(name: str, kind: int, right: int, child: int, start: int, size: int) -> bytes:
        raw = name.encode("utf-16-le")
        fields = struct.pack("<HBBIII36xIQ", len(raw) + 2, kind, 1, FREE, right, child, start, size)
        return raw.ljust(64, b"\0") + fields

    def siblings(folder: str) -> list[int]:
        return [n for n, name in enumerate(names, start=1) if name.rpartition("/")[0] == folder]

    directory = entry("Root Entry", 5, FREE, (siblings("") or [FREE])[0], put(mini), len(mini))
    for number, path in enumerate(names, start=1):
        folder, _, name = path.rpartition("/")
        following = [n for n in siblings(folder) if n > number]
        right = following[0] if following else FREE
        if path in streams:
            directory += entry(name, 2, right, FREE, starts[path], len(streams[path]))
        else:
            directory += entry(name, 1, right, siblings(path)[0], 0, 0)
    mini_start = put(struct.pack(f"<{len(mini_fat)}I", *mini_fat))
    directory_start = put(directory)
    fat_start = len(sectors)
    fat_count = 1
    while (len(fat) + fat_count) * 4 > fat_count * SECTOR:
        fat_count += 1
    fat += [FAT] * fat_count
    table = struct.pack(f"<{len(fat)}I", *fat).ljust(fat_count * SECTOR, b"\xff")
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH6x", 62, 3, 0xFFFE, 9, 6)
    header += struct.pack(
        "<9I", 0, fat_count, directory_start, 0, CUTOFF, mini_start, len(mini_fat) * 4 // SECTOR + 1, END, 0
    )
    difat = [fat_start + n for n in range(fat_count)]
    header += struct.pack("<109I", *difat, *[FREE] * (109 - len(difat)))
    return header + b"".join(sectors) + table


def message(strings: Mapping[str, str], *, sent: int = 0, **streams: bytes) -> dict[str, bytes]:
    """The streams of a message as Outlook saves it: texts by their property, `_10130102=` other properties."""
    found = {f"__substg1.0_{name}001F": text.encode("utf-16-le") for name, text in strings.items()}
    found |= {f"__substg1.0_{name[1:]}": data for name, data in streams.items()}
    found["__properties_version1.0"] = bytes(32) + struct.pack("<HHIQ", 0x40, 0x0039, 6, sent)
    return found


def scrambled(records: bytes) -> bytes:
    """Records whose contents are noise."""
    found, place = b"", 0
    while place < len(records):
        kind, size = struct.unpack_from("<HH", records, place)
        found += records[place : place + 4] + bytes((byte * 7 + 91) & 0xFF for byte in records[place + 4 :][:size])
        place += 4 + size
    return found


def workbook(
    rows: list[list[str | float]], sheet: str = "Torques", *, hidden: str = "", encrypted: bytes | None = None
) -> bytes:
    """An Excel 97 workbook (BIFF8) with one sheet, and a second one that is hidden. `encrypted`: the record that says
    how; then the content of every record but the first two is scrambled, and their kinds and sizes are not."""

    def record(kind: int, data: bytes) -> bytes:
        return struct.pack("<HH", kind, len(data)) + data

    def string(text: str, size: str) -> bytes:
        return struct.pack(f"<{size}B", len(text), 1) + text.encode("utf-16-le")

    def body(cells: list[list[str | float]]) -> bytes:
        data = record(0x809, struct.pack("<HHHHII", 0x600, 0x10, 0, 0, 0, 6))
        for y, row in enumerate(cells):
            for x, cell in enumerate(row):
                place = struct.pack("<HHH", y, x, 0)
                if isinstance(cell, str):
                    data += record(0x204, place + string(cell, "H"))
                else:
                    data += record(0x203, place + struct.pack("<d", cell))
        return data + record(0x0A, b"")

    sheets = [(sheet, 0, body(rows)), *([(hidden, 1, body([["SECRET"]]))] if hidden else [])]
    start = record(0x809, struct.pack("<HHHHII", 0x600, 5, 0, 0, 0, 6)) + record(0x42, struct.pack("<H", 1200))
    listing_bytes = sum(len(record(0x85, bytes(6) + string(name, "B"))) for name, _, _ in sheets)
    offset = len(start) + listing_bytes + len(record(0x0A, b""))
    listing = b""
    for name, state, data in sheets:
        listing += record(0x85, struct.pack("<IBB", offset, state, 0) + string(name, "B"))
        offset += len(data)
    whole = start + listing + record(0x0A, b"") + b"".join(data for _, _, data in sheets)
    if encrypted is not None:
        first = 4 + struct.unpack_from("<HH", whole)[1]
        whole = whole[:first] + record(0x86, b"") + record(0x2F, encrypted) + scrambled(whole[first:])
    return compound({"Workbook": whole.ljust(CUTOFF, b"\0")})
