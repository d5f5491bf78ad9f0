"""What no cut may part: a heading and what it heads, a table's header row and its first row.

In: a document. Out: for a window of its text, the spans inside which no chunk should end. Not here: where else a
chunk may end (chunker.py).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from embedcli.records import Document

Span = tuple[int, int]
"""A cut at `place` parts it when start < place <= end."""

LONGEST_LOOK = 1_000
"""Characters of a heading's line, of a line drawn under it, and of the blanks after it."""

_ADORNMENT = re.compile(rf"[ \t]{{0,9}}([!-/:-@\[-`{{-~])\1{{0,{LONGEST_LOOK}}}[ \t]{{0,9}}(?:\n|\Z)")
_LINE = re.compile(rf"[^\n]{{0,{LONGEST_LOOK}}}\n?")
_BLANKS = re.compile(rf"\s{{0,{LONGEST_LOOK}}}")

_IN_SEPARATOR = re.compile(r"\|(?=[ \t]?[-:])")  # begins with a letter that can be searched for: most lines have none
_SEPARATOR = re.compile(r"[ \t>]*(?:\|[ \t]*)?:?-+:?[ \t]*(?:[|+][ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_IN_GRID_SEPARATOR = re.compile(r"\+(?==)")
_GRID_SEPARATOR = re.compile(r"[ \t]*\+(?:=+\+)+[ \t]*$")
LONGEST_GRID_HEADER = 20
"""Lines of a grid table's header that are looked at."""


class Together:
    """The spans of one document, in order and apart."""

    def __init__(self, document: Document) -> None:
        self._spans = _merged(sorted([*_heading_spans(document), *_table_spans(document.text)]))
        self._ends = [end for _, end in self._spans]

    def spans(self, low: int, high: int) -> list[Span]:
        """Those that a cut after `low` and up to `high` could part."""
        found: list[Span] = []
        for index in range(bisect_right(self._ends, low), len(self._spans)):
            if self._spans[index][0] >= high:
                break
            found.append(self._spans[index])
        return found


def parting(spans: list[Span], place: int) -> Span | None:
    """The span that a cut at `place` would part."""
    return next((span for span in spans if span[0] < place <= span[1]), None)


def _merged(spans: list[Span]) -> list[Span]:
    """What begins where another ends goes with it: a heading over a heading, or over a table."""
    merged: list[Span] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _heading_spans(document: Document) -> Iterator[Span]:
    """From each heading to the first visible character of what it heads."""
    for offset, _ in document.sections:
        yield offset, _end_of_heading(document.text, offset)


def _end_of_heading(text: str, start: int) -> int:
    """Past the line of words, lines drawn over and under it, and blanks."""
    over = _ADORNMENT.match(text, start)
    line = _end(_LINE, text, over.end() if over else start)
    under = _ADORNMENT.match(text, line)
    return _end(_BLANKS, text, under.end() if under else line)


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return match.end() if match else start


def _table_spans(text: str) -> Iterator[Span]:
    """From each header to the first row: `a | b` over `--- | ---`, or what stands over `+===+===+`."""
    if "|" not in text:
        return
    for start, end in _lines_with(_IN_SEPARATOR, text):
        if _SEPARATOR.match(text[start:end]) and _is_row(text, end + 1):
            header = _header_start(text, start)
            if header is not None:
                yield header, end + 1
    for start, end in _lines_with(_IN_GRID_SEPARATOR, text) if "+=" in text else ():
        if _GRID_SEPARATOR.match(text[start:end]) and _is_row(text, end + 1):
            yield _grid_start(text, start), end + 1


def _header_start(text: str, separator: int) -> int | None:
    """The row over a separator, with a line over it; None if it is not the first one, or no row."""
    header = _line_before(text, separator)
    if not separator or "|" not in text[header:separator]:
        return None
    above = _line_before(text, header)
    if header and _SEPARATOR.match(text[above : header - 1]):
        header, above = above, _line_before(text, above)
    return header if "|" not in text[above:header] else None


def _line_before(text: str, start: int) -> int:
    return text.rfind("\n", 0, max(0, start - 1)) + 1


def _lines_with(mark: re.Pattern[str], text: str) -> Iterator[Span]:
    """Start and end of each line that holds the mark, once."""
    end = -1
    for match in mark.finditer(text):
        if match.start() > end:
            start = text.rfind("\n", 0, match.start()) + 1
            end = text.find("\n", match.start())
            end = end if end >= 0 else len(text)
            yield start, end


def _is_row(text: str, start: int) -> bool:
    end = text.find("\n", start)
    return text.find("|", start, end if end >= 0 else len(text)) >= 0


def _grid_start(text: str, separator: int) -> int:
    """The line of `+---+` that a grid table begins with."""
    start = separator
    for _ in range(LONGEST_GRID_HEADER):
        before = _line_before(text, start)
        if start == 0 or text[before:start].lstrip()[:1] not in {"|", "+"}:
            break
        start = before
    return start
