"""The characters of one loaded page: what they are and where they stand.

In: a page of pdfium. Out: its text with one code point a character of pdfium's list, so that an index into the text
is an index for pdfium, and boxes turned so that the writing runs to the right. Not here: mending it (text.py).
"""

from __future__ import annotations

import ctypes
import functools
import math
import struct
import sys
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, NamedTuple

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from embedcli.reading.text.hyphens import CUT

MISSING = "\0"
"""Stands in the text for a character that pdfium knows no code point for."""

FONT_NAME_BYTES = 200
LEAST_ROOM_BITS = 15
MOST_LEFT_OUT = 100
"""Characters: to look for more takes longer than to ask for each of a page, and pdfium looks through them each time."""
WIDEST_TOUCH = 0.12
"""Of the line's height: characters further apart have a blank between them."""
LEAST_SHARED = 0.5

Sides = tuple[float, float, float, float]
"""left, bottom, right, top in points."""


@functools.lru_cache(maxsize=1)
def _room(bits: int) -> tuple[Any, memoryview]:
    """An array of up to 2 ** bits UTF-16 units, and a view of it. Most pages use that of the page before them."""
    units = (ctypes.c_ushort * (1 << bits))()
    return units, memoryview(units).cast("B").cast("H")


def _characters(units: memoryview) -> str:
    """One character for each unit of UTF-16, as pdfium counts: of a pair, each half."""
    text = str(units, "utf-16-le", "surrogatepass")
    return text if len(text) == len(units) else "".join(map(chr, units))


_SIDES = (ctypes.c_double(), ctypes.c_double(), ctypes.c_double(), ctypes.c_double())
_RECTANGLE, _OTHER = pdfium_c.FS_RECTF(), pdfium_c.FS_RECTF()
"""Where pdfium, which knows one thread only, writes its answers: to make them for each page takes longer."""


_four_floats = struct.Struct("4f").unpack_from


class Box(NamedTuple):
    """Where a character stands, in points: `start` and `end` along the line, `low` and `high` across it."""

    start: float
    end: float
    low: float
    high: float


def share_a_line(one: Box, other: Box) -> bool:
    """Whether two boxes stand at one height, or one a little above the other."""
    shared = min(one.high, other.high) - max(one.low, other.low)
    return shared >= LEAST_SHARED * min(one.high - one.low, other.high - other.low)


def ink(text: str) -> str:
    """What is drawn: no blanks, no line ends."""
    return "".join(text.replace(MISSING, "").split())


def bounds_of_page(page: Any) -> Sides:
    """What of a loaded page is shown, in its own space."""
    found = pdfium_c.FS_RECTF()
    pdfium_c.FPDF_GetPageBoundingBox(page, found)
    return found.left, found.bottom, found.right, found.top


