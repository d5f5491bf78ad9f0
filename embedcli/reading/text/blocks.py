"""Blocks of text, gathered in reading order -> a Document.

In: paragraphs, rows, headings and page starts, one after the other, as a reader meets them. Out: a Document whose
text is cleaned, whose pages and sections point at their lines, and whose runs of data (data_runs.py) are left out and
counted.
Not here: how a format is taken apart (its own module), what the clean-up does (clean.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from embedcli.errors import UnreadableSource
from embedcli.reading.text.clean import clean
from embedcli.reading.text.data_runs import without_data
from embedcli.records import Document

PARAGRAPH = "\n\n"
LINE = "\n"
LONGEST_HEADING = 200

Heading = tuple[int, int, str]  # offset of its line, level from 1, words


def section_paths(headings: Iterable[Heading]) -> Iterator[tuple[int, str]]:
    """(offset, "Install > Linux") of each heading: its own words, led by those of the headings above it."""
    path: list[tuple[int, str]] = []
    for offset, level, words in headings:
        while path and path[-1][0] >= level:
            path.pop()
        path.append((level, words))
        yield offset, " > ".join(words for _, words in path)


def as_it_stands(text: str, make: Callable[[str], Document] = Document) -> Document:
    """What `make` makes of a cleaned text without its data. UnreadableSource `not_text` if it is all data."""
    text, left_out = without_data(text)
    if left_out and (not text or text.isspace()):
        raise UnreadableSource("not_text", "nothing but data")
    return replace(make(text), pages_skipped=left_out, reason="data_left_out") if left_out else make(text)


class Blocks:
    """The blocks of one document. A block's `gap` is what stands between it and the block before."""

    def __init__(self) -> None:
        self._parts: list[str] = []  # gap, text, gap, text ...
        self._headings: list[tuple[int, int, str]] = []  # index in _parts, level, words
        self._pages: list[tuple[int, int]] = []  # number, index in _parts of its first block

    def __len__(self) -> int:
        return len(self._parts) // 2

    def add(self, text: str, *, gap: str = PARAGRAPH) -> None:
        """A paragraph, or with the gap LINE a row or an item of a list; blank ones are left out."""
        text = text.strip()
        if text:
            self._parts += (gap, text)

    def add_lines(self, lines: Iterable[str]) -> None:
        """Rows that are known to be stripped and not blank: nothing is looked at twice."""
        for line in lines:
            self._parts += (LINE, line)

    def heading(self, text: str, *, level: int) -> None:
        """A paragraph that names what follows it; level 1 is the outermost."""
        words = " ".join(text.split())[:LONGEST_HEADING]
        if words:
            self._headings.append((len(self._parts) + 1, level, words))
            self.add(text)

    def section(self, name: str, *, level: int) -> None:
        """What follows belongs together under this name, which is not in the text."""
        self._headings.append((len(self._parts) + 1, level, name))

    def page(self, number: int) -> None:
        """What follows stands on the page of this 1-based number."""
        self._pages.append((number, len(self._parts) + 1))

    def text(self) -> str:
        """All blocks so far, with their gaps between them, not cleaned."""
        return "".join(self._parts[1:])

    def document(self, *, title: str | None = None, page_count: int | None = None) -> Document:
        """Raises UnreadableSource `empty` without text, `not_text` where all of it was data.

        Without a `title` the first heading of the outermost level is the title.
        """
        if not self._parts:
            raise UnreadableSource("empty")
        self._parts[0] = ""
        offsets, text, left_out = self._cleaned()
        if not text or text.isspace():
            raise UnreadableSource("not_text" if left_out else "empty", "nothing but data" if left_out else "")
        headings = [
            (offsets[index], level, _line(words) or "")
            for index, level, words in self._headings
            if index < len(offsets)
        ]
        outermost = next((words for _, level, words in headings if level == 1), None)
        return Document(
            text,
            title=_line(title or "") or outermost,
            pages=tuple((number, offsets[index]) for number, index in self._pages if index < len(offsets)),
            sections=tuple(section_paths(headings)),
            page_count=page_count,
            pages_skipped=left_out,
            reason="data_left_out" if left_out else None,
        )

    def _cleaned(self) -> tuple[list[int], str, int]:
        """The offset of each part in the clean text, that text, and how many runs of data were left out of it."""
        joined = "".join(self._parts)
        text, left_out = without_data(clean(joined, pdf=False))
        parts = self._parts
        if text != joined:  # rare; a gap begins and ends with what composes with nothing, so parts are cleaned alone
            parts = [without_data(clean(part, pdf=False))[0] for part in parts]
            text = "".join(parts)
        offsets = []
        offset = 0
        for part in parts:
            offsets.append(offset)
            offset += len(part)
        return offsets, text, left_out


def _line(text: str) -> str | None:
    """A title on one line; None for a blank one."""
    return " ".join(clean(text, pdf=False).split()) or None
