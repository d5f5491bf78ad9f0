"""Whether a page's text is what a reader of the page sees: lost, garbled, of another code page, or beside a scan.

In: a text and the loaded page it is of. Out: a Page: its text, the reason why it is left out or lacks something.
Not here: how the text is had (text.py, second.py).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pypdfium2.raw as pdfium_c

from embedcli.reading.pdf.glyphs import bounds_of_page

MOST_GARBLED = 0.1
MOST_ACCENTED = 0.4
FEWEST_LETTERS = 80
MOST_ACCENTED_SHORT = 0.7
FEWEST_LETTERS_SHORT = 20
FEWEST_LOST_OBJECTS = 5
MOST_NESTING = 8
RUSSIAN_SHARE = 0.5
MOST_STAMPED = 200
"""Visible characters: a stamp, a Bates number, an app's line. A page with more has a text of its own."""
LEAST_SCANNED = 0.75
"""Of the page's area."""
INVISIBLE = 3
"""The render mode of text that a text recognition lays over its scan."""

_COMMON = b"\x02\t\n\r" + bytes(range(0x20, 0x7F))
_NOT_GARBAGE = bytes(range(0xA0, 0x100))
_NOT_ACCENTED = bytes(range(0xC0))
_NOT_PLAIN = bytes(code for code in range(256) if not chr(code).isascii() or not chr(code).isalpha())
_ACCENTED_TO_CYRILLIC = {
    ord(bytes([code]).decode("cp1252")): bytes([code]).decode("cp1251")
    for code in range(0x80, 0x100)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x98, 0x9D)  # free in one of the two
}
_CYRILLIC = re.compile("[\u0400-\u045f]")
_RUSSIAN_FREQUENT = re.compile("[оеаинтсрвл]", re.IGNORECASE)


@dataclass(slots=True)
class Page:
    """One page as read. A reason without text: it is left out; with text: something on it could not be read.

    Neither: a blank page.
    """

    text: str = ""
    reason: str | None = None


def judge(page: Any, text: str, character_count: int, *, has_bare_wide_font: Callable[[], bool]) -> Page:
    """The page with this text. `has_bare_wide_font` is asked only when much text may be lost: it is slow."""
    blank = not text or text.isspace()
    if (blank or character_count < pdfium_c.FPDFPage_CountObjects(page)) and (
        _may_have_lost_text(page, character_count) and has_bare_wide_font()
    ):
        return Page(reason="garbled")
    if blank:
        return Page(reason="no_text" if _has_only_images(page) else None)
    judged = honest(text)
    if judged.text and len(judged.text) < 2 * MOST_STAMPED and _is_stamped_scan(page, judged.text):
        judged.reason = "no_text"
    return judged


def honest(text: str) -> Page:
    """The text, mended where that can be; or `garbled`."""
    codes = text.encode("latin-1", "ignore")  # bytes are counted sooner
    uncommon = codes.translate(None, _COMMON)
    if _is_garbled(text, uncommon):
        return Page(reason="garbled")
    if _is_wrong_code_page(text, codes, uncommon):
        text = text.translate(_ACCENTED_TO_CYRILLIC)
        if not _is_russian(text):
            return Page(reason="garbled")
    return Page(text)


def _may_have_lost_text(page: Any, character_count: int) -> bool:
    """More silent text objects than characters, in fonts that are not embedded and say nothing on this page.

    A font that does speak is mapped, and its silent objects are blanks: cells of a table still to be filled in. The
    fonts must be looked at: rows of dots as leaders are text objects without characters too.
    """
    silent: dict[str, int] = {}
    speaking: set[str] = set()
    for item, kind in _objects(page):
        if kind != pdfium_c.FPDF_PAGEOBJ_TEXT:
            continue
        font = pdfium_c.FPDFTextObj_GetFont(item)
        if pdfium_c.FPDFFont_GetIsEmbedded(font) == 0:
            name = _font_name(font)
            if _is_empty(item):
                silent[name] = silent.get(name, 0) + 1
            else:
                speaking.add(name)
    lost = sum(count for name, count in silent.items() if name not in speaking)
    return lost > FEWEST_LOST_OBJECTS and lost > character_count


def _font_name(font: Any) -> str:
    buffer = ctypes.create_string_buffer(200)
    pdfium_c.FPDFFont_GetBaseFontName(font, buffer, 200)
    return buffer.value.decode("latin-1")


