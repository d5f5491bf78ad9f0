#!/usr/bin/env bash
# pypdfium2 5.15.2 (pdfium), seen 2026-11-30 beside pymupdf 1.28.2: what a PDF draws by form objects (the values of form
# fields, labels, pages put on one sheet) has coordinates of its own. To tell whether a text goes on with the word before
# it pdfium compares these, although the objects are set at different places of the page: two values 40 points below each
# other become one word where their inner coordinates nearly agree, and are two lines where they do not.
# Output seen: pdfium '1245 EUR'  pymupdf '12\n45 EUR'   (inner heights 10 and 12)
#              pdfium '12\r\n45 EUR'  pymupdf '12\n45 EUR'   (inner heights 10 and 60)
# Exits 0 as long as this is so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check pypdfium2==5.15.2 pymupdf==1.28.2 reportlab==5.1.0
"$place/venv/bin/python" - <<'PY'
import io

import pymupdf
import pypdfium2
from reportlab.pdfgen.canvas import Canvas


def texts(inner_heights):
    """The text of a page with `12`, and `45 EUR` 40 points below it, each drawn by a form object."""
    made = io.BytesIO()
    page = Canvas(made, pageCompression=0)
    for name, text, height in zip("ab", ("12", "45 EUR"), inner_heights):
        page.beginForm(name)
        page.drawString(4, height, text)
        page.endForm()
    for name, place, height in zip("ab", (700, 660), inner_heights):
        page.saveState()
        page.translate(100, place - height)
        page.doForm(name)
        page.restoreState()
    page.save()
    with pypdfium2.PdfDocument(made.getvalue()) as document:
        pdfium = document[0].get_textpage().get_text_range()
    mupdf = pymupdf.open(stream=made.getvalue())[0].get_text().strip()
    print(f"pdfium {pdfium!r}  pymupdf {mupdf!r}")
    return pdfium.split(), mupdf.split()


assert texts((10, 12)) == (["1245", "EUR"], ["12", "45", "EUR"]), "they are no longer one word"
assert texts((10, 60)) == (["12", "45", "EUR"], ["12", "45", "EUR"]), "other heights are joined too"
PY
