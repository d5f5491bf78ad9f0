"""JSON and XML -> a Document of lines such as `part.torque: 12 Nm`; of a drawing (.svg) its words, of a workbook in
XML its rows.

In: the text of a JSON file, or the bytes of an XML file. Out: a line for each value, led by the names above it, records
apart from each other; sentences with marks inside them whole; lists of numbers on one line, where they are left out as
data if they are long. What is broken is read as it stands. Not here: tables (tables.py), notebooks (notebook.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from embedcli.errors import UnreadableSource
from embedcli.reading.office.tables import led_lines
from embedcli.reading.office.xml_events import SEPARATOR, Attributes, Handler, attribute, parse_all
from embedcli.reading.text.blocks import LINE, PARAGRAPH, Blocks, as_it_stands
from embedcli.reading.text.clean import clean
from embedcli.reading.text.declared import decode_page
from embedcli.records import Beat, Document

MOST_JSON_CHARACTERS = 64 << 20
MOST_NAMES = 6
"""Of a path only the last few: no reader needs more, and a hostile file has a million."""
UNDECIDED_CHILDREN = 20

Line = tuple[str, str]  # gap before it, text

_PAGE_INSIDE = re.compile(
    r"</(?:p|div|a|li|[ou]l|span|b|i|u|em|strong|t[drh]|table|h[1-6]|code|pre|font|center|blockquote)\s*>|<(?:br|p)\s*/?>",
    re.IGNORECASE,
)


_WORKBOOK = '"urn:schemas-microsoft-com:office:spreadsheet"'
HEAD_CHARACTERS = 4096
SHEET_LEVEL = 2
"""Not 1: the first heading of that level would be the title."""
MOST_COLUMNS = 16_384
_ABOUT_XML = frozenset({"xmlns", "xml", "xsi", "xlink"})
"""Prefixes of attributes that speak of the file, not of what is in it."""


class _Object(list[tuple[str, Any]]):
    """A JSON object as pairs: a key may stand twice."""


def read_json(text: str) -> Document:
    """The document in the cleaned text of a .json."""
    value = _parsed(text) if len(text) <= MOST_JSON_CHARACTERS else None
    return _of_values(text, None if value is None else [value])


def read_json_lines(text: str) -> Document:
    """The document in the cleaned text of a .jsonl: each line is a record."""
    values = [_parsed(line) for line in text.split("\n") if line.strip()]
    return _of_values(text, None if None in values else values)


def _parsed(text: str) -> Any:
    """None for broken JSON, and for a lone null. Numbers stay as they are written."""
    try:
        return json.loads(
            text, object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number, parse_constant=_Number
        )
    except (ValueError, RecursionError):
        return None


class _Number(str):
    """A number as it is written."""


def _of_values(text: str, values: list[Any] | None) -> Document:
    if values is None:
        return as_it_stands(text)
    blocks = Blocks()
    for value in values:
        for gap, line in _json_lines(value):
            blocks.add(line, gap=gap)
    return blocks.document()


def _json_lines(value: Any) -> Iterator[Line]:
    """Without recursion; an object begins a new paragraph."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), value)]
    gap = PARAGRAPH
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, _Object):
            gap = PARAGRAPH
            waiting += [((*path, key)[-MOST_NAMES:], inner) for key, inner in reversed(value)]
            continue
        if isinstance(value, list) and not _is_flat(value):
            waiting += [(path, inner) for inner in reversed(value)]
            continue
        words = _shown(value)
        if words:
            yield gap, f"{'.'.join(path)}: {words}" if path else words
            gap = LINE


def _is_flat(value: list[Any]) -> bool:
    """A list of single values, or of lists of numbers, as coordinates are."""
    inner = [
        item
        for part in value
        for item in (part if isinstance(part, list) and not isinstance(part, _Object) else [part])
    ]
    if any(isinstance(item, list) for item in inner):
        return False
    return all(isinstance(item, _Number) for item in inner) or not any(isinstance(part, list) for part in value)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        inner = [item for part in value for item in (part if isinstance(part, list) else [part])]
        separator = "," if all(isinstance(item, _Number) for item in inner) else ", "
        return separator.join(word for item in inner if (word := _shown(item)))
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else _plain(value)


def _plain(value: str) -> str:
    """A value may be a web page, or a part of one."""
    if "<" not in value or not _PAGE_INSIDE.search(value):
        return value.strip()
    from embedcli.reading.office.html import page_text  # loads a parser that most such files never need

    return page_text(value)


