"""Pages of right-to-left text with Latin, numbers and brackets in it, as real producers shape and order them, against
the text as it is read.

Not here: ligatures, and brackets in text of one direction (test_text.py).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pytest

from embedcli.reading.pdf.document import read_pdf

FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
pytestmark = pytest.mark.skipif(not FONT.exists(), reason="the Debian package fonts-dejavu-core is not installed")

ARABIC = [
    "مرحبا (ABC) سلام",
    "القسم [ب] من العقد",
    "برنامج (Python 3.11) مفتوح",
    "النص (English words) والنهاية.",
    "الإصدار 4.1 (بيتا) هنا",
    "تقرير (2026)",
    "(ملاحظة) مهمة",
    "مكتبة numpy (للحساب) و scipy (Fourier)",
    "قائمة: «Linux» و «ويندوز»",
    "دالة print(x) في بايثون",
    "الرمز f(x) = [a] نهاية",
    "المعادلة {a} و (ب [c] د)",
    "استخدم C++ (لغة) و (Rust)",
    "API (واجهة)",
    "نهاية السطر (ABC)",
    "א) סעיף ראשון",
]
HEBREW = ["שלום (ABC) עולם", "ראה סעיף (א) ו-[12] כאן", "סעיף [345] בחוזה (Contract, 2019)", "קובץ README.md (קרא)"]
ENGLISH = [
    "The word (سلام) means peace.",
    "See [א] and (ב) in the text",
    "Arabic: مرحبا (نص) and more",
    "A letter ש is first, and (f(x)) second",
    "He said «سلام» twice",
    "Item 1) שלום and more",
    "ABC (def) שלום",
    "x < y שלום a > b",
]


def by_shape(lines: Sequence[str], *, base: Literal["L", "R"] = "R") -> bytes:
    """Ordered and mirrored by the reference of UAX 9, in characters: each glyph has the code of its shape."""
    from arabic_reshaper import reshape
    from bidi.algorithm import get_display
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.pdfgen.canvas import Canvas

    pdfmetrics.registerFont(TTFont("DejaVu", str(FONT)))
    file = io.BytesIO()
    canvas = Canvas(file)
    canvas.setFont("DejaVu", 14)
    for number, line in enumerate(lines):
        draw = canvas.drawRightString if base == "R" else canvas.drawString
        draw(500 if base == "R" else 60, 780 - 25 * number, get_display(reshape(line), base_dir=base))
    canvas.save()
    return file.getvalue()


def by_use(lines: Sequence[str]) -> bytes:
    """Shaped by HarfBuzz: a glyph has the code of the character for which it was first used."""
    from fpdf import FPDF

    page = FPDF()
    page.add_page()
    page.add_font("DejaVu", fname=FONT)
    page.set_font("DejaVu", size=14)
    page.set_text_shaping(use_shaping_engine=True, direction="rtl")
    for line in lines:
        page.cell(0, 10, line, new_x="LMARGIN", new_y="NEXT", align="R")
    return bytes(page.output())


def read(data: bytes) -> list[str]:
    text = read_pdf(io.BytesIO(data), beat=lambda page: None).text
    return [" ".join(line.split()) for line in text.split("\n") if line.strip()]


@pytest.mark.parametrize("lines", [ARABIC, HEBREW])
def test_latin_numbers_and_brackets_in_right_to_left_text_are_read_in_order(lines: list[str]) -> None:
    assert read(by_shape(lines)) == lines


@pytest.mark.parametrize("lines", [ARABIC, HEBREW])
def test_brackets_that_have_the_code_of_their_use_are_read_so(lines: list[str]) -> None:
    assert read(by_use(lines)) == lines


def test_right_to_left_words_and_brackets_in_latin_text_are_read_in_order() -> None:
    assert read(by_shape(ENGLISH, base="L")) == ENGLISH


@pytest.mark.parametrize("make", [by_shape, by_use])
@pytest.mark.parametrize("line", ["مرحبا (ABC) سلام", "שלום (עולם) וברכה", "(API) واجهة برنامج", "תקנון (Terms)"])
def test_a_page_of_one_line_tells_by_itself_what_its_brackets_are(
    make: Callable[[Sequence[str]], bytes], line: str
) -> None:
    assert read(make([line])) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "القسم [ب] من العقد",
        "النص (English words) والنهاية.",
        "قائمة: «Linux» و «ويندوز»",
        "الرمز f(x) = [a] نهاية",
        "السلام عليكم ورحمة الله ـ",
    ],
)
def test_a_line_that_pdfium_breaks_between_its_letters_is_whole(line: str) -> None:
    """It takes the page for vertical writing: the first glyph that is drawn is flat, and each is placed by itself."""
    assert read(by_use([line])) == [line]
