"""A PDF -> the clean text of its pages. The one door of pypdfium2 and of pypdf.

In: an open binary file. Out: a Document whose pages are joined by an empty line, with each page's offset and
a count of the pages left out because no honest text can be had from them; or UnreadableSource.
Not here: limits of time and memory. A page can take for ever: the caller watches the beats, kills the
process and, if it hung, reads once more without forms. MemoryError goes straight up.

pdfium reads; pypdf is asked only for what pdfium cannot load, and is believed less. Text that a detector
calls wrong (lost, garbled, of another code page) is left out: mojibake in an index is worse than a page
counted as missing.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import logging
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, BinaryIO

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from embedcli.errors import UnreadableSource
from embedcli.reading.clean import clean, find_compounds
from embedcli.records import Document

PAGE_SEPARATOR = "\n\n"
"""Begins and ends with a character that composes with nothing, so pages in NFC joined by it are in NFC."""

SCAN_BYTES = 1 << 20
MOST_IN_MEMORY_BYTES = 64 << 20
MOST_GARBLED = 0.1
MOST_ACCENTED = 0.4
FEWEST_LETTERS = 80
MOST_ACCENTED_SHORT = 0.7
FEWEST_LETTERS_SHORT = 20
FEWEST_LOST_OBJECTS = 5
MOST_NESTING = 8
RUSSIAN_SHARE = 0.5

FOREIGN_ERRORS: tuple[type[Exception], ...] = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError),
    *(NotImplementedError, RecursionError, EOFError, struct.error, zlib.error),
)
"""What pypdf lets out for broken files besides its own classes."""

Beat = Callable[[int], None]

_NOT_GARBAGE = bytes(code for code in range(256) if code in b"\x02\t\n\r" or 0x20 <= code < 0x7F or code >= 0xA0)
_NOT_ACCENTED = bytes(range(0xC0))
_ACCENTED_TO_CYRILLIC = {
    ord(bytes([code]).decode("cp1252")): bytes([code]).decode("cp1251")
    for code in range(0x80, 0x100)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x98, 0x9D)  # free in one of the two
}
_CYRILLIC = re.compile("[\u0400-\u045f]")
_RUSSIAN_FREQUENT = re.compile("[оеаинтсрвл]", re.IGNORECASE)
_GLYPH_NAMES = re.compile(r"/g\d+|/uni[0-9A-Fa-f]{4}|\(cid:\d+\)")


def read_pdf(file: BinaryIO, *, beat: Beat, with_forms: bool = True) -> Document:
    """The document in an open PDF. `beat` gets the page's number before each page, 0 before other slow steps.

    Pages without anything on them are simply empty: they have no offset and are not counted as skipped.
    """
    _start_library()
    beat(0)
    second = _SecondReader(file, beat)
    try:
        document = pdfium.PdfDocument(_source(file))
    except pdfium.PdfiumError as error:
        if error.err_code in (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY) and _is_encrypted(file):
            raise UnreadableSource("password") from None
        return _read_pages(second.pages(), title=second.title(), beat=beat)
    with document:
        return _read_pages(_pages(document, second, beat, with_forms=with_forms), title=_title(document), beat=beat)


def _source(file: BinaryIO) -> bytes | BinaryIO:
    """The file's bytes, which spare a call into Python for each block that pdfium reads; a very large file itself."""
    data = file.read(MOST_IN_MEMORY_BYTES + 1)
    file.seek(0)
    return data if len(data) <= MOST_IN_MEMORY_BYTES else file


@functools.cache
def _start_library() -> object:
    """Give pdfium our font and no other, so that text does not depend on the host.

    User paths replace the system's. The import has already started the library, so it is stopped first.
    What is returned must outlive the library, which goes on reading it.
    """
    for name in ("pypdf", "pypdfium2"):  # what they would say of a broken file, we say once and better
        logging.getLogger(name).setLevel(logging.CRITICAL)
    keep_open = contextlib.ExitStack()
    atexit.register(keep_open.close)
    folder = keep_open.enter_context(resources.as_file(resources.files("embedcli") / "data" / "fonts"))
    folders = (ctypes.c_char_p * 2)(str(folder).encode(), None)
    settings = pdfium_c.FPDF_LIBRARY_CONFIG()
    settings.version = 2
    settings.m_pUserFontPaths = ctypes.cast(folders, type(settings.m_pUserFontPaths))
    pdfium_c.FPDF_DestroyLibrary()
    pdfium_c.FPDF_InitLibraryWithConfig(ctypes.byref(settings))
    return folders, settings


def _is_encrypted(file: BinaryIO) -> bool:
    """pdfium may report the error of the file before: a password is believed only of a file with this key."""
    file.seek(0)
    tail = b""
    while block := file.read(SCAN_BYTES):
        if b"/Encrypt" in tail + block:
            return True
        tail = block[-8:]
    return False


