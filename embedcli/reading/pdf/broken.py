"""Lines that pdfium breaks although they go on: it took the page for one of vertical writing.

In: the characters of a page, and its lines as indices into them. Out: rows, each of the lines that stand side by side
at one height. Not here: joining them (text.py), the order within a row of right-to-left text (rtl.py).

pdfium guesses the direction of all writing on a page from the places of its objects, and of the height of the first
one: a page of few words that begins with a flat character, a dash or a quotation mark, looks vertical to it. It
believes the guess wherever an object is a single character, so the words of a producer that places each glyph by itself
are broken between almost all of their letters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from embedcli.reading.pdf.glyphs import WIDEST_TOUCH, Box, Glyphs, share_a_line

FEWEST_CHARACTERS = 8
"""Of a line on average, its end included: a page with fewer may be broken."""
MOST_SAMPLES = 8
WIDEST_BLANK = 0.5
"""Of the line's height: what is further away is another column."""


class Part(NamedTuple):
    """The characters of a line of pdfium's, but for blanks, and where each stands."""

    inked: list[int]
    boxes: list[Box]

    @property
    def box(self) -> Box:
        starts, ends, lows, highs = zip(*self.boxes, strict=True)
        return Box(min(starts), max(ends), min(lows), max(highs))

    def goes_on_in(self, other: Part) -> bool:
        return share_a_line(self.box, other.box) and -WIDEST_TOUCH <= _gap(self.box, other.box) <= WIDEST_BLANK


def _gap(one: Box, other: Box) -> float:
    """How far `other` is behind `one`, in heights of the line."""
    height = max(one.high - one.low, other.high - other.low)
    return (other.start - one.end) / height if height > 0 else math.inf


def looks_broken(glyphs: Glyphs) -> bool:
    """Whether the lines of a page are short, and most go on in the next one: those of a table end where they end."""
    text = glyphs.text
    if len(text) >= FEWEST_CHARACTERS * text.count("\n"):
        return False
    ends = {text.find("\n", index) for index in range(0, len(text), len(text) // MOST_SAMPLES + 1)} - {-1}
    return 2 * sum(_goes_on(glyphs, end) for end in ends) > len(ends)


def _goes_on(glyphs: Glyphs, end: int) -> bool:
    """Whether the line with this end goes on in the next one."""
    text = glyphs.text
    if end < 2 or end + 1 == len(text) or not share_a_line(glyphs.line_box(end - 2), glyphs.line_box(end + 1)):
        return False
    stop = text.find("\n", end + 1)
    before = _part(glyphs, range(text.rfind("\n", 0, end) + 1, end))
    behind = _part(glyphs, range(end + 1, stop if stop >= 0 else len(text)))
    return bool(before.inked and behind.inked) and before.goes_on_in(behind)


def lines_of(text: Sequence[str]) -> Iterator[list[int]]:
    """The indices of each line, without its end and without what is empty."""
    line: list[int] = []
    for index, piece in enumerate(text):
        if piece == "\n":
            yield line
            line = []
        elif piece and piece != "\r":
            line.append(index)
    yield line


def rows(glyphs: Glyphs, lines: Iterable[Sequence[int]]) -> Iterator[list[Part]]:
    """The lines, those that go on beside each other together. None of blanks only: it is part of a break."""
    row: list[Part] = []
    for line in lines:
        part = _part(glyphs, line)
        if part.inked:
            if row and not row[-1].goes_on_in(part):
                yield row
                row = []
            row.append(part)
    if row:
        yield row


def _part(glyphs: Glyphs, line: Iterable[int]) -> Part:
    inked = [index for index in line if not glyphs.text[index].isspace()]
    return Part(inked, [glyphs.line_box(index) for index in inked])


def blanks(row: Sequence[Part]) -> Iterator[float]:
    """Where in a row a blank is between two characters."""
    before, *others = sorted(box for part in row for box in part.boxes)
    for box in others:
        if _gap(before, box) > WIDEST_TOUCH:
            yield before.end
        before = max(before, box, key=lambda one: one.end)
