"""A workbook (.xlsx, .xlsm, .xlsb, .xls, .ods) -> a Document: the rows of its visible sheets. The door of calamine.

In: an open file. Out: a section for each sheet with a line for each row (tables.py) and the texts of the boxes over it,
or UnreadableSource. Values as they are meant: 3.0 is 3, dates are ISO, a text of digits keeps its zeros. Not here: CSV
(tables.py).

calamine holds a whole sheet, its empty cells too. A workbook is refused by what its parts would unpack to, and a sheet
that reaches far beyond what is in it is read otherwise (sparse_sheet.py); the limits of the process (process.py) hold
where a file lies about its size.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import python_calamine as calamine

from embedcli.errors import UnreadableSource
from embedcli.reading.office.odf import sheet_boxes
from embedcli.reading.office.package import Package, relation_target, title_of
from embedcli.reading.office.sparse_sheet import SparseSheets
from embedcli.reading.office.tables import led_lines
from embedcli.reading.text.blocks import LINE, Blocks
from embedcli.records import Beat, Document

MOST_UNPACKED_BYTES = 512 << 20
ROWS_A_BEAT = 1_000
SHEET_LEVEL = 2
"""Not 1: the first heading of that level would be the title."""
MOST_EXACT = 1e15
"""Beyond it a float is no exact integer, and a spreadsheet shows it rounded."""

RUST_PANICS = "pyo3_runtime"
"""The module, which cannot be imported, of the error for an assertion that failed in Rust; it is no Exception."""
FOREIGN_ERRORS: tuple[type[Exception], ...] = (calamine.CalamineError, ValueError, OSError)

_RECORD = struct.Struct("<HH")
_BEGINS, _ENCRYPTED, _SHEET = frozenset({0x0809, 0x0409, 0x0209}), 0x002F, 0x0085
_FIRST_RECORDS = 32

Cell = int | float | str | bool | datetime.date | datetime.time | datetime.datetime | datetime.timedelta


def read_sheets(file: BinaryIO, *, beat: Beat, package: Package | None = None) -> Document:
    """The workbook in an open file; `package` is the same file where it is a zip archive."""
    if package is not None and package.declared_bytes() > MOST_UNPACKED_BYTES:
        raise UnreadableSource("too_large", f"would unpack to {package.declared_bytes():,} bytes")
    beat(0)
    blocks = Blocks()
    sparse = None if package is None else SparseSheets(package)
    drawn = sheet_boxes(package) if package is not None and "content.xml" in package else {}
    file.seek(0)
    try:
        with calamine.CalamineWorkbook.from_filelike(file) as workbook:
            for name in _visible(workbook):
                boxes = drawn.get(name) or (sparse.boxes(name) if sparse is not None else [])
                _add_sheet(blocks, name, _rows_of(workbook, sparse, name, beat), boxes)
    except calamine.PasswordError as error:
        raise UnreadableSource("password", str(error)) from None
    except FOREIGN_ERRORS as error:
        raise UnreadableSource("damaged", str(error)) from None
    except BaseException as error:
        if type(error).__module__ != RUST_PANICS:
            raise
        raise UnreadableSource("damaged", str(error)) from None
    title = title_of(package, relation_target(package, "core-properties")) if package is not None else None
    return blocks.document(title=title)


def is_encrypted(stream: bytes) -> bool:
    """Whether a workbook of Excel 97 or before, by the records that its stream begins with, needs a password. calamine
    only says that it knows no such format."""
    place = 0
    for number in range(_FIRST_RECORDS):
        if place + _RECORD.size > len(stream):
            return False
        kind, size = _RECORD.unpack_from(stream, place)
        if (number == 0) != (kind in _BEGINS) or kind == _SHEET:
            return False
        if kind == _ENCRYPTED:
            return True
        place += _RECORD.size + size
    return False


def _visible(workbook: calamine.CalamineWorkbook) -> list[str]:
    shown = calamine.SheetVisibleEnum.Visible
    charts = (calamine.SheetTypeEnum.ChartSheet, calamine.SheetTypeEnum.Vba)
    return [sheet.name for sheet in workbook.sheets_metadata if sheet.visible == shown and sheet.typ not in charts]


def _rows_of(
    workbook: calamine.CalamineWorkbook, sparse: SparseSheets | None, name: str, beat: Beat
) -> Iterator[list[str]]:
    beat(0)
    if sparse is not None and sparse.is_one(name):
        return sparse.rows(name)
    return _shown_rows(workbook.get_sheet_by_name(name).iter_rows(), beat)


def _add_sheet(blocks: Blocks, name: str, rows: Iterator[list[str]], boxes: list[str]) -> None:
    """An empty sheet has no section; what is drawn over one stands behind its rows."""
    lines = led_lines(rows)
    first = next(lines, None)
    if first is not None or boxes:
        blocks.heading(name, level=SHEET_LEVEL)
        blocks.add_lines([] if first is None else [first])
        blocks.add_lines(lines)
    for line in boxes:
        blocks.add(line, gap=LINE)


def _shown_rows(rows: Iterable[list[Cell]], beat: Beat) -> Iterator[list[str]]:
    for number, row in enumerate(rows):
        if number % ROWS_A_BEAT == 0:
            beat(0)
        yield [_words(cell) if cell.__class__ is str else _shown(cell) for cell in row]


def _words(cell: str) -> str:
    return " ".join(cell.split()) if cell else cell


def _shown(cell: Cell) -> str:
    """A value as text, as exact as a spreadsheet keeps it: 15 digits."""
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < MOST_EXACT else f"{cell:.15g}"
    if isinstance(cell, datetime.datetime):
        return cell.isoformat(" ", "seconds") if cell.time() != datetime.time() else cell.date().isoformat()
    if isinstance(cell, datetime.time):
        return cell.isoformat("seconds")
    if isinstance(cell, datetime.timedelta):
        return _duration(cell)
    return str(cell)


def _duration(cell: datetime.timedelta) -> str:
    """Hours past a day are not days and hours: `30:00:00`, as a sheet shows working time."""
    seconds = round(abs(cell).total_seconds())
    sign = "-" if cell < datetime.timedelta() else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