@dataclass(slots=True)
class _Page:
    """One page as read: its text, or the reason why it is left out. Neither: a blank page."""

    text: str = ""
    reason: str | None = None


@dataclass(slots=True)
class _Kept:
    numbers: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    page_count: int = 0


def _read_pages(pages: Iterator[_Page], *, title: str | None, beat: Beat) -> Document:
    kept = _Kept()
    for number, page in enumerate(pages, start=1):
        kept.page_count = number
        if page.reason:
            kept.skipped[page.reason] += 1
        elif page.text and not page.text.isspace():
            kept.numbers.append(number)
            kept.texts.append(page.text)
    beat(0)
    return _assemble(kept, title)


def _assemble(kept: _Kept, title: str | None) -> Document:
    """Clean each page, then join: cleaning first makes the offsets exact in the final text."""
    compounds = find_compounds(kept.texts)
    pages: list[tuple[int, int]] = []
    texts: list[str] = []
    offset = 0
    for number, raw in zip(kept.numbers, kept.texts, strict=True):
        text = clean(raw, pdf=True, compounds=compounds)
        if not text or text.isspace():  # nothing but private-use codes: a font only its own machine can read
            kept.skipped["garbled"] += 1
            continue
        pages.append((number, offset))
        texts.append(text)
        offset += len(text) + len(PAGE_SEPARATOR)
    reason = kept.skipped.most_common(1)[0][0] if kept.skipped else None
    if not texts:
        # Blank pages only: a damaged file may look so, therefore it is a failure and not the state `empty`.
        raise UnreadableSource(reason or ("no_text" if kept.page_count else "damaged"))
    return Document(
        text=PAGE_SEPARATOR.join(texts),
        title=title,
        pages=tuple(pages),
        page_count=kept.page_count,
        pages_skipped=kept.skipped.total(),
        reason=reason,
    )


def _pages(document: pdfium.PdfDocument, second: _SecondReader, beat: Beat, *, with_forms: bool) -> Iterator[_Page]:
    has_forms = with_forms and document.get_formtype() != pdfium_c.FORMTYPE_NONE
    if has_forms:
        has_forms = _start_forms(document)  # before the first page is loaded
    page_count = len(document)
    for index in range(page_count):
        beat(index + 1)
        try:
            yield _read_page(document, index, has_forms=has_forms)
        except pdfium.PdfiumError:
            yield second.page(index, page_count=page_count)


def _start_forms(document: pdfium.PdfDocument) -> bool:
    try:
        return bool(document.init_forms())
    except pdfium.PdfiumError:
        return False


def _read_page(document: pdfium.PdfDocument, index: int, *, has_forms: bool) -> _Page:
    page = document[index]
    try:
        if has_forms:  # filled values are page text only after they are drawn into it
            page.flatten()
            page.close()
            page = document[index]
        text_page = page.get_textpage()
        try:
            # Bounded: clipped to what is visible; the whole range also holds printer's marks off the page.
            return _judge(page, text_page.get_text_bounded(), text_page.count_chars())
        finally:
            text_page.close()
    finally:
        page.close()  # an open page holds 270 kB


def _judge(page: pdfium.PdfPage, text: str, character_count: int) -> _Page:
    if not text or text.isspace():
        if _has_lost_text(page, character_count):
            return _Page(reason="garbled")
        return _Page(reason="no_text" if _has_only_images(page) else None)
    if character_count < pdfium_c.FPDFPage_CountObjects(page) and _has_lost_text(page, character_count):
        return _Page(reason="garbled")
    return _honest(text)


def _honest(text: str) -> _Page:
    """The text, mended where that can be; or `garbled`."""
    if _is_garbled(text):
        return _Page(reason="garbled")
    if _is_wrong_code_page(text):
        text = text.translate(_ACCENTED_TO_CYRILLIC)
        if not _is_russian(text):
            return _Page(reason="garbled")
    return _Page(text)


def _has_lost_text(page: pdfium.PdfPage, character_count: int) -> bool:
    """More text objects in fonts that are not embedded than characters: pdfium dropped what it could not map.

    The fonts must be looked at: rows of dots as leaders are text objects without characters too.
    """
    lost = sum(
        1
        for item, kind in _objects(page)
        if kind == pdfium_c.FPDF_PAGEOBJ_TEXT
        and pdfium_c.FPDFFont_GetIsEmbedded(pdfium_c.FPDFTextObj_GetFont(item)) == 0
    )
    return lost > FEWEST_LOST_OBJECTS and lost > character_count


def _has_only_images(page: pdfium.PdfPage) -> bool:
    kinds = {kind for _, kind in _objects(page)}
    return pdfium_c.FPDF_PAGEOBJ_IMAGE in kinds and pdfium_c.FPDF_PAGEOBJ_TEXT not in kinds


