#!/usr/bin/env bash
# pypdfium2 5.15.2 (PDFium), seen 2026-11-29: on a page with /Rotate 90 that stands upright on the screen,
# PdfTextPage.get_text_bounded() glues the third of three lines to the second, without a break or a blank between
# them: in the page's own, unturned space both lines begin at the height of the last break. get_text_range() of the same
# page keeps every break, and so does get_text_bounded() of the same lines without /Rotate.
# Output seen: upright  bounded 'First line of the page\r\nSecond line\r\nThird line'
#              turned   bounded 'First line of the page\r\nSecond lineThird line'
#              turned   range   'First line of the page\r\nSecond line\r\nThird line'
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


def page(turned: bool) -> tuple[str, str]:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(400, 600))
    if turned:
        canvas.setPageRotation(90)
        canvas.translate(400, 0)
        canvas.rotate(90)
    canvas.setFont("Helvetica", 12)
    canvas.drawString(50, 300, "First line of the page")
    canvas.drawString(50, 280, "Second line")
    canvas.drawString(50, 260, "Third line")
    canvas.save()
    text = pypdfium2.PdfDocument(buffer.getvalue())[0].get_textpage()
    return text.get_text_bounded(), text.get_text_range()


upright, turned = page(False), page(True)
print("upright  bounded %r" % upright[0])
print("turned   bounded %r" % turned[0])
print("turned   range   %r" % turned[1])
whole = "First line of the page\r\nSecond line\r\nThird line"
assert upright == (whole, whole) and turned[1] == whole
assert turned[0] == whole.replace("line\r\nThird", "lineThird"), "the break is there now"
PY