def read_xml(data: bytes, beat: Beat) -> Document:
    """The document in the bytes of an .xml. Raises UnreadableSource."""
    text = decode_page(data)
    values: _Workbook | _Values = _Workbook() if _WORKBOOK in text[:HEAD_CHARACTERS] else _Values()
    try:
        parse_all(text, values, beat=beat)
    except UnreadableSource:  # half a file, or a template of one
        return as_it_stands(clean(text, pdf=False))
    blocks = Blocks()
    if isinstance(values, _Workbook):
        for name, rows in values.sheets:
            if any(map(any, rows)):
                blocks.heading(name, level=SHEET_LEVEL)
                blocks.add_lines(led_lines(rows))
    else:
        for gap, line in values.lines:
            blocks.add(line, gap=gap)
    return blocks.document()


class _Workbook(Handler):
    """Handler of a workbook in the XML of Excel 2003, which many a report still is: the rows of its visible sheets."""

    def __init__(self) -> None:
        super().__init__(
            {
                "Worksheet": self._start_sheet, "Row": self._start_row, "Cell": self._start_cell,
                "Data": self._start_data, "Visible": self._start_words, "Comment": lambda _: True,
            },
            {"Worksheet": self._end_sheet, "Data": self._end_data, "Visible": self._end_visible},
        )  # fmt: skip
        self.sheets: list[tuple[str, list[list[str]]]] = []
        self._words: list[str] = []
        self._column = 0
        self._kind = ""
        self._is_hidden = False

    def text(self, characters: str) -> None:
        self._words.append(characters)

    def _start_sheet(self, attributes: Attributes) -> None:
        self.sheets.append((attribute(attributes, "Name") or "", []))
        self._is_hidden = False

    def _end_sheet(self) -> None:
        if self._is_hidden:
            self.sheets.pop()

    def _start_row(self, attributes: Attributes) -> None:
        """A row that names its place leaves some out before it: another table may begin there."""
        rows = self.sheets[-1][1] if self.sheets else []
        if rows and (attribute(attributes, "Index") or "").isdecimal():
            rows.append([])
        rows.append([])
        self._column = 0

    def _start_cell(self, attributes: Attributes) -> None:
        place, more = attribute(attributes, "Index") or "", attribute(attributes, "MergeAcross") or ""
        self._column = min(int(place), MOST_COLUMNS) if place.isdecimal() else self._column + 1
        row = self.sheets[-1][1][-1] if self.sheets and self.sheets[-1][1] else []
        row += [""] * (self._column - len(row))
        self._column = min(self._column + (int(more) if more.isdecimal() else 0), MOST_COLUMNS)

    def _start_data(self, attributes: Attributes) -> None:
        self._kind = attribute(attributes, "Type") or ""
        self._words = []

    def _start_words(self, _attributes: Attributes) -> None:
        self._words = []

    def _end_data(self) -> None:
        words = " ".join("".join(self._words).split())
        if self._kind == "DateTime":
            words = words.partition(".")[0].removesuffix("T00:00:00").replace("T", " ")
        elif self._kind == "Boolean":
            words = "TRUE" if words == "1" else "FALSE"
        if self._kind != "Error" and self.sheets and self.sheets[-1][1] and self.sheets[-1][1][-1]:
            self.sheets[-1][1][-1][-1] = words

    def _end_visible(self) -> None:
        self._is_hidden = "Hidden" in "".join(self._words)


class _Element:
    """An element that is open: its lines so far, and its words should it be a sentence with marks inside."""

    __slots__ = ("children", "has_text", "lines", "name", "words")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[Line] = []
        self.words: list[str] | None = []  # None: it is known to hold elements only
        self.children = 0
        self.has_text = False


class _Values(Handler):
    """Handler of any XML."""

    def __init__(self) -> None:
        super().__init__({}, {})
        self.any_start, self.any_end = self._start, self._end
        self._open: list[_Element] = []
        self.lines: list[Line] = []

    def text(self, characters: str) -> None:
        element = self._open[-1] if self._open else None
        if element is not None and element.words is not None:
            element.words.append(characters)
            element.has_text = element.has_text or not characters.isspace()
        elif element is not None and not characters.isspace():
            element.lines.append((LINE, characters.strip()))

    def _start(self, name: str, attributes: Attributes) -> None:
        if self._open:
            parent = self._open[-1]
            parent.children += 1
            if parent.children > UNDECIDED_CHILDREN and not parent.has_text:
                parent.words = None
        element = _Element(name)
        self._open.append(element)
        for key, value in attributes.items():
            prefix, _, label = key.rpartition(SEPARATOR)
            if value.strip() and prefix not in _ABOUT_XML and key != "xmlns":
                element.lines.append((LINE, f"{self._path()}.{label}: {_plain(value)}"))

    def _end(self, _name: str) -> None:
        path = self._path()
        element = self._open.pop()
        words = "".join(element.words or ())
        lines = element.lines
        if element.has_text:
            own = [] if element.children else lines
            lines = [*own, (LINE, f"{path}: {_plain(' '.join(words.split()))}")]
        if element.children and lines and not element.has_text:
            lines[0] = (PARAGRAPH, lines[0][1])
        parent = self._open[-1] if self._open else None
        if parent is None:
            self.lines += lines
            return
        parent.lines += lines
        if parent.words is not None:
            parent.words.append(words)

    def _path(self) -> str:
        return ".".join(element.name for element in self._open[-MOST_NAMES:])


