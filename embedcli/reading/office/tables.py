"""Rows of cells -> lines that can be understood alone: `Part: Bolt; Torque: 12 Nm`. And CSV files as such tables.

In: rows of strings, an empty one for an empty cell; or the text of a .csv or .tsv. Out: a line a row, led by its
headings where the table has a header row, else the cells kept apart. Not here: workbooks (sheets.py), how lines become
a Document (text/blocks.py).

A row is taken for a header if its cells are different words, the rows below are no wider, and none of its cells stands
in its column again; _is_header knows what else it may be. Rows above it that fill fewer columns are captions. After an
empty row another table may begin; one that does not look so goes on under the headings before.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from embedcli.reading.text.blocks import Blocks, as_it_stands
from embedcli.records import Document

Row = Sequence[str]

CELL_SEPARATOR = " | "
LED_SEPARATOR = "; "
MOST_CAPTIONS = 8
ROWS_BELOW = 20
LONGEST_HEADING = 100
SNIFFED_CHARACTERS = 64_000
SNIFFED_ROWS = 50

_VALUE = re.compile(r"[\W\d_]*\d[\W\d_]*(?:[^\W\d_]{1,3}[\W_]*)?$|(?:true|false|yes|no|n/a)$", re.IGNORECASE)
"""A number, a date, an amount with its unit, a switch: what stands under a heading, and is none."""
_LABEL = re.compile(r"(?:19|20)\d\d(?:-\d\d(?:-\d\d)?)?$")
_DELIMITERS = ",;\t|"
_EXCEL_HINT = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)


def led_lines(rows: Iterable[Row]) -> Iterator[str]:
    """A line for each row that is not empty, stripped."""
    leads: list[str] = []
    for table in _tables(iter(rows)):
        head = list(islice(table, MOST_CAPTIONS + ROWS_BELOW))
        header = _header_index(head)
        if header is not None and (not leads or _begins_anew(head, header, leads)):
            yield from map(_kept_apart, head[:header])
            leads = [_lead(cell) for cell in head[header]]
            head = head[header + 1 :]
            own = True
        else:
            own = False  # under the headings of another table a row of one cell is a remark
        for row in chain(head, table):
            yield _led(leads, row) if leads and (own or _filled(row) > 1) else _kept_apart(row)


def _tables(rows: Iterator[Row]) -> Iterator[Iterator[Row]]:
    """Runs of rows without an empty one among them; each is to be used up before the next is asked for."""
    for first in rows:
        if any(first):
            yield _until_empty(first, rows)


def _until_empty(row: Row, rows: Iterator[Row]) -> Iterator[Row]:
    while any(row):
        yield row
        row = next(rows, ())


def _filled(row: Row) -> int:
    return sum(map(bool, row))


def _header_index(head: Sequence[Row]) -> int | None:
    """The place of the header row: only captions, which fill fewer columns, stand above it."""
    for index, row in enumerate(head[:MOST_CAPTIONS]):
        below = head[index + 1 : index + 1 + ROWS_BELOW]
        if below and _is_header(row, below):
            return index
        if _filled(row) > 1 and _filled(row) >= max(map(_filled, below), default=0):
            return None
    return None


def _is_header(row: Row, below: Sequence[Row]) -> bool:
    """Words, or years and dates as the headings of several columns. Where values stand right below it is one even with
    a heading twice, or with a column that has none."""
    cells = [cell.casefold() for cell in row if cell]
    labels = sum(_LABEL.match(cell) is not None for cell in cells)
    words = sum(not _is_value(cell) for cell in cells)
    if words + (labels if labels > 1 else 0) < len(cells) or not words or len(cells) < 2:
        return False
    if any(len(cell) > LONGEST_HEADING for cell in cells):
        return False
    over_values = any(_is_value(cell) for cell in below[0])
    twice = len(cells) - len(set(cells))
    missing = max(0, max(map(_filled, below)) - len(cells))
    if not over_values and (twice or missing) or missing > 1 or twice > len(cells) // 2:
        return False
    return not _recurs(row, below) and not _is_form(row, below)


def _recurs(row: Row, below: Sequence[Row]) -> bool:
    """Whether a cell, or another one like it, stands again in its column: then it is a value, no heading."""
    pairs = [(cell, other) for line in below for cell, other in zip(row, line, strict=False) if cell]
    return any(cell == other or (_LABEL.match(cell) and _LABEL.match(other)) for cell, other in pairs)


def _is_value(cell: str) -> bool:
    return len(cell) <= LONGEST_HEADING and _VALUE.match(cell) is not None


def _is_form(row: Row, below: Sequence[Row]) -> bool:
    """Two columns, the first of which names the second: `Customer: | Smith`."""
    named = [line[0] for line in (row, *below) if line]
    return _filled(row) == 2 and sum(name.endswith(":") for name in named) * 2 > len(named)


def _begins_anew(head: Sequence[Row], header: int, leads: Sequence[str]) -> bool:
    """Whether the header after an empty row heads another table: other columns, or words above values."""
    row, below = head[header], head[header + 1 :]
    other_columns = [bool(cell) for cell in row] != [bool(lead) for lead in leads]
    values = any(_is_value(cell) for line in below for cell in line)
    return header > 0 or other_columns or values


def _lead(heading: str) -> str:
    return f"{heading.rstrip(': ')}: " if heading else ""


def _led(leads: Sequence[str], row: Row) -> str:
    if len(row) > len(leads):
        leads = [*leads, *[""] * (len(row) - len(leads))]
    return LED_SEPARATOR.join([lead + cell for lead, cell in zip(leads, row, strict=False) if cell])


def _kept_apart(row: Row) -> str:
    return CELL_SEPARATOR.join([cell for cell in row if cell])


def read_csv(text: str) -> Document:
    """The document in the cleaned text of a .csv or .tsv. One without a delimiter is read as it stands."""
    hint = _EXCEL_HINT.match(text)
    delimiter = hint[1] if hint else _delimiter(text[:SNIFFED_CHARACTERS])
    if delimiter is None:
        return as_it_stands(text)
    blocks = Blocks()
    rows = _rows(text[hint.end() :] if hint else text, delimiter)
    blocks.add_lines(led_lines([" ".join(cell.split()) for cell in row] for row in rows))
    return blocks.document()


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    stream = io.StringIO(_with_whole_quotes(text, delimiter), newline="")
    return csv.reader(stream, delimiter=delimiter, skipinitialspace=delimiter != " ")


def _with_whole_quotes(text: str, delimiter: str) -> str:
    """The text with those cells quoted anew whose quotes have backslashes before them, and, quote and all, those that
    begin with a quote which has no other half at a cell's end."""
    if '"' not in text:
        return text
    end = re.escape(delimiter)
    is_tab = delimiter == "\t"
    inner = rf'(?:[^"\n]|"")*+"|"(?:[^"{end}]|"")*+' if is_tab else '(?:[^"]|"")*+'
    escaped = r'(?:[^"\\\t]|\\[^\t]|"")*+' if is_tab else r'(?:[^"\\]|\\.|"")*+'
    behind = rf" *+(?=[{end}\n]|\Z)"
    begins_quoted = re.compile(
        rf'((?:\A|[{end}\n]) *+)(?:(?:"{inner}"){behind}|"({escaped})"{behind}|("[^{end}\n]*))', re.DOTALL
    )
    return begins_quoted.sub(_quoted, text)


def _quoted(cell: re.Match[str]) -> str:
    before, escaped, loose = cell.groups()
    if escaped is not None:
        loose = escaped.replace('\\"', '"').replace('""', '"')
    return cell[0] if loose is None else '{}"{}"'.format(before, loose.replace('"', '""'))


def _delimiter(sample: str) -> str | None:
    """The one that cuts most rows into the same number of cells, more than one."""
    best: tuple[float, int] = (0.5, 1)
    found = None
    for delimiter in _DELIMITERS:
        if delimiter not in sample:
            continue
        rows = islice(_rows(sample, delimiter), SNIFFED_ROWS)
        widths = Counter(len(row) for row in rows if row)
        (width, count), total = widths.most_common(1)[0], sum(widths.values())
        if width > 1 and (count / total, width) > best:
            best, found = (count / total, width), delimiter
    return found
