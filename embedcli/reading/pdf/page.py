"""One page of an open document: everything that is drawn on it, and nothing that is not.

In: a document of pdfium, with hints about rare things in it. Out: a Page, judged. Not here: pages that pdfium cannot
load (second.py), cleaning (text/clean.py).
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from embedcli.reading.pdf.hints import Hints
from embedcli.reading.pdf.judge import MOST_NESTING, Page, judge
from embedcli.reading.pdf.overlay import HIDDEN_KEY
from embedcli.reading.pdf.second import SecondReader
from embedcli.reading.pdf.text import read_text
from embedcli.reading.pdf.values import Box, move_to_labels, place_of_field

COMB = 1 << 24
"""The flag of a form field whose characters stand in a box each."""
LONGEST_COMB = 200
LONGEST_TYPED = 20_000
_TYPED = (pdfium_c.FPDF_ANNOT_FREETEXT, pdfium_c.FPDF_ANNOT_STAMP, pdfium_c.FPDF_ANNOT_WATERMARK)
_UNSEEN = pdfium_c.FPDF_ANNOT_FLAG_HIDDEN | pdfium_c.FPDF_ANNOT_FLAG_NOVIEW


@dataclass(frozen=True, slots=True)
class Reading:
    """A document being read: what is asked of each of its pages."""

    document: pdfium.PdfDocument
    hints: Hints
    second: SecondReader
    has_forms: bool


def read_page(reading: Reading, index: int) -> Page:
    """The page at `index`, from 0. Raises PdfiumError when it cannot be loaded."""
    page = _load(reading.document, index)
    try:
        typed, combs, fields, has_parts = "", list[str](), list[Box](), reading.hints.parts
        if reading.has_forms or (reading.hints.typed and _has_typed(page)):
            combs = list(_combs(reading.document, page)) if reading.has_forms else []
            fields = list(_fields(reading.document, page)) if reading.has_forms else []
            typed = "\r\n".join(_typed_without_looks(page)) if reading.hints.typed else ""
            pdfium_c.FPDFPage_Flatten(page, pdfium_c.FLAT_NORMALDISPLAY)
            has_parts = True
            _close(reading.document, page)  # what is drawn on a page is its text only after it is loaded anew
            page = None
            page = _load(reading.document, index)
            move_to_labels(page, fields)
        if reading.hints.layers:
            _leave_hidden_out(page)
        bare_fonts = functools.partial(reading.second.fonts_without_map, index) if reading.hints.bare_codes else None
        text, count = read_text(page, bare_fonts=bare_fonts, has_parts=has_parts)
        for comb in combs:
            text = _closed_up(text, comb)
        text = f"{text}\r\n{typed}" if text and typed else text or typed
        return judge(page, text, count, has_bare_wide_font=functools.partial(reading.second.has_bare_wide_font, index))
    finally:
        if page:
            _close(reading.document, page)  # an open page holds 270 kB


def _load(document: pdfium.PdfDocument, index: int) -> Any:
    """The page itself, not the object around it: making that costs as much as mending a page's text."""
    page = pdfium_c.FPDF_LoadPage(document.raw, index)
    if not page:
        raise pdfium.PdfiumError("no page")
    if document.formenv:
        pdfium_c.FORM_OnAfterLoadPage(page, document.formenv)
    return page


def _close(document: pdfium.PdfDocument, page: Any) -> None:
    if document.formenv:
        pdfium_c.FORM_OnBeforeClosePage(page, document.formenv)
    pdfium_c.FPDF_ClosePage(page)


def _annotations(page: Any) -> Iterator[Any]:
    for index in range(pdfium_c.FPDFPage_GetAnnotCount(page)):
        annotation = pdfium_c.FPDFPage_GetAnnot(page, index)
        if annotation:
            try:
                yield annotation
            finally:
                pdfium_c.FPDFPage_CloseAnnot(annotation)


def _has_typed(page: Any) -> bool:
    return any(pdfium_c.FPDFAnnot_GetSubtype(annotation) in _TYPED for annotation in _annotations(page))


