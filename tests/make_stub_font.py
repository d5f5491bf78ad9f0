"""Makes `embedcli/data/fonts/stub.ttf`: the one font pdfium is given, so that no text depends on the host.

In: nothing. Out: the bytes of a font of one box glyph that claims Latin and every CJK code page.
Not here: how pdfium is pointed at it (embedcli/reading/pdf/document.py).

pdfium drops, without an error, the text of a font that is not embedded and uses a legacy CMap (GBK-EUC-H,
90ms-RKSJ-H) unless some host font claims the code page. What the glyph looks like is of no matter, but it
must not be empty. `python tests/make_stub_font.py` writes the file anew; a test compares it with what is
made here.
"""

from __future__ import annotations

import io
from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib.tables._c_m_a_p import CmapSubtable, cmap_format_4, cmap_format_13

TARGET = Path(__file__).parent.parent / "embedcli" / "data" / "fonts" / "stub.ttf"
RANGES = (
    (0x20, 0x7E),
    (0xA0, 0x5FF),
    (0x2000, 0x9FFF),
    (0xAC00, 0xD7AF),
    (0xE000, 0xF9FF),
    (0xFE30, 0xFFEF),
)
LATIN_1_AND_CJK_CODE_PAGES = 1 << 0 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21
FONT_EPOCH_S = 0  # a fixed date: the same bytes each time


def make_stub_font() -> bytes:
    """The font as bytes, identical on every run."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "box"])
    builder.setupCharacterMap({0x20: "box"})
    builder.setupGlyf({".notdef": _box(), "box": _box()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "box": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "EmbedcliStub", "styleName": "Regular", "psName": "EmbedcliStub"})
    builder.setupOS2(ulCodePageRange1=LATIN_1_AND_CJK_CODE_PAGES, version=1)
    builder.setupPost(keepGlyphNames=False)
    builder.font["head"].created = builder.font["head"].modified = FONT_EPOCH_S
    builder.font.recalcTimestamp = False
    builder.font["cmap"].tables = [_small_map(), _whole_map()]
    buffer = io.BytesIO()
    builder.font.save(buffer)
    return buffer.getvalue()


def _box() -> object:
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (900, 700), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    return pen.glyph()


def _small_map() -> CmapSubtable:
    table = cmap_format_4(4)
    table.platformID, table.platEncID, table.language = 3, 1, 0
    table.cmap = {0x20: "box", 0x4E00: "box"}
    return table


def _whole_map() -> CmapSubtable:
    """Format 13 sends a whole range to one glyph: 16 bytes a range, not two bytes a character."""
    table = cmap_format_13(13)
    table.format, table.reserved, table.length = 13, 0, 0
    table.platformID, table.platEncID, table.language = 3, 10, 0
    table.cmap = {code: "box" for first, last in RANGES for code in range(first, last + 1)}
    return table


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(make_stub_font())