def _objects(page: pdfium.PdfPage) -> Iterator[tuple[Any, int]]:
    for index in range(pdfium_c.FPDFPage_CountObjects(page)):
        yield from _unfold(pdfium_c.FPDFPage_GetObject(page, index), depth=0)


def _unfold(item: Any, *, depth: int) -> Iterator[tuple[Any, int]]:
    kind = int(pdfium_c.FPDFPageObj_GetType(item))
    yield item, kind
    if kind == pdfium_c.FPDF_PAGEOBJ_FORM and depth < MOST_NESTING:
        for index in range(pdfium_c.FPDFFormObj_CountObjects(item)):
            yield from _unfold(pdfium_c.FPDFFormObj_GetObject(item, index), depth=depth + 1)


def _is_garbled(text: str) -> bool:
    """Control characters and U+FFFD where letters should be: the font tells no Unicode."""
    bytes_latin_1 = text.encode("latin-1", "ignore")
    bad_count = len(bytes_latin_1.translate(None, _NOT_GARBAGE)) + text.count("\ufffd")
    return bad_count > 0 and bad_count > MOST_GARBLED * len("".join(text.split()))


def _is_wrong_code_page(text: str) -> bool:
    """Mostly accented letters: no language is over 30 %, Cyrillic read as Latin is nearly all."""
    if text.isascii():
        return False
    accented_count = len(text.encode("latin-1", "ignore").translate(None, _NOT_ACCENTED))
    if accented_count < MOST_ACCENTED_SHORT * FEWEST_LETTERS_SHORT:
        return False
    letter_count = sum(map(str.isalpha, text))
    if letter_count >= FEWEST_LETTERS:
        return accented_count > MOST_ACCENTED * letter_count
    return letter_count >= FEWEST_LETTERS_SHORT and accented_count > MOST_ACCENTED_SHORT * letter_count


def _is_russian(text: str) -> bool:
    """Its ten commonest letters are two thirds of a text; other code pages read so have a third."""
    cyrillic = "".join(_CYRILLIC.findall(text))
    return len(_RUSSIAN_FREQUENT.findall(cyrillic)) >= RUSSIAN_SHARE * len(cyrillic) > 0


def _title(document: pdfium.PdfDocument) -> str | None:
    try:
        return _clean_title(document.get_metadata_value("Title"))
    except UnicodeDecodeError:
        return None


def _clean_title(title: str) -> str | None:
    return " ".join(clean(title, pdf=True).split()) or None


class _SecondReader:
    """pypdf, opened when it is first asked. It is not believed where it is known to invent text."""

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
        try:
            metadata = self._reader.metadata if self._reader else None
            return _clean_title(metadata.title or "") if metadata else None
        except pypdf_errors():
            return None

    def pages(self) -> Iterator[_Page]:
        page_count = len(self._reader.pages) if self._reader else 0
        for index in range(page_count):
            self._beat(index + 1)
            yield self.page(index, page_count=page_count)

    def page(self, index: int, *, page_count: int) -> _Page:
        """One page; pypdf leaves bad pages out, and without the true `page_count` its numbers would shift."""
        try:
            if self._reader is None or len(self._reader.pages) != page_count:
                return _Page(reason="damaged")
            return _second_opinion(self._reader.pages[index])
        except pypdf_errors():
            return _Page(reason="damaged")


def pypdf_errors() -> tuple[type[Exception], ...]:
    """All that pypdf raises for a broken file; memory and input errors are not among them."""
    from pypdf import errors

    return (errors.PyPdfError, errors.DependencyError, errors.DeprecationError, *FOREIGN_ERRORS)


def _second_opinion(page: Any) -> _Page:
    if page.get_contents() is None:
        return _Page()
    text = page.extract_text().encode("utf-8", "ignore").decode("utf-8")
    if not text or text.isspace():
        return _Page(reason="damaged")
    if _GLYPH_NAMES.search(text) or _has_bare_wide_font(page):
        return _Page(reason="garbled")
    return _honest(text)


def _has_bare_wide_font(page: Any) -> bool:
    """A font of two-byte codes that is not embedded: pypdf turned a Japanese manual into Greek."""
    resources_of_page = page.get("/Resources", {})
    fonts = resources_of_page.get("/Font", {}).get_object() if resources_of_page else {}
    for reference in fonts.values():
        font = reference.get_object()
        for descendant in font.get("/DescendantFonts", ()):
            descriptor = descendant.get_object().get("/FontDescriptor", {})
            descriptor = descriptor.get_object() if descriptor else {}
            if not any(key in descriptor for key in ("/FontFile", "/FontFile2", "/FontFile3")):
                return True
    return False