def _typed_without_looks(page: Any) -> Iterator[str]:
    """Words typed on the page by a program that left drawing them to the viewer: every viewer does, pdfium does not."""
    for annotation in _annotations(page):
        if (
            pdfium_c.FPDFAnnot_GetSubtype(annotation) == pdfium_c.FPDF_ANNOT_FREETEXT
            and not pdfium_c.FPDFAnnot_GetFlags(annotation) & _UNSEEN
            and pdfium_c.FPDFAnnot_GetAP(annotation, pdfium_c.FPDF_ANNOT_APPEARANCEMODE_NORMAL, None, 0) <= 2
        ):
            size = min(pdfium_c.FPDFAnnot_GetStringValue(annotation, b"Contents", None, 0), LONGEST_TYPED)
            buffer = (ctypes.c_ushort * (size // 2 + 1))()
            pdfium_c.FPDFAnnot_GetStringValue(annotation, b"Contents", buffer, size)
            yield _decoded(buffer, size)


def _combs(document: pdfium.PdfDocument, page: Any) -> Iterator[str]:
    """The values of fields whose characters stand in a box each, and so come apart."""
    for annotation in _annotations(page):
        if (
            pdfium_c.FPDFAnnot_GetSubtype(annotation) == pdfium_c.FPDF_ANNOT_WIDGET
            and pdfium_c.FPDFAnnot_GetFormFieldFlags(document.formenv, annotation) & COMB
            and pdfium_c.FPDFAnnot_GetFormFieldType(document.formenv, annotation) == pdfium_c.FPDF_FORMFIELD_TEXTFIELD
        ):
            size = 2 * LONGEST_COMB + 2
            buffer = (ctypes.c_ushort * (size // 2))()
            size = min(pdfium_c.FPDFAnnot_GetFormFieldValue(document.formenv, annotation, buffer, size), size)
            value = _decoded(buffer, size).strip()
            if len(value) > 1:
                yield value


def _fields(document: pdfium.PdfDocument, page: Any) -> Iterator[Box]:
    for annotation in _annotations(page):
        if pdfium_c.FPDFAnnot_GetSubtype(annotation) == pdfium_c.FPDF_ANNOT_WIDGET:
            place = place_of_field(document.formenv, annotation)
            if place is not None:
                yield place


def _decoded(buffer: Any, size: int) -> str:
    return bytes(memoryview(buffer)).decode("utf-16-le", "ignore")[: max(size // 2 - 1, 0)].rstrip("\0")


def _closed_up(text: str, value: str) -> str:
    """The text with the first place where the characters of `value` stand apart as the value itself."""
    apart = r"\s*".join(re.escape(character) for character in value if not character.isspace())
    return re.sub(rf"(?<!\S){apart}(?!\S)", lambda _: value, text, count=1)


def _leave_hidden_out(page: Any) -> None:
    """Switch off the objects that stand in marked content of a hidden layer."""
    for index in range(pdfium_c.FPDFPage_CountObjects(page)):
        _leave_out(pdfium_c.FPDFPage_GetObject(page, index), depth=0)


def _leave_out(item: Any, *, depth: int) -> None:
    if any(_is_hidden(pdfium_c.FPDFPageObj_GetMark(item, n)) for n in range(pdfium_c.FPDFPageObj_CountMarks(item))):
        pdfium_c.FPDFPageObj_SetIsActive(item, False)
    elif pdfium_c.FPDFPageObj_GetType(item) == pdfium_c.FPDF_PAGEOBJ_FORM and depth < MOST_NESTING:
        for index in range(pdfium_c.FPDFFormObj_CountObjects(item)):
            _leave_out(pdfium_c.FPDFFormObj_GetObject(item, index), depth=depth + 1)


def _is_hidden(mark: Any) -> bool:
    value = ctypes.c_int()
    return bool(pdfium_c.FPDFPageObjMark_GetParamIntValue(mark, HIDDEN_KEY.encode(), value)) and value.value == 1