def _is_not_drawn(attributes: Attributes) -> bool:
    return (
        attribute(attributes, "display") == "none"
        or attribute(attributes, "visibility") == "hidden"
        or _NOT_DRAWN.search(attribute(attributes, "style") or "") is not None
    )


def read_svg(data: bytes, beat: Beat) -> Document:
    """The words of a drawing. Raises UnreadableSource; `empty` for one without."""
    words = _Words()
    parse_all(decode_page(data), words, beat=beat)
    blocks = Blocks()
    for line in words.lines:
        blocks.add(line, gap=LINE)
    return blocks.document(title=words.title)


_NOT_DRAWN = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_PAGE_BLOCKS = ("p", "div", "br", "li", "tr", "td", "th", "h1", "h2", "h3", "h4", "h5", "h6")


class _Words(Handler):
    """Handler of a drawing: a line for each of its texts, and for each part of a page in it (`foreignObject`), as
    programs for diagrams write their labels; what stands beside that in a `switch` is for viewers without pages."""

    def __init__(self) -> None:
        never: dict[str, Callable[[Attributes], bool | None]] = dict.fromkeys(
            ("style", "script", "metadata"), lambda _: True
        )
        super().__init__(
            {
                **never,
                "text": self._start,
                "tspan": self._part,
                "title": self._start,
                "desc": self._start,
                "foreignObject": self._start,
                "g": self._start_group,
                **dict.fromkeys(("svg", "a"), _is_not_drawn),
                **dict.fromkeys(_PAGE_BLOCKS, self._block),
                "switch": self._start_switch,
            },
            {
                "text": self._end,
                "title": self._end_title,
                "desc": self._end,
                "foreignObject": self._end_page,
                "g": self._end_group,
                **dict.fromkeys(_PAGE_BLOCKS, self._end_block),
                "switch": self._end_switch,
            },
        )
        self._switches: list[bool] = []  # of the open ones, whether what is shown of it was read
        self._groups: list[bool] = []  # of the open ones, whether it asks what a viewer can do: all do by now
        self._open = 0
        self._words: list[str] = []
        self.lines: list[str] = []
        self.title: str | None = None

    def text(self, characters: str) -> None:
        if self._open:
            self._words.append(characters)

    def _start(self, attributes: Attributes) -> bool:
        if _is_not_drawn(attributes) or (self._switches and self._switches[-1]):
            return True
        self._open += 1
        return False

    def _part(self, attributes: Attributes) -> bool:
        """A part that has a place of its own is a word or a line of its own."""
        if {"x", "y", "dx", "dy"} & attributes.keys():
            self._words.append(" ")
        return _is_not_drawn(attributes)

    def _block(self, attributes: Attributes) -> bool:
        self._words.append(" ")
        return _is_not_drawn(attributes)

    def _end_block(self) -> None:
        self._words.append(" ")

    def _start_group(self, attributes: Attributes) -> bool:
        if _is_not_drawn(attributes):
            return True
        self._groups.append("requiredFeatures" in attributes)
        return False

    def _end_group(self) -> None:
        if self._groups.pop() and self._switches:
            self._switches[-1] = True

    def _start_switch(self, _attributes: Attributes) -> None:
        self._switches.append(False)

    def _end_switch(self) -> None:
        self._switches.pop()

    def _end_page(self) -> None:
        count = len(self.lines)
        self._end()
        if self._switches and len(self.lines) > count:
            self._switches[-1] = True

    def _end(self) -> None:
        self._open -= 1
        if not self._open:
            line, self._words = " ".join("".join(self._words).split()), []
            self.lines += [line] if line else []

    def _end_title(self) -> None:
        count = len(self.lines)
        self._end()
        if self.title is None and len(self.lines) > count:
            self.title = self.lines[-1]