class Glyphs:
    """The text of a page as pdfium orders it under the page's present rotation. Close it."""

    def __init__(self, page: Any) -> None:
        self.raw = pdfium_c.FPDFText_LoadPage(page)
        if not self.raw:
            raise pdfium.PdfiumError("no text page")
        self.count = int(pdfium_c.FPDFText_CountChars(self.raw))
        self.bounds = bounds_of_page(page)
        self.text, self.seen = self._text()
        self.quarter = 0
        """How often a quarter to the right most of the text is turned in the page's own space: boxes follow it."""

    def close(self) -> None:
        pdfium_c.FPDFText_ClosePage(self.raw)

    def _text(self) -> tuple[str, str]:
        """The text, and what of it pdfium finds within the bounds.

        What pdfium finds within the bounds is all there is on most pages. It leaves out what stands outside, but also
        line ends where two lines have the same height in the page's space, and then the whole text is asked for.
        """
        if self.count <= 0:
            return "", ""
        units = 2 * self.count + 2
        buffer, written = _room(max(units.bit_length(), LEAST_ROOM_BITS))
        left, bottom, right, top = self.bounds
        length = pdfium_c.FPDFText_GetBoundedText(self.raw, left, top, right, bottom, buffer, units)
        seen = _characters(written[: max(length, 0)]).rstrip("\0")
        if len(seen) == self.count and (CUT not in seen or self._are_hyphens(seen)):
            return seen, seen
        length = max(pdfium_c.FPDFText_GetText(self.raw, 0, self.count, buffer) - 1, 0)
        text = _characters(written[:length]).replace("\ufffe", CUT)
        return text if len(text) == self.count else self._whole(text), seen

    def _are_hyphens(self, text: str) -> bool:
        """Whether every U+0002 is a hyphen, and none a character of that code."""
        at = text.find(CUT)
        while at >= 0 and pdfium_c.FPDFText_IsHyphen(self.raw, at) == 1:
            at = text.find(CUT, at + 1)
        return at < 0

    def _whole(self, text: str) -> str:
        """The text together with the control characters that pdfium counts and leaves out of it."""
        if not 0 < self.count - len(text) <= MOST_LEFT_OUT:
            return "".join(map(self._character, range(self.count)))
        parts: list[str] = []
        start = left_out = 0
        while start + left_out < self.count:
            end = bisect_right(range(len(text)), left_out, lo=start, key=self._left_out_before)
            index = end + left_out
            left_out = self._left_out_before(end) if end < len(text) else self.count - end
            parts += (text[start:end], *map(self._character, range(index, end + left_out)))
            start = end
        return "".join(parts)

    def _left_out_before(self, at: int) -> int:
        """How many of the characters before this place in pdfium's text it has left out."""
        return int(pdfium_c.FPDFText_GetCharIndexFromTextIndex(self.raw, at)) - at

    def _character(self, index: int) -> str:
        code = pdfium_c.FPDFText_GetUnicode(self.raw, index)
        is_no_hyphen = code == ord(CUT) and pdfium_c.FPDFText_IsHyphen(self.raw, index) != 1
        return MISSING if is_no_hyphen or code > sys.maxunicode else chr(code)

    def box(self, index: int) -> Box:
        """The glyph's own outline."""
        left, right, bottom, top = _SIDES
        pdfium_c.FPDFText_GetCharBox(self.raw, index, left, right, bottom, top)
        return self.turned(left.value, bottom.value, right.value, top.value)

    def line_box(self, index: int) -> Box:
        """From the font's lowest to its highest point: equal for all characters of a font on one line."""
        pdfium_c.FPDFText_GetLooseCharBox(self.raw, index, _RECTANGLE)
        left, top, right, bottom = _four_floats(_RECTANGLE)
        return self.turned(left, bottom, right, top) if self.quarter else Box(left, right, bottom, top)

    def goes_back(self, index: int, other: int) -> bool:
        """Whether `other` begins before this character ends, as the first one of the next line does: told in half of
        the time that both boxes take. It is never told of turned text."""
        pdfium_c.FPDFText_GetLooseCharBox(self.raw, index, _RECTANGLE)
        pdfium_c.FPDFText_GetLooseCharBox(self.raw, other, _OTHER)
        height = max(_RECTANGLE.top - _RECTANGLE.bottom, _OTHER.top - _OTHER.bottom)
        return self.quarter == 0 and bool(_OTHER.left - _RECTANGLE.right < -WIDEST_TOUCH * height)

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
        x, y, *_ = _SIDES
        pdfium_c.FPDFText_GetCharOrigin(self.raw, index, x, y)
        return x.value, y.value

    def quarters_of(self, indices: Iterable[int]) -> list[int]:
        """How often a quarter to the right each of these characters is turned in the page's own space, 0 to 3."""
        angle_of, raw = pdfium_c.FPDFText_GetCharAngle, self.raw
        return [round(angle / (math.pi / 2)) % 4 if (angle := angle_of(raw, index)) else 0 for index in indices]

    def has_no_code(self, index: int) -> bool:
        """Whether pdfium knew no code point, and gave the number that the font has for the glyph."""
        return bool(pdfium_c.FPDFText_HasUnicodeMapError(self.raw, index) == 1)

    def object_of(self, index: int) -> int:
        """What the character was drawn with: a number that those drawn at once share; 0 of a blank of pdfium's own."""
        found = pdfium_c.FPDFText_GetTextObject(self.raw, index)
        return ctypes.addressof(found.contents) if found else 0

    def font_name(self, index: int) -> str:
        buffer = ctypes.create_string_buffer(FONT_NAME_BYTES)
        flags = ctypes.c_int()
        length = pdfium_c.FPDFText_GetFontInfo(self.raw, index, buffer, FONT_NAME_BYTES, flags)
        return buffer.raw[: max(min(length, FONT_NAME_BYTES) - 1, 0)].decode("utf-8", "replace")
