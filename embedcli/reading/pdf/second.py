"""pypdf, which is asked what pdfium cannot load or does not tell. It is not believed where it invents text.

In: an open binary file. Out: its pages and title, and what fonts a page has. Not here: pdfium (document.py).
"""

from __future__ import annotations

import functools
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from embedcli.reading.pdf.judge import Page, honest
from embedcli.records import Beat

MOST_NESTING = 8

FOREIGN_ERRORS: tuple[type[Exception], ...] = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError),
    *(NotImplementedError, RecursionError, EOFError, struct.error, zlib.error),
)
"""What pypdf lets out for broken files besides its own classes."""

_GLYPH_NAMES = re.compile(r"/g\d+|/uni[0-9A-Fa-f]{4}|\(cid:\d+\)")
_PROGRAMS = ("/FontFile", "/FontFile2", "/FontFile3")


def pypdf_errors() -> tuple[type[Exception], ...]:
    """All that pypdf raises for a broken file; memory and input errors are not among them."""
    from pypdf import errors

    return (errors.PyPdfError, errors.DependencyError, errors.DeprecationError, *FOREIGN_ERRORS)


class SecondReader:
    """pypdf, opened when it is first asked."""

    def __init__(self, file: BinaryIO, beat: Beat) -> None:
        self._file = file
        self._beat = beat

    @functools.cached_property
    def _reader(self) -> Any:
        """The opened document, or None."""
        self._beat(0)
        import pypdf  # slow to import, and one file in twenty needs it

        try:
            reader = pypdf.PdfReader(self._file)
            len(reader.pages)
        except pypdf_errors():
            return None
        return reader

    def title(self) -> str | None:
        """The raw title, if it has one."""
        try:
            metadata = self._reader.metadata if self._reader else None
            return metadata.title or None if metadata else None
        except pypdf_errors():
            return None

    def pages(self) -> Iterator[Page]:
        page_count = len(self._reader.pages) if self._reader else 0
        for index in range(page_count):
            self._beat(index + 1)
            yield self.page(index, page_count=page_count)

    def page(self, index: int, *, page_count: int) -> Page:
        """One page; pypdf leaves bad pages out, and without the true `page_count` its numbers would shift."""
        try:
            if self._reader is None or len(self._reader.pages) != page_count:
                return Page(reason="damaged")
            return _second_opinion(self._reader.pages[index])
        except pypdf_errors():
            return Page(reason="damaged")

    def has_bare_wide_font(self, index: int) -> bool:
        """Whether a page has a font of two-byte codes that is not embedded; True where nobody can tell."""
        try:
            return self._reader is None or any(map(_is_bare, _wide_fonts(self._reader.pages[index])))
        except pypdf_errors():
            return True

    def is_portfolio(self) -> bool:
        """Whether a viewer shows the files within instead of the pages."""
        try:
            collection = self._reader.trailer["/Root"].get("/Collection") if self._reader else None
            return collection is not None and collection.get_object().get("/View") != "/H"
        except pypdf_errors():
            return False

    def fonts_without_map(self, index: int) -> frozenset[str]:
        """The names of a page's embedded fonts whose codes are numbers of glyphs, of unknown characters."""
        try:
            fonts = _wide_fonts(self._reader.pages[index]) if self._reader else ()
            return frozenset(str(font.get("/BaseFont", "")).lstrip("/") for font in fonts if _has_no_map(font))
        except pypdf_errors():
            return frozenset()


def _second_opinion(page: Any) -> Page:
    if page.get_contents() is None:
        return Page()
    text = page.extract_text().encode("utf-8", "ignore").decode("utf-8")
    if not text or text.isspace():
        return Page(reason="damaged")
    if _GLYPH_NAMES.search(text) or any(map(_is_bare, _wide_fonts(page))):
        return Page(reason="garbled")  # pypdf turned a Japanese manual into Greek
    return honest(text)


def _wide_fonts(page: Any) -> list[Any]:
    """Fonts of two-byte codes in the page's resources, and in those of the forms drawn on it."""
    return list(_wide_fonts_in(inner(page, "/Resources"), depth=0))


def number_of(reference: Any) -> int:
    """The number of the object that a reference of pypdf leads to; 0 of what is no reference."""
    return int(getattr(reference, "idnum", 0))


def inner(dictionary: Any, key: str) -> Any:
    """The dictionary within a dictionary; an empty one where there is none."""
    found = dictionary.get(key)
    found = found.get_object() if found is not None else None
    return found if hasattr(found, "raw_get") else {}


def _wide_fonts_in(resources: Any, *, depth: int) -> Iterator[Any]:
    for reference in inner(resources, "/Font").values():
        font = reference.get_object()
        if "/DescendantFonts" in font:
            yield font
    for reference in inner(resources, "/XObject").values() if depth < MOST_NESTING else ():
        form = reference.get_object()
        if form.get("/Subtype") == "/Form":
            yield from _wide_fonts_in(inner(form, "/Resources"), depth=depth + 1)


def _is_bare(font: Any) -> bool:
    """Not embedded."""
    for descendant in font["/DescendantFonts"].get_object():
        descriptor = inner(descendant.get_object(), "/FontDescriptor")
        if not any(key in descriptor for key in _PROGRAMS):
            return True
    return False


def _has_no_map(font: Any) -> bool:
    return font.get("/Encoding") in ("/Identity-H", "/Identity-V") and "/ToUnicode" not in font and not _is_bare(font)
