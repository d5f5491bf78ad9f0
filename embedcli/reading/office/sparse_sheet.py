"""A sheet of an .xlsx that reaches far beyond what is in it -> its rows, in memory for what is in it only.

In: an open Package and the name of a sheet. Out: whether the sheet is such a one; its rows as strings, columns in which
there is nothing left out. Not here: all other sheets (sheets.py), lines of rows (tables.py).

One cell strayed to the last row and column makes a sheet of 17,000 million cells, and calamine holds them all.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import struct
from collections.abc import Iterator

from embedcli.errors import UnreadableSource
from embedcli.reading.office.package import Package, relation_target
from embedcli.reading.office.slides import box_lines
from embedcli.reading.office.xml_events import Attributes, Handler, attribute, pass_over, qualified

MOST_CELLS = 8_000_000
HEAD_BYTES = 16 << 10

_SHEET_RECORD = 156
_DIMENSION = re.compile(rb"""<(?:\w+:)?dimension\s+ref\s*=\s*["']([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})["']""")
_PLACE = re.compile(r"([A-Z]{1,3})\d+")
_NO_CODE = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.|_.|\*.')
_DATE_FORMATS = frozenset({*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)})
_EPOCHS = (datetime.datetime(1899, 12, 30), datetime.datetime(1904, 1, 1))


class SparseSheets:
    """The sheets of one workbook that are to be read from here."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._main = relation_target(package, "officeDocument") or ""
        self._book = _Book()
        if self._main.endswith(".xml") and self._main in package:
            package.parse(self._main, self._book)
        elif self._main.endswith(".bin") and self._main in package:
            self._book.sheets = _binary_sheets(package.read(self._main))
        self._relations = package.relations(self._main)
        self._strings: list[str] | None = None
        self._date_styles: set[int] = set()

    def is_one(self, sheet: str) -> bool:
        """By what the sheet says of its own size, in its first lines."""
        part = self._part(sheet)
        if part is None:
            return False
        with self._package.open(part) as stream:
            found = _DIMENSION.search(stream.read(HEAD_BYTES))
        if found is None:
            return False
        left, top, right, bottom = (_column(found[n].decode()) if n % 2 else int(found[n]) for n in (1, 2, 3, 4))
        return (right - left + 1) * (bottom - top + 1) > MOST_CELLS

    def rows(self, sheet: str) -> Iterator[list[str]]:
        """The rows with something in them; an empty one stands for any number of those."""
        part = self._part(sheet)
        if part is None:
            return
        self._prepare()
        cells = _Cells(self._strings or [], self._date_styles, _EPOCHS[self._book.from_1904])
        self._package.parse(part, cells)
        columns = sorted({column for _, row in cells.rows for column in row})
        last = 0
        for number, row in cells.rows:
            if number > last + 1:
                yield []
            last = number
            yield [row.get(column, "") for column in columns]

    def boxes(self, sheet: str) -> list[str]:
        """The texts of the boxes that are drawn over a sheet of any size; none of broken ones."""
        part, lines = self._part(sheet), list[str]()
        with contextlib.suppress(UnreadableSource):
            for relation in self._package.relations(part).values() if part is not None else ():
                if relation.kind == "drawing":
                    lines += box_lines(self._package, relation.target)
        return lines

    def _part(self, sheet: str) -> str | None:
        relation = self._relations.get(self._book.sheets.get(sheet, ""))
        return relation.target if relation is not None and relation.target in self._package else None

    def _prepare(self) -> None:
        if self._strings is not None:
            return
        strings, styles = _Strings(), _Styles()
        for relation in self._relations.values():
            if relation.kind == "sharedStrings" and relation.target in self._package:
                self._package.parse(relation.target, strings)
            elif relation.kind == "styles" and relation.target in self._package:
                self._package.parse(relation.target, styles)
        self._strings, self._date_styles = strings.found, styles.dates


def _column(letters: str) -> int:
    """A is 1."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number


def _binary_sheets(data: bytes) -> dict[str, str]:
    """The ids of the sheets by name in the main part of an .xlsb, as far as it is whole: records with their kinds and
    sizes before them, as numbers of 7 bits a byte."""
    found: dict[str, str] = {}
    place = 0
    try:
        while place < len(data):
            kind, place = _short_number(data, place)
            size, place = _short_number(data, place)
            if kind == _SHEET_RECORD:
                key, behind = _binary_string(data, place + 8)
                name, _ = _binary_string(data, behind)
                found[name] = key
            place += size
    except (struct.error, IndexError):
        pass
    return found


