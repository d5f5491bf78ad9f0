"""A PDF -> the clean text of its pages.

In: an open binary file. Out: a Document whose pages are joined by an empty line, with each page's offset and
a count of the pages left out, or lacking something, because no honest text can be had from them; or UnreadableSource.
Not here: one page (page.py), pypdf (second.py), what must be corrected before pdfium reads (overlay.py),
limits of time and memory. A page can take for ever: the caller watches the beats, kills the process and, if it hung,
reads once more without forms. MemoryError goes straight up.

pdfium reads; pypdf is asked only for what pdfium cannot load, and is believed less. Text that a detector
calls wrong (lost, garbled, of another code page) is left out: mojibake in an index is worse than a page
counted as missing.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import io
import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import BinaryIO

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from embedcli.errors import UnreadableSource
from embedcli.reading.pdf.hints import Hints, hints_of
from embedcli.reading.pdf.judge import Page
from embedcli.reading.pdf.overlay import corrected
from embedcli.reading.pdf.page import Reading, read_page
from embedcli.reading.pdf.second import SecondReader
from embedcli.reading.pdf.xfa import xfa_text
from embedcli.reading.text.clean import clean
from embedcli.reading.text.hyphens import find_spellings, mark_cuts
from embedcli.records import Beat, Document

PAGE_SEPARATOR = "\n\n"
"""Begins and ends with a character that composes with nothing, so pages in NFC joined by it are in NFC."""

MOST_IN_MEMORY_BYTES = 64 << 20
SHARED_BYTES = 1 << 20
"""What two blocks of a larger file have in common, so that no name is torn."""
LONGEST_PLACEHOLDER = 1000

TORN = b"%PDF-"
"""Stands for a file of a portfolio that cannot be taken out of it: whoever reads it finds it damaged."""

_PLACEHOLDER = re.compile(r"Please wait|not eventually replaced by the proper contents", re.IGNORECASE)


def read_pdf(file: BinaryIO, *, beat: Beat, with_forms: bool = True) -> Document:
    """The document in an open PDF. `beat` gets the page's number before each page, 0 before other slow steps.

    Pages without anything on them are simply empty: they have no offset and are not counted as skipped. A portfolio
    has no text but its files as `members`.
    """
    _start_library()
    beat(0)
    second = SecondReader(file, beat)
    source, hints = _source(file, beat)
    try:
        document = pdfium.PdfDocument(source)
    except pdfium.PdfiumError as error:
        # pdfium may report the error of the file before: a password is believed only of a file with that key
        if error.err_code in (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY) and hints.encrypted:
            raise UnreadableSource("password") from None
        return _read_pages(second.pages(), title=_clean_title(second.title() or ""), beat=beat)
    with document:
        if pdfium_c.FPDF_GetSecurityHandlerRevision(document) >= 0 and (unlocked := _unlocked(document)):
            return read_pdf(unlocked, beat=beat, with_forms=with_forms)
        title = _title(document)
        if form := _dynamic_form(document):
            return _read_pages(iter([form]), title=title, beat=beat)
        if hints.portfolio and second.is_portfolio():
            return _read_portfolio(document, title=title, beat=beat)
        pages = _pages(document, hints, second, beat, with_forms=with_forms)
        return _read_pages(pages, title=title, beat=beat)


def _unlocked(document: pdfium.PdfDocument) -> BinaryIO | None:
    """A copy without encryption of a document that opened without a password: its packed objects can be looked at."""
    copy = io.BytesIO()
    try:
        document.save(copy, flags=pdfium_c.FPDF_REMOVE_SECURITY)
        with contextlib.closing(pdfium.PdfDocument(copy.getvalue())) as plain:
            return copy if pdfium_c.FPDF_GetSecurityHandlerRevision(plain) < 0 and len(plain) == len(document) else None
    except pdfium.PdfiumError:
        return None
    finally:
        copy.seek(0)


def _source(file: BinaryIO, beat: Beat) -> tuple[bytes | BinaryIO, Hints]:
    """What pdfium reads, and what may be in it.

    The file's bytes spare a call into Python for each block that pdfium reads; a very large file is read itself.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    data = file.read(min(size, MOST_IN_MEMORY_BYTES))  # to ask for more than there is makes room for all of it first
    hints = hints_of(data)
    whole = size <= MOST_IN_MEMORY_BYTES
    while not whole and (more := file.read(MOST_IN_MEMORY_BYTES)):
        data = data[-SHARED_BYTES:] + more
        hints |= hints_of(data)
    file.seek(0)
    if hints.layers or hints.ligatures:
        data = data if whole else file.read()
        file.seek(0)
        return corrected(data, hints, beat), hints
    return data if whole else file, hints


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


