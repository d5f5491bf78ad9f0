#!/usr/bin/env bash
# pypdfium2 5.15.2 (PDFium), seen 2026-11-29: where each glyph is drawn by itself, as browsers and some word processors
# write PDFs, a page of few words that begins with a flat glyph (a dash, a quotation mark) is broken between most of its
# letters: the shape of the first object decides that the whole page is vertical writing. With the same dash at the end of
# the line, or without it, the line is whole. get_text_bounded() loses the blank between the words besides.
# Output seen: '- Offer 7'  range '-\r\nO\r\nf\r\nf\r\ne\r\nr\r\n7'  bounded '-\r\nOffer7'
#              'Offer 7 -'  range 'Offer 7 -'  bounded 'Offer 7 -'
# Exits 0 as long as this is so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check pypdfium2==5.15.2 reportlab==5.1.0
"$place/venv/bin/python" - <<'PY'
import io

import pypdfium2
from reportlab.pdfgen.canvas import Canvas


def read(line: str) -> tuple[str, str]:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(400, 300))
    canvas.setFont("Helvetica", 12)
    x = 50.0
    for glyph in line:
        canvas.drawString(x, 200, glyph)
        x += canvas.stringWidth(glyph, "Helvetica", 12)
    canvas.save()
    text = pypdfium2.PdfDocument(buffer.getvalue())[0].get_textpage()
    return text.get_text_range(), text.get_text_bounded()


for line in ("- Offer 7", "Offer 7 -"):
    print("%r  range %r  bounded %r" % (line, *read(line)))
assert read("Offer 7 -") == ("Offer 7 -", "Offer 7 -")
assert read("- Offer 7") == ("-\r\nO\r\nf\r\nf\r\ne\r\nr\r\n7", "-\r\nOffer7"), "it is read otherwise now"
PY
