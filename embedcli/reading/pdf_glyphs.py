"""The characters of one loaded page: what they are and where they stand.

In: a page of pdfium. Out: its text with one code point a character of pdfium's list, so that an index into the text
is an index for pdfium, and boxes turned so that the writing runs to the right. Not here: mending it (pdf_text.py).
"""

from __future__ import annotations

import ctypes
import math
from typing import NamedTuple

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from embedcli.reading.hyphens import CUT

MISSING = "\0"
"""Stands in the text for a character that pdfium knows no code point for."""

FONT_NAME_BYTES = 200


class Box(NamedTuple):
    """Where a character stands, in points: `start` and `end` along the line, `low` and `high` across it."""

    start: float
    end: float
    low: float
    high: float


class Glyphs:
    """The text of a page as pdfium orders it under the page's present rotation. Close it."""

    def __init__(self, page: pdfium.PdfPage) -> None:
        self.raw = page.get_textpage()
        self.count = int(pdfium_c.FPDFText_CountChars(self.raw))
        self.text = self._text()
        self._sides = (ctypes.c_double(), ctypes.c_double(), ctypes.c_double(), ctypes.c_double())
        self._rectangle = pdfium_c.FS_RECTF()
        self.quarter = 0
        """How often a quarter to the right most of the text is turned in the page's own space: boxes follow it."""

    def close(self) -> None:
        self.raw.close()

    def _text(self) -> str:
        if self.count <= 0:
            return ""
        buffer = (ctypes.c_ushort * (2 * self.count + 2))()
        length = max(pdfium_c.FPDFText_GetText(self.raw, 0, self.count, buffer) - 1, 0)
        text = bytes(memoryview(buffer)[:length]).decode("utf-16-le", "replace")
        if len(text) == self.count and "\ufffd" not in text:
            return text.replace("\ufffe", CUT)
        return "".join(map(self._character, range(self.count)))

    def _character(self, index: int) -> str:
        code = int(pdfium_c.FPDFText_GetUnicode(self.raw, index))
        if code == ord(CUT) and pdfium_c.FPDFText_IsHyphen(self.raw, index) != 1:
            return MISSING
        return chr(code) if code < 0x110000 else MISSING

    def text_within(self, bounds: tuple[float, float, float, float]) -> str:
        """The text that pdfium finds within (left, bottom, right, top); it may lack line ends."""
        left, bottom, right, top = bounds
        size = 2 * self.count + 2
        buffer = (ctypes.c_ushort * size)()
        length = pdfium_c.FPDFText_GetBoundedText(self.raw, left, top, right, bottom, buffer, size)
        return bytes(memoryview(buffer)[: max(length, 0)]).decode("utf-16-le", "ignore").rstrip("\0")

    def box(self, index: int) -> Box:
        """The glyph's own outline."""
        left, right, bottom, top = self._sides
        pdfium_c.FPDFText_GetCharBox(self.raw, index, left, right, bottom, top)
        return self.turned(left.value, bottom.value, right.value, top.value)

    def line_box(self, index: int) -> Box:
        """From the font's lowest to its highest point: equal for all characters of a font on one line."""
        found = self._rectangle
        pdfium_c.FPDFText_GetLooseCharBox(self.raw, index, found)
        return self.turned(found.left, found.bottom, found.right, found.top)

    def turned(self, left: float, bottom: float, right: float, top: float) -> Box:
        """A box of the page's own space as it lies about the writing."""
        if self.quarter == 0:
            return Box(left, right, bottom, top)
        if self.quarter == 1:
            return Box(-top, -bottom, left, right)
        if self.quarter == 2:
            return Box(-right, -left, -top, -bottom)
        return Box(bottom, top, -right, -left)

    def origin(self, index: int) -> tuple[float, float]:
        x, y, *_ = self._sides
        pdfium_c.FPDFText_GetCharOrigin(self.raw, index, x, y)
        return x.value, y.value

    def quarter_of(self, index: int) -> int:
        """How often a quarter to the right this character is turned in the page's own space, 0 to 3."""
        return round(pdfium_c.FPDFText_GetCharAngle(self.raw, index) / (math.pi / 2)) % 4

    def has_no_code(self, index: int) -> bool:
        """Whether pdfium knew no code point, and gave the number that the font has for the glyph."""
        return bool(pdfium_c.FPDFText_HasUnicodeMapError(self.raw, index) == 1)

    def font_name(self, index: int) -> str:
        buffer = ctypes.create_string_buffer(FONT_NAME_BYTES)
        flags = ctypes.c_int()
        length = pdfium_c.FPDFText_GetFontInfo(self.raw, index, buffer, FONT_NAME_BYTES, flags)
        return buffer.raw[: max(min(length, FONT_NAME_BYTES) - 1, 0)].decode("utf-8", "replace")