@dataclass(slots=True)
class _Kept:
    numbers: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    page_count: int = 0


def _read_pages(pages: Iterator[Page], *, title: str | None, beat: Beat) -> Document:
    kept = _Kept()
    for number, page in enumerate(pages, start=1):
        kept.page_count = number
        if page.reason:
            kept.skipped[page.reason] += 1
        if page.text and not page.text.isspace():
            kept.numbers.append(number)
            kept.texts.append(mark_cuts(page.text))
    beat(0)
    return _assemble(kept, title)


def _assemble(kept: _Kept, title: str | None) -> Document:
    """Clean each page, then join: cleaning first makes the offsets exact in the final text."""
    spellings = find_spellings(kept.texts)
    pages: list[tuple[int, int]] = []
    texts: list[str] = []
    offset = 0
    for number, raw in zip(kept.numbers, kept.texts, strict=True):
        text = clean(raw, pdf=True, spellings=spellings)
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


def _pages(
    document: pdfium.PdfDocument, hints: Hints, second: SecondReader, beat: Beat, *, with_forms: bool
) -> Iterator[Page]:
    has_forms = with_forms and document.get_formtype() != pdfium_c.FORMTYPE_NONE
    if has_forms:
        has_forms = _start_forms(document)  # before the first page is loaded
    reading = Reading(document, hints, second, has_forms=has_forms)
    page_count = len(document)
    for index in range(page_count):
        beat(index + 1)
        try:
            yield read_page(reading, index)
        except pdfium.PdfiumError:
            yield second.page(index, page_count=page_count)


def _start_forms(document: pdfium.PdfDocument) -> bool:
    try:
        return bool(document.init_forms())
    except pdfium.PdfiumError:
        return False


def _dynamic_form(document: pdfium.PdfDocument) -> Page | None:
    """The text of a form that only an XFA viewer can lay out; None of any other document."""
    kind = document.get_formtype()
    if kind == pdfium_c.FORMTYPE_XFA_FULL or (
        kind == pdfium_c.FORMTYPE_XFA_FOREGROUND and len(document) == 1 and _is_placeholder(document)
    ):
        text = xfa_text(_packets(document))
        return Page(text) if text else Page(reason="no_text")
    return None


def _is_placeholder(document: pdfium.PdfDocument) -> bool:
    try:
        with contextlib.closing(document[0]) as page, contextlib.closing(page.get_textpage()) as text:
            return bool(_PLACEHOLDER.search(text.get_text_range(0, min(text.count_chars(), LONGEST_PLACEHOLDER))))
    except pdfium.PdfiumError:
        return False


def _packets(document: pdfium.PdfDocument) -> list[bytes]:
    packets = []
    for index in range(pdfium_c.FPDF_GetXFAPacketCount(document)):
        size = ctypes.c_ulong()
        pdfium_c.FPDF_GetXFAPacketContent(document, index, None, 0, size)
        buffer = ctypes.create_string_buffer(size.value)
        pdfium_c.FPDF_GetXFAPacketContent(document, index, buffer, size.value, size)
        packets.append(buffer.raw[: size.value])
    return packets


def _read_portfolio(document: pdfium.PdfDocument, *, title: str | None, beat: Beat) -> Document:
    """The files within are documents of their own: of itself a portfolio shows only a page for other viewers."""
    members = []
    for index in range(document.count_attachments()):
        beat(0)
        attachment = document.get_attachment(index)
        name = " ".join(clean(attachment.get_name(), pdf=True).split())
        try:
            members.append((name, bytes(attachment.get_data())))
        except pdfium.PdfiumError:
            members.append((name, TORN))
    if not members:
        raise UnreadableSource("no_text", "a portfolio without files")
    return Document("", title=title, page_count=0, members=tuple(members))


def _title(document: pdfium.PdfDocument) -> str | None:
    try:
        return _clean_title(document.get_metadata_value("Title"))
    except UnicodeDecodeError:
        return None


def _clean_title(title: str) -> str | None:
    return " ".join(clean(title, pdf=True).split()) or None
