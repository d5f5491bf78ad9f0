"""PDFs for tests, written byte by byte: each shows one trap and nothing else.

In: contents and resources of pages. Out: the bytes of a PDF with a correct cross-reference table.
Not here: what is read out of them (reading/pdf/test_document.py).
"""

from __future__ import annotations

from collections.abc import Sequence

HELVETICA = b"/Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>>>"
IMAGE = (
    b"<</Type/XObject/Subtype/Image/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8/Length 1>>"
    b"stream\n\x80\nendstream"
)
FIRST_EXTRA = 3
"""The object number of the first of `objects`; 1 is the catalog, 2 the page tree."""


def pdf(
    *contents: bytes,
    resources: bytes = HELVETICA,
    objects: Sequence[bytes] = (),
    page: bytes = b"",
    catalog: bytes = b"",
    trailer: bytes = b"",
) -> bytes:
    """A PDF with one page for each of `contents`, all with the same resources and page entries."""
    first_page = FIRST_EXTRA + len(objects)
    page_numbers = [first_page + 2 * index for index in range(len(contents))]
    kids = b" ".join(b"%d 0 R" % number for number in page_numbers)
    bodies = [
        b"<</Type/Catalog/Pages 2 0 R" + catalog + b">>",
        b"<</Type/Pages/Kids[" + kids + b"]/Count %d>>" % len(contents),
        *objects,
    ]
    for number, content in zip(page_numbers, contents, strict=True):
        bodies.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<<" + resources + b">>"
            b"/Contents %d 0 R" % (number + 1) + page + b">>"
        )
        bodies.append(stream(content))
    return _with_table(bodies, trailer)


def _with_table(bodies: Sequence[bytes], trailer: bytes) -> bytes:
    data = b"%PDF-1.7\n"
    offsets = []
    for number, body in enumerate(bodies, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(bodies) + 1
    return (
        data
        + b"xref\n0 %d\n0000000000 65535 f \n" % size
        + table
        + b"trailer\n<</Size %d/Root 1 0 R" % size
        + trailer
        + b">>\nstartxref\n%d\n%%%%EOF\n" % len(data)
    )


def stream(content: bytes) -> bytes:
    return b"<</Length %d>>stream\n" % len(content) + content + b"\nendstream"


def lines(*texts: bytes) -> bytes:
    """A page's content: each text is one line, from the top."""
    shown = b" T* ".join(b"<" + text.hex().encode() + b"> Tj" for text in texts)
    return b"BT /F1 12 Tf 14 TL 50 750 Td " + shown + b" ET"


def wide_font(encoding: bytes, collection: bytes) -> bytes:
    """Resources with a font of two-byte codes that is not embedded."""
    return (
        b"/Font<</F1<</Type/Font/Subtype/Type0/BaseFont/Wide/Encoding/" + encoding + b"/DescendantFonts["
        b"<</Type/Font/Subtype/CIDFontType0/BaseFont/Wide/CIDSystemInfo<</Registry(Adobe)/Ordering("
        + collection
        + b")/Supplement 2>>/FontDescriptor<</Type/FontDescriptor/FontName/Wide/Flags 4"
        b"/FontBBox[0 -200 1000 900]/ItalicAngle 0/Ascent 800/Descent -200/CapHeight 700/StemV 80>>>>]>>>>"
    )
