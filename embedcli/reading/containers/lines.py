"""JSON lines, CSV and TSV -> Records, line by line: memory is that of a line, whatever the size of the file.

In: an open stream of bytes and a RecordRule. Out: a Record for each line, one with a `problem` (`not_json`,
`not_utf8`, `no_text`, `damaged`, `too_large`) for each that cannot be read, with the number of the line.
Not here: compression (opened.py), the fields (fields.py).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

import orjson

from embedcli.errors import UnreadableSource
from embedcli.reading.containers.fields import Fields, bad_line, has_text
from embedcli.records import Record, RecordRule

MOST_LINE_BYTES = 16 << 20
LOOK_BYTES = 1 << 16
LOOK_LINES = 100
BOM = b"\xef\xbb\xbf"
_SEPARATORS = ",;\t|"
huge = re.compile(rb"\d{19}")
"""64 bits are 19 digits or 20."""


def are_records(head: bytes, rule: RecordRule) -> bool:
    """Whether most lines at the beginning of a file, of those that are JSON, are objects with a field of text."""
    lines = [line for line in head.removeprefix(BOM).split(b"\n")[:LOOK_LINES] if line.strip()]
    if len(lines) > 1 and len(head) >= LOOK_BYTES:
        lines.pop()  # perhaps cut
    values = [value for line in lines if (value := _parsed(line)) is not None]
    return 2 * sum(has_text(value, rule) for value in values) > len(values)


def json_lines(stream: BinaryIO, rule: RecordRule) -> Iterator[Record]:
    fields = Fields(rule)
    for number, line in _numbered_lines(stream):
        if line is None:
            yield bad_line(number, "too_large")
            continue
        if line.isspace():
            continue
        row = exact(line) if huge.search(line) else _parsed(line)
        record = fields.record_of(row, number) if isinstance(row, dict) else None
        yield record or bad_line(number, _problem(line, row), line)


def _parsed(line: bytes) -> Any:
    """The value in a line; None where it is no JSON."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def exact(line: bytes) -> Any:
    """The value in a line with a number of so many digits that it may be read as a float, which holds too few of them.
    What Python's own parser finds nested too deep stays as it was read."""
    value = _parsed(line)
    try:
        return value if value is None else json.loads(line)
    except (ValueError, RecursionError):
        return value


def _problem(line: bytes, row: Any) -> str:
    if row is not None:
        return "no_text"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "not_utf8"
    return "not_json"


def _numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The lines, from 1; None for one that is too long to be held."""
    number = 0
    while line := stream.readline(MOST_LINE_BYTES):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
        whole = line.endswith(b"\n") or len(line) < MOST_LINE_BYTES
        while line and not line.endswith(b"\n") and not whole:
            line = stream.readline(MOST_LINE_BYTES)
        yield number, line if whole else None


def tables(stream: BinaryIO, rule: RecordRule, *, suffix: str) -> Iterator[Record]:
    """The rows of a CSV or TSV under the names in its first row. A row that is torn costs itself: reading goes on at
    the line behind the one where it began. Raises UnreadableSource where none of the columns is its text."""
    csv.field_size_limit(MOST_LINE_BYTES)
    source = _Lines(io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline=""))
    separator, names = _heading(source, rule, suffix)
    if not set(rule.text) & set(names):
        raise UnreadableSource("no_text", f"no column `{'`, `'.join(rule.text)}` among {', '.join(names)[:200]}")
    rows, fields = csv.reader(source, delimiter=separator, strict=True), Fields(rule)
    while True:
        number = source.number
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error:
            yield bad_line(number, "damaged", source.back(1).encode("utf-8", "surrogateescape"))
            rows = csv.reader(source, delimiter=separator, strict=True)
            continue
        source.settle()
        if cells:
            yield _row(names, cells, fields, number) or bad_line(
                number, _cell_problem(names, cells), repr(cells).encode()
            )


class _Lines:
    """The lines of a table. Those of the row that is being read are held, so that they can be given out again; a row
    of more than MOST_LINE_BYTES ends early. `number` is that of the line at which the row begins."""

    def __init__(self, text: TextIO) -> None:
        self.number = 1
        self._text = text
        self._again: deque[str] = deque()
        self._held: list[str] = []
        self._size = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._text.readline()
        if not line:
            raise StopIteration
        self._held.append(line)
        self._size += len(line)
        if self._size > MOST_LINE_BYTES and len(self._held) > 1:
            raise StopIteration
        return line

    def settle(self) -> None:
        """The row is read."""
        self.number += len(self._held)
        self._held.clear()
        self._size = 0

    def back(self, kept: int) -> str:
        """The row ends after the first `kept` lines held, which are returned; the others come again."""
        self._again.extendleft(reversed(self._held[kept:]))
        del self._held[kept:]
        lines = "".join(self._held)
        self.settle()
        return lines


def _heading(source: _Lines, rule: RecordRule, suffix: str) -> tuple[str, list[str]]:
    """What parts the names of the first row so that the text is among them, or most of them; and these names."""
    separators = "\t" if suffix in (".tsv", ".tab") else _SEPARATORS
    found = [_names(source, separator) for separator in separators]

    def goodness(number: int) -> tuple[bool, int]:
        names, _ = found[number]
        return bool(set(rule.text) & set(names)), len(names)

    best = max(range(len(found)), key=goodness)
    names, line_count = found[best]
    for _ in range(line_count):
        next(source)
    source.settle()
    return separators[best], names


def _names(source: _Lines, separator: str) -> tuple[list[str], int]:
    """The names in the first row if this parts them, and how many lines they take: one where a quote has no end."""
    rows = csv.reader(source, delimiter=separator, strict=True)
    try:
        names = next(rows, [])
        line_count = rows.line_num
    except csv.Error:
        source.back(0)
        names, line_count = next(csv.reader([next(source)], delimiter=separator)), 1
    source.back(0)
    return names, line_count


def _row(names: list[str], cells: list[str], fields: Fields, number: int) -> Record | None:
    if len(cells) > len(names) or not _are_utf8(cells):
        return None
    return fields.record_of(dict(zip(names, cells, strict=False)), number)


def _cell_problem(names: list[str], cells: list[str]) -> str:
    if not _are_utf8(cells):
        return "not_utf8"
    return "damaged" if len(cells) > len(names) else "no_text"


def _are_utf8(cells: list[str]) -> bool:
    row = "".join(cells)
    if row.isascii():
        return True
    try:
        row.encode()
    except UnicodeEncodeError:
        return False
    return True
