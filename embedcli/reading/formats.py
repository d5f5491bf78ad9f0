"""An open file -> a Document: one function a format.

In: an open binary file and its name. Out: its text, with pages or headings where the format has them, or
UnreadableSource. Not here: opening files and their errors (sources/walk.py), limits of time and memory
(pool.py), decoding (text/decode.py) and clean-up (text/clean.py), PDF (pdf/document.py),
Markdown (text/markdown.py).

What a file is, its content says first: whatever begins with `%PDF-` is a PDF, and kinds.py knows office files
and archives. After that its suffix: a `.pdf` that is none inside (a login page, half a download) is `damaged`,
since whoever stored it expects a PDF's text; anything else is text if it decodes. A new format of plain text is
one function and its suffixes in `_BY_SUFFIX`, any other a line in kinds.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from embedcli.errors import UnreadableSource
from embedcli.reading.kinds import reader_of
from embedcli.reading.office.notebook import read_notebook
from embedcli.reading.office.subtitles import read_subtitles
from embedcli.reading.office.tables import read_csv
from embedcli.reading.text.blocks import as_it_stands
from embedcli.reading.text.clean import clean
from embedcli.reading.text.decode import decode
from embedcli.reading.text.markdown import LONGEST_HEADING, Heading, front_matter, headings
from embedcli.records import Beat, Document

_PDF_MAGIC = b"%PDF-"

_ADORNMENT = r"(?P<{}>(?P<{}>[!-/:-@\[-`{{-~])(?P={}){{2,}}+)[ \t]*"
_RST = re.compile(
    rf"^(?:{_ADORNMENT.format('over', 'over_mark', 'over_mark')}\n[ \t]*)?"
    rf"(?P<words>[^\s].*)\n{_ADORNMENT.format('under', 'under_mark', 'under_mark')}$",
    re.MULTILINE,
)


def read(file: BinaryIO, *, name: str, beat: Beat, with_forms: bool = True) -> Document:
    """The document in an open file; `name` gives the suffix. For `beat` and `with_forms` see pdf.read_pdf."""
    is_pdf = file.read(len(_PDF_MAGIC)) == _PDF_MAGIC
    file.seek(0)
    suffix = PurePosixPath(name).suffix.lower()
    if is_pdf or suffix == ".pdf":
        return _read_pdf(file, beat, with_forms=with_forms)
    beat(0)
    reader = reader_of(file, suffix)
    return reader(file, beat) if reader is not None else _read_text(file.read(), suffix)


def _read_text(data: bytes, suffix: str) -> Document:
    text = clean(decode(data), pdf=False)
    if not text or text.isspace():
        raise UnreadableSource("empty")
    if suffix in _STRUCTURED:
        return _STRUCTURED[suffix](text)
    return as_it_stands(text, _BY_SUFFIX.get(suffix, _plain))


def _read_pdf(file: BinaryIO, beat: Beat, *, with_forms: bool) -> Document:
    from embedcli.reading.pdf.document import read_pdf  # loads pdfium; a folder of text never needs it

    if not file.read(1):
        raise UnreadableSource("empty")
    file.seek(0)
    return read_pdf(file, beat=beat, with_forms=with_forms)


def _plain(text: str) -> Document:
    return Document(text)


def _markdown(text: str) -> Document:
    start, title = front_matter(text)
    return _with_headings(text, headings(text, start), otherwise=title)


def _restructured(text: str) -> Document:
    return _with_headings(text, _restructured_headings(text))


_BY_SUFFIX: dict[str, Callable[[str], Document]] = {
    ".md": _markdown,
    ".markdown": _markdown,
    ".rst": _restructured,
    ".rest": _restructured,
}
_STRUCTURED: dict[str, Callable[[str], Document]] = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".xls"), read_csv),
    ".ipynb": read_notebook,
    **dict.fromkeys((".srt", ".vtt"), read_subtitles),
}
"""Of text that is not to be read as it stands; these leave data out themselves, where they know what is a word. Many a
`.xls` is a table of text."""


def _with_headings(text: str, headings: Iterator[Heading], *, otherwise: str | None = None) -> Document:
    """Sections are paths of headings; the title is the first heading of the first level, or else `otherwise`."""
    title: str | None = None
    path: list[tuple[int, str]] = []
    sections: list[tuple[int, str]] = []
    for offset, level, words in headings:
        if title is None and level == 1:
            title = words
        while path and path[-1][0] >= level:
            path.pop()
        path.append((level, words))
        sections.append((offset, " > ".join(words for _, words in path)))
    return Document(text, title=title or otherwise, sections=tuple(sections))


def _restructured_headings(text: str) -> Iterator[Heading]:
    """Underlined, or over- and underlined, words; each new kind of line is one level deeper."""
    levels: dict[tuple[str, bool], int] = {}
    end_of_last = 0
    for match in _RST.finditer(text):
        over, under, words = match["over"], match["under"], match["words"].strip()
        start = match.start()
        line_before = text[text.rfind("\n", 0, max(start - 1, 0)) + 1 : start]
        stands_apart = not line_before.strip() or start - 1 == end_of_last
        long_enough = len(under) >= min(len(words), 4)
        if not stands_apart or not long_enough or (over and over != under):
            continue
        end_of_last = match.end()
        kind = (under[0], bool(over))
        level = levels.setdefault(kind, len(levels) + 1)
        yield start, level, " ".join(words[:LONGEST_HEADING].replace("`", "").replace("*", "").split())
