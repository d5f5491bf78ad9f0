"""The text of a page where pdfium's own order, gaps and code points are not what a reader sees."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import accumulate

import pytest
from fontTools.agl import AGL2UV
from reportlab.pdfbase.pdfmetrics import stringWidth

from embedcli.reading.pdf.text import _ADOBE
from tests.pdf_files import FIRST_EXTRA, HELVETICA, lines, pdf, stream
from tests.reading.pdf.test_document import read, reason_of

TURNED = {0: b"1 0 0 1 100 500", 90: b"0 1 -1 0 300 100", 180: b"-1 0 0 -1 500 500", 270: b"0 -1 1 0 300 700"}


def turned(degrees: int, *texts: bytes) -> bytes:
    """Lines of text turned to the left by `degrees`."""
    shown = b" T* ".join(b"(" + text + b") Tj" for text in texts)
    return b"BT /F1 12 Tf 14 TL " + TURNED[degrees] + b" Tm " + shown + b" ET "


def mapped(codes: dict[str, str], content: bytes, resources: bytes = HELVETICA) -> bytes:
    """A page whose font maps some characters to other text."""
    pairs = b"".join(b"<%02X><%s>" % (ord(k), v.encode("utf-16-be").hex().encode()) for k, v in codes.items())
    table = b"/CIDInit/ProcSet findresource begin begincmap 1 begincodespacerange<00><FF>endcodespacerange "
    table += b"%d beginbfchar" % len(codes) + pairs + b"endbfchar endcmap"
    font = resources.replace(b"/Encoding", b"/ToUnicode %d 0 R/Encoding" % FIRST_EXTRA, 1)
    return pdf(content, resources=font, objects=[stream(table)])


@pytest.mark.parametrize("mark", [b"the page q", b"See q", b"q", b"See", b"Se q"])
def test_a_mark_beyond_the_edge_is_gone_though_it_begins_or_ends_as_the_text_does(mark: bytes) -> None:
    marks = b"BT /F1 12 Tf %d -100 Td (" + mark + b") Tj ET "
    assert read(pdf(marks % 50 + turned(0, b"See q", b"See q") + marks % 90)).text == "See q\nSee q"


@pytest.mark.parametrize("page_turn", [0, 90, 180, 270])
@pytest.mark.parametrize("text_turn", TURNED)
def test_lines_keep_their_order_and_ends_however_text_and_page_are_turned(text_turn: int, page_turn: int) -> None:
    content = turned(text_turn, b"The first line", b"and the second", b"and the third")
    document = read(pdf(content, page=b"/Rotate %d" % page_turn))
    assert document.text == "The first line\nand the second\nand the third"


@pytest.mark.parametrize("page_turn", [0, 90, 180, 270])
@pytest.mark.parametrize("text_turn", [90, 180, 270])
def test_a_page_of_mixed_direction_keeps_each_part_in_order(text_turn: int, page_turn: int) -> None:
    upright = b"BT /F1 12 Tf 14 TL 50 780 Td (Upright one) Tj T* (upright two) Tj ET "
    content = upright + turned(text_turn, b"Turned one", b"turned two", b"turned three")
    text = read(pdf(content, page=b"/Rotate %d" % page_turn)).text
    assert "Upright one\nupright two" in text
    assert "Turned one\nturned two\nturned three" in text


def test_a_raised_figure_is_no_line_break() -> None:
    raised = b"BT /F1 12 Tf 50 700 Td (As Miller) Tj /F1 7 Tf 5 Ts (12) Tj 0 Ts /F1 12 Tf ( says, 5 m) Tj"
    raised += b" /F1 7 Tf 5 Ts (2) Tj 0 Ts /F1 12 Tf (, and so on) Tj 0 -14 Td (The next line) Tj ET"
    assert read(pdf(raised)).text == "As Miller12 says, 5 m2, and so on\nThe next line"


def test_the_raised_number_of_a_note_stands_apart_from_its_words() -> None:
    note = b" BT /F1 7 Tf 6 Ts 50 100 Td (1) Tj 0 Ts /F1 12 Tf (In fact) Tj 0 -14 Td (it is) Tj ET"
    assert read(pdf(lines(b"Body") + note)).text == "Body\n1 In fact\nit is"


def test_a_lowered_figure_is_no_line_break() -> None:
    lowered = b"BT /F1 12 Tf 50 700 Td (Water is H) Tj /F1 7 Tf -3 Ts (2) Tj 0 Ts /F1 12 Tf (O here) Tj ET"
    assert read(pdf(lowered)).text == "Water is H2O here"


def test_lines_that_end_in_figures_keep_their_ends() -> None:
    assert read(pdf(lines(b"Contents 1", b"Parts 22", b"2 Pumps", b"end"))).text == "Contents 1\nParts 22\n2 Pumps\nend"


def test_a_figure_in_the_next_column_is_another_line() -> None:
    columns = b"BT /F1 12 Tf 50 700 Td (Total 12) Tj /F1 7 Tf 200 5 Td (see there) Tj ET"
    assert read(pdf(columns)).text.split() == ["Total", "12", "see", "there"]


def placed(texts: Iterable[tuple[float, bytes]]) -> bytes:
    """One line, each text at a place of its own."""
    shown = b" ".join(b"1 0 0 1 %.2f 700 Tm (%s) Tj" % (place, text) for place, text in texts)
    return b"BT /F1 14 Tf " + shown + b" ET"


@pytest.mark.parametrize("line", ["- Hello world, this is it", '"Hello" he said, quoting', "~ 3 ~", "...and more"])
def test_a_line_of_single_glyphs_that_begins_flat_is_no_vertical_writing(line: str) -> None:
    ends = list(accumulate((stringWidth(character, "Helvetica", 14) for character in line), initial=60))
    drawn = placed((place, character.encode()) for place, character in zip(ends, line, strict=False))
    assert read(pdf(drawn)).text == line


def test_single_glyphs_in_columns_are_no_line() -> None:
    columns = ((60.0 + 40 * number, b"-1234"[number : number + 1]) for number in range(5))
    assert read(pdf(placed(columns))).text == "-\n1\n2\n3\n4"


def test_a_word_that_runs_over_the_edge_is_whole_and_one_beyond_it_is_gone() -> None:
    over = lines(b"x" * 80 + b"long-word-over-the-edge-of-the-page beyond-it")
    text = read(pdf(over + b" BT /F1 12 Tf 50 20 Td (Last) Tj ET")).text
    assert "over-the-edge-of-the-page" in text and "beyond-it" not in text and text.endswith("Last")


OVER = b"BT /F1 12 Tf 50 700 Td (%s) Tj %d 0 Td (%s) Tj ET"


@pytest.mark.parametrize(
    ("accent", "letter", "composed"),
    [
        (b"\xa8", b"u", "ü"),
        (b"`", b"e", "è"),
        (b"\xb4", b"e", "é"),
        (b"^", b"o", "ô"),
        (b"~", b"n", "ñ"),
        (b"\xb8", b"c", "ç"),
    ],
)
def test_an_accent_drawn_over_its_letter_is_one_character_with_it(accent: bytes, letter: bytes, composed: str) -> None:
    assert read(pdf(OVER % (accent, 1, letter))).text == composed


@pytest.mark.parametrize("text", [b"`a`", b"2^a", b"~n", b"x \xb4e"])
def test_an_accent_beside_a_letter_stays_one(text: bytes) -> None:
    assert read(pdf(lines(text))).text == text.decode("cp1252")


def test_adobes_private_code_points_are_the_characters_of_their_names() -> None:
    for name, code in AGL2UV.items():
        plain = _ADOBE.get(code) if 0xF6BE <= code <= 0xF8FF else None
        if plain and name.endswith(("small", "oldstyle", "superior", "inferior")):
            base = name.removesuffix("small").removesuffix("oldstyle").removesuffix("superior").removesuffix("inferior")
            wanted = chr(AGL2UV[base]) if base in AGL2UV else plain
            assert unicodedata.normalize("NFC", plain) == wanted.lower(), name


def test_old_style_figures_and_small_capitals_are_read() -> None:
    data = mapped({"A": "\uf731", "B": "\uf739", "C": "\uf761"}, lines(b"In ABAA no C"))
    assert read(data).text == "In 1911 no a"


def test_pictures_of_an_icon_font_are_no_figures() -> None:
    icons = HELVETICA.replace(b"/Helvetica", b"/FontAwesome")
    data = mapped({"A": "\uf731"}, lines(b"Menu A"), icons)
    assert read(data).text.strip() == "Menu"


NAMES = b"<</Type/Encoding/Differences[65/f_f_i/T_h/oneoldstyle/uni00660069/c_t]>>"


@pytest.mark.parametrize("own_map", [None, "\ue05f"])
def test_ligatures_are_read_by_the_names_of_their_glyphs(own_map: str | None) -> None:
    content = lines(b"oAce Bis C Dne aEor")
    font = HELVETICA.replace(b"/Encoding/WinAnsiEncoding", b"/Encoding" + NAMES)
    data = mapped({"B": own_map}, content, font) if own_map else pdf(content, resources=font)
    assert read(data).text == "office This 1 fine actor"


LAM_ALEF = {"A": "م", "B": "لا", "C": "س", "D": "(", "E": ")"}


@pytest.mark.parametrize("ligature", ["لا", "\ufefb"])
def test_a_ligature_of_lam_and_alef_keeps_its_order(ligature: str) -> None:
    assert read(mapped({**LAM_ALEF, "B": ligature}, lines(b"ABC"))).text == "سلام"


@pytest.mark.parametrize(("drawn", "text"), [(b"EABCD", "(سلام)"), (b"DABCE", "(سلام)")])
def test_brackets_embrace_their_words_whichever_way_the_producer_maps_them(drawn: bytes, text: str) -> None:
    assert read(mapped(LAM_ALEF, lines(drawn))).text == text


@pytest.mark.parametrize("character", ["😀", "𠀋", "𝑥"])
@pytest.mark.parametrize("degrees", TURNED)
def test_characters_beyond_the_basic_plane_are_read(character: str, degrees: int) -> None:
    """pdfium counts two of each, and turns them round in right-to-left text."""
    shown = mapped({"q": character}, turned(degrees, b"See q now", b"and qq"))
    assert read(shown).text == f"See {character} now\nand {character * 2}"
    beyond = turned(0, b"See q") + b"BT /F1 12 Tf 50 -100 Td (Off the page q) Tj ET"
    assert read(mapped({"q": character}, beyond)).text == f"See {character}"
    right_to_left = mapped({"q": character, "r": "ש", "s": "ל"}, lines(b"rqqs"))
    assert read(right_to_left).text == f"ל{character * 2}ש"


@pytest.mark.parametrize("lines_above", [2, 42])
def test_control_characters_that_pdfium_leaves_out_shift_nothing(lines_above: int) -> None:
    """It counts them, so that what stands behind them would be looked for in the wrong place."""
    above = [b"kkk and so on, line after line, to the very end of it"] * lines_above
    raised = b" BT /F1 12 Tf 50 100 Td (kAs Miller kkwrites) Tj /F1 7 Tf 5 Ts (12) Tj 0 Ts /F1 12 Tf ( says, 5 mk) Tj"
    raised += b" /F1 7 Tf 5 Ts (2) Tj 0 Ts /F1 12 Tf (, and so on) Tj 0 -14 Td (The next line) Tj ET"
    text = read(mapped({"k": "\x03"}, lines(*above) + raised)).text
    assert text.endswith("\nAs Miller writes12 says, 5 m2, and so on\nThe next line")


def wide(*, with_map: bool) -> bytes:
    """Resources with an embedded font of two-byte glyph numbers that has no cmap of its own."""
    tables = b"/ToUnicode %d 0 R" % (FIRST_EXTRA + 1) if with_map else b""
    return (
        b"/Font<</F1<</Type/Font/Subtype/Type0/BaseFont/AAAAAA+Wide/Encoding/Identity-H" + tables + b"/DescendantFonts["
        b"<</Type/Font/Subtype/CIDFontType2/BaseFont/AAAAAA+Wide/CIDToGIDMap/Identity"
        b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>/FontDescriptor<</Type/FontDescriptor"
        b"/FontName/AAAAAA+Wide/Flags 4/FontBBox[0 -200 1000 900]/ItalicAngle 0/Ascent 800/Descent -200"
        b"/CapHeight 700/StemV 80/FontFile2 %d 0 R>>>>]>>/F2<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>"
        % FIRST_EXTRA
    )


def shifted(text: str) -> bytes:
    """Glyph numbers as in the usual order of TrueType fonts: 29 below ASCII."""
    return b"<" + "".join(f"{ord(character) - 29:04x}" for character in text).encode() + b"> Tj"


def test_numbers_of_glyphs_are_garbled_and_never_text() -> None:
    page = b"BT /F1 12 Tf 50 700 Td " + shifted("The office filed five efficient reports") + b" ET"
    assert reason_of(pdf(page, resources=wide(with_map=False), objects=[stream(b"")])) == "garbled"


def test_few_numbers_of_glyphs_go_and_the_page_stays() -> None:
    page = b"BT /F1 12 Tf 50 700 Td " + shifted("Th") + b" /F2 12 Tf 0 -20 Td (" + b"A good text. " * 5 + b") Tj ET"
    document = read(pdf(page, resources=wide(with_map=False), objects=[stream(b"")]))
    assert document.text.strip() == ("A good text. " * 5).strip() and document.pages_skipped == 0


def part(text: bytes, y: int) -> bytes:
    body = b"BT /F1 12 Tf 4 %d Td (%s) Tj ET" % (y, text)
    head = b"<</Type/XObject/Subtype/Form/BBox[0 0 100 30]/Resources<<" + HELVETICA + b">>/Length %d>>stream\n"
    return head % len(body) + body + b"\nendstream"


def test_what_is_drawn_in_spaces_of_their_own_is_not_one_word() -> None:
    """As the fields of a form are, labels, and pages on one sheet."""
    names = b"/XObject<</A %d 0 R/B %d 0 R>>" % (FIRST_EXTRA, FIRST_EXTRA + 1)
    content = b"q 1 0 0 1 100 700 cm /A Do Q q 1 0 0 1 100 660 cm /B Do Q"
    made = pdf(content, resources=HELVETICA + names, objects=[part(b"12", 10), part(b"45 EUR", 12)])
    assert read(made).text == "12\n45 EUR"


def test_a_word_drawn_partly_in_a_space_of_its_own_is_whole() -> None:
    names = b"/XObject<</A %d 0 R>>" % FIRST_EXTRA
    content = b"BT /F1 12 Tf 100 700 Td (un) Tj ET q 1 0 0 1 109.3 0 cm /A Do Q"
    assert read(pdf(content, resources=HELVETICA + names, objects=[part(b"folded", 700)])).text == "unfolded"