def _is_empty(item: Any) -> bool:
    left, bottom, right, top = bounds_of(item)
    return right <= left and top <= bottom


def bounds_of(item: Any) -> tuple[float, float, float, float]:
    """left, bottom, right, top of an object in points; all 0 where nothing is drawn."""
    sides = [ctypes.c_float() for _ in range(4)]
    pdfium_c.FPDFPageObj_GetBounds(item, *sides)
    left, bottom, right, top = (side.value for side in sides)
    return left, bottom, right, top


def _has_only_images(page: Any) -> bool:
    kinds = {kind for _, kind in _objects(page)}
    return pdfium_c.FPDF_PAGEOBJ_IMAGE in kinds and pdfium_c.FPDF_PAGEOBJ_TEXT not in kinds


def _is_stamped_scan(page: Any, text: str) -> bool:
    """A picture of a page with few words on it or beside it, and no recognised text invisibly over it."""
    if len("".join(text.split())) > MOST_STAMPED:
        return False
    page_left, page_bottom, page_right, page_top = bounds_of_page(page)
    covered, words_seen = 0.0, False
    for index in range(pdfium_c.FPDFPage_CountObjects(page)):
        item = pdfium_c.FPDFPage_GetObject(page, index)
        inside = list(_unfold(item, depth=0))
        texts = [inner for inner, kind in inside if kind == pdfium_c.FPDF_PAGEOBJ_TEXT]
        if any(pdfium_c.FPDFTextObj_GetTextRenderMode(text) == INVISIBLE for text in texts):
            return False
        if texts:
            words_seen = True
        elif any(kind == pdfium_c.FPDF_PAGEOBJ_IMAGE for _, kind in inside):
            left, bottom, right, top = bounds_of(item)
            width = min(right, page_right) - max(left, page_left)
            height = min(top, page_top) - max(bottom, page_bottom)
            covered += max(width, 0.0) * max(height, 0.0)
    return words_seen and covered >= LEAST_SCANNED * (page_right - page_left) * (page_top - page_bottom)


def _objects(page: Any) -> Iterator[tuple[Any, int]]:
    for index in range(pdfium_c.FPDFPage_CountObjects(page)):
        yield from _unfold(pdfium_c.FPDFPage_GetObject(page, index), depth=0)


def _unfold(item: Any, *, depth: int) -> Iterator[tuple[Any, int]]:
    kind = int(pdfium_c.FPDFPageObj_GetType(item))
    yield item, kind
    if kind == pdfium_c.FPDF_PAGEOBJ_FORM and depth < MOST_NESTING:
        for index in range(pdfium_c.FPDFFormObj_CountObjects(item)):
            yield from _unfold(pdfium_c.FPDFFormObj_GetObject(item, index), depth=depth + 1)


def _is_garbled(text: str, uncommon: bytes) -> bool:
    """Control characters and U+FFFD where letters should be: the font tells no Unicode."""
    bad_count = len(uncommon.translate(None, _NOT_GARBAGE)) + text.count("\ufffd")
    return bad_count > 0 and bad_count > MOST_GARBLED * len("".join(text.split()))


def _is_wrong_code_page(text: str, codes: bytes, uncommon: bytes) -> bool:
    """Mostly accented letters: no language is over 30 %, Cyrillic read as Latin is nearly all."""
    accented_count = len(uncommon.translate(None, _NOT_ACCENTED))
    if accented_count < MOST_ACCENTED_SHORT * FEWEST_LETTERS_SHORT:
        return False
    plain_count = len(codes.translate(None, _NOT_PLAIN))
    if plain_count >= FEWEST_LETTERS and accented_count <= MOST_ACCENTED * plain_count:
        return False  # most texts: the letters need not be counted one by one
    letter_count = sum(map(str.isalpha, text))
    if letter_count >= FEWEST_LETTERS:
        return accented_count > MOST_ACCENTED * letter_count
    return letter_count >= FEWEST_LETTERS_SHORT and accented_count > MOST_ACCENTED_SHORT * letter_count


def _is_russian(text: str) -> bool:
    """Its ten commonest letters are two thirds of a text; other code pages read so have a third."""
    cyrillic = "".join(_CYRILLIC.findall(text))
    return len(_RUSSIAN_FREQUENT.findall(cyrillic)) >= RUSSIAN_SHARE * len(cyrillic) > 0
