"""Binary workbooks (.xlsb) for tests, record by record: no library writes all kinds of cells.

In: rows of cells. Out: the bytes of a file, after [MS-XLSB]. Not here: what is read out of it.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Mapping, Sequence

from tests.office_files import relations, zipped

Cell = str | int | float | bool | datetime.date | None
EPOCH = datetime.date(1899, 12, 30)
DATE_STYLE = 1
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_RELATIONS = "application/vnd.openxmlformats-package.relationships+xml"
_MAIN = "application/vnd.ms-excel.sheet.binary.macroEnabled.main"


def record(kind: int, data: bytes = b"") -> bytes:
    """Kind and size are numbers of 7 bits a byte, the lowest first; of the kind the second byte is a whole one."""
    head = bytes([kind]) if kind < 0x80 else bytes([kind & 0x7F | 0x80, kind >> 7])
    size, rest = b"", len(data)
    while True:
        size += bytes([rest & 0x7F | (0x80 if rest > 0x7F else 0)])
        rest >>= 7
        if not rest:
            return head + size + data


def string(text: str) -> bytes:
    return struct.pack("<I", len(text.encode("utf-16-le")) // 2) + text.encode("utf-16-le")


def _cell(column: int, cell: Cell, shared: list[str]) -> bytes:
    style = DATE_STYLE if isinstance(cell, datetime.date) else 0
    place = struct.pack("<II", column, style)
    if isinstance(cell, bool):
        return record(4, place + bytes([cell]))
    if isinstance(cell, datetime.date):
        return record(5, place + struct.pack("<d", (cell - EPOCH).days))
    if isinstance(cell, int):
        return record(2, place + struct.pack("<i", cell << 2 | 2))  # RK: 30 bits and "is an integer"
    if isinstance(cell, float):
        return record(5, place + struct.pack("<d", cell))
    if cell is None:
        return record(1, place)
    if cell.startswith("="):  # a formula: its result, then no formula to compute it by
        return record(8, place + string(cell[1:]) + struct.pack("<HII", 0, 0, 0))
    if len(cell) % 2:
        return record(6, place + string(cell))
    shared.append(cell)
    return record(7, place + struct.pack("<I", len(shared) - 1))


def _sheet(rows: Sequence[Sequence[Cell]], shared: list[str]) -> bytes:
    width = max(map(len, rows), default=1)
    data = record(129) + record(148, struct.pack("<4I", 0, max(len(rows) - 1, 0), 0, width - 1)) + record(145)
    for number, row in enumerate(rows):
        data += record(0, struct.pack("<IIHHBIII", number, 0, 300, 0, 0, 1, 0, len(row) - 1))
        data += b"".join(_cell(column, cell, shared) for column, cell in enumerate(row))
    return data + record(146) + record(130)


def workbook(sheets: Mapping[str, Sequence[Sequence[Cell]]], *, hidden: Sequence[str] = ()) -> bytes:
    """Texts of an odd length stand in their cells, the others are shared; one that begins with `=` is a result."""
    shared: list[str] = []
    bodies = [_sheet(rows, shared) for rows in sheets.values()]
    listed = b"".join(
        record(156, struct.pack("<II", int(name in hidden), number) + string(f"rId{number}") + string(name))
        for number, name in enumerate(sheets, start=1)
    )
    strings = b"".join(record(19, b"\0" + string(text)) for text in shared)
    xf = struct.pack("<HHHHHBBHH", 0xFFFF, 0, 0, 0, 0, 0, 0, 0, 0)
    dated = struct.pack("<HHHHHBBHH", 0xFFFF, 14, 0, 0, 0, 0, 0, 0, 0)
    styles = record(278) + record(617, struct.pack("<I", 2)) + record(47, xf) + record(47, dated) + record(618)
    parts = {f"worksheets/sheet{number}.bin": body for number, body in enumerate(bodies, start=1)}
    targets = {f"rId{n}": ("worksheet", f"worksheets/sheet{n}.bin") for n in range(1, len(bodies) + 1)}
    targets |= {"rIdS": ("sharedStrings", "sharedStrings.bin"), "rIdF": ("styles", "styles.bin")}
    return zipped(
        {
            "[Content_Types].xml": f'<Types xmlns="{_TYPES}"><Default Extension="bin" ContentType="{_MAIN}"/>'
            f'<Default Extension="rels" ContentType="{_RELATIONS}"/></Types>',
            "_rels/.rels": relations({"rId1": ("officeDocument", "xl/workbook.bin")}),
            "xl/workbook.bin": record(131) + record(143) + listed + record(144) + record(132),
            "xl/_rels/workbook.bin.rels": relations(targets),
            "xl/sharedStrings.bin": record(159, struct.pack("<II", len(shared), len(shared))) + strings + record(160),
            "xl/styles.bin": styles + record(279),
            **{f"xl/{name}": body for name, body in parts.items()},
        }
    )