def _short_number(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not data[place - 1] & 0x80 or shift > 21:
            return number, place


def _binary_string(data: bytes, place: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<I", data, place)
    end = place + 4 + 2 * size
    return data[place + 4 : end].decode("utf-16-le", "replace"), end


class _Book(Handler):
    """Handler of the main part: the ids of the sheets by name, and the day that is the first."""

    def __init__(self) -> None:
        super().__init__({"sheet": self._sheet, "workbookPr": self._properties})
        self.sheets: dict[str, str] = {}
        self.from_1904 = False

    def _sheet(self, attributes: Attributes) -> None:
        self.sheets[attribute(attributes, "name") or ""] = qualified(attributes, "id") or ""

    def _properties(self, attributes: Attributes) -> None:
        self.from_1904 = (attribute(attributes, "date1904") or "0") in ("1", "true")


class _Styles(Handler):
    """Handler of the styles: the numbers of those that show a date."""

    def __init__(self) -> None:
        super().__init__({"numFmt": self._format, "cellXfs": self._start, "xf": self._style}, {"cellXfs": self._end})
        self._date_formats = set(_DATE_FORMATS)
        self._inside = False
        self._count = 0
        self.dates: set[int] = set()

    def _format(self, attributes: Attributes) -> None:
        code = _NO_CODE.sub("", attribute(attributes, "formatCode") or "").lower()
        if set(code) & set("ymdhs"):
            self._date_formats.add(_number(attribute(attributes, "numFmtId")))

    def _start(self, _attributes: Attributes) -> None:
        self._inside = True

    def _end(self) -> None:
        self._inside = False

    def _style(self, attributes: Attributes) -> None:
        if self._inside:
            if _number(attribute(attributes, "numFmtId")) in self._date_formats:
                self.dates.add(self._count)
            self._count += 1


class _Strings(Handler):
    """Handler of the shared strings, without the readings of Japanese words."""

    def __init__(self) -> None:
        super().__init__(
            {"si": self._start, "t": self._start_text, "rPh": pass_over}, {"si": self._end, "t": self._end_text}
        )
        self._words: list[str] = []
        self._in_text = False
        self.found: list[str] = []

    def text(self, characters: str) -> None:
        if self._in_text:
            self._words.append(characters)

    def _start(self, _attributes: Attributes) -> None:
        self._words = []

    def _end(self) -> None:
        self.found.append("".join(self._words))

    def _start_text(self, _attributes: Attributes) -> None:
        self._in_text = True

    def _end_text(self) -> None:
        self._in_text = False


class _Cells(Handler):
    """Handler of a sheet: (number of the row, text by column) of the rows with something in them."""

    def __init__(self, strings: list[str], date_styles: set[int], epoch: datetime.datetime) -> None:
        value = dict.fromkeys(("v", "t"), self._start_value)
        super().__init__(
            {"row": self._start_row, "c": self._start_cell, "rPh": pass_over, **value},
            {"row": self._end_row, "c": self._end_cell, "v": self._end_value, "t": self._end_value},
        )
        self._strings, self._date_styles, self._epoch = strings, date_styles, epoch
        self._row_number = self._column = 0
        self._row: dict[int, str] = {}
        self._kind = ""
        self._is_date = self._in_value = False
        self._words: list[str] = []
        self.rows: list[tuple[int, dict[int, str]]] = []

    def text(self, characters: str) -> None:
        if self._in_value:
            self._words.append(characters)

    def _start_row(self, attributes: Attributes) -> None:
        self._row_number = _number(attribute(attributes, "r")) or self._row_number + 1
        self._row, self._column = {}, 0

    def _end_row(self) -> None:
        if self._row:
            self.rows.append((self._row_number, self._row))

    def _start_cell(self, attributes: Attributes) -> None:
        place = _PLACE.match(attribute(attributes, "r") or "")
        self._column = _column(place[1]) if place else self._column + 1
        self._kind = attribute(attributes, "t") or "n"
        self._is_date = _number(attribute(attributes, "s")) in self._date_styles
        self._words = []

    def _start_value(self, _attributes: Attributes) -> None:
        self._in_value = True

    def _end_value(self) -> None:
        self._in_value = False

    def _end_cell(self) -> None:
        value = self._value("".join(self._words))
        if value:
            self._row[self._column] = " ".join(value.split())

    def _value(self, raw: str) -> str:
        if self._kind == "s":
            number = _number(raw)
            return self._strings[number] if number < len(self._strings) else ""
        if self._kind == "b":
            return "TRUE" if raw == "1" else "FALSE"
        return "" if self._kind == "e" else self._numeric(raw) if self._kind == "n" else raw

    def _numeric(self, raw: str) -> str:
        try:
            number = float(raw)
            if self._is_date:
                moment = self._epoch + datetime.timedelta(seconds=round(number * 86_400))
                if number < 1:
                    return moment.time().isoformat()
                return moment.date().isoformat() if number.is_integer() else moment.isoformat(" ")
            return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:.15g}"
        except (ValueError, OverflowError):
            return raw


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else 0
