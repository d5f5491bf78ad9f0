"""The characters of symbol fonts are those that other programs know them by."""

from __future__ import annotations

import unicodedata

import pytest
from fontTools.agl import toUnicode
from reportlab.pdfbase._fontdata import encodings

from embedcli.reading.text.symbols import PRIVATE, as_seen, private_as_seen, symbols_of

PIECES = ("radicalex", "arrowvertex", "arrowhorizex", "apple", "integral")
"""Of brackets and lines that are drawn from several characters: no text."""
OTHERWISE = {"Delta": "Δ", "Omega": "Ω"} | dict.fromkeys(("registerserif", "registersans"), "®")
"""Adobe's list gives the letters the codes of an increment and of an ohm, and a registered sign to no such name."""


def test_every_character_of_symbol_is_the_one_of_adobes_encoding() -> None:
    symbols = symbols_of("Symbol")
    assert symbols is not None
    compared = 0
    for code, name in enumerate(encodings["SymbolEncoding"]):
        is_piece = name is None or (name.endswith(("tp", "ex", "bt", "mid")) or name.startswith(PIECES))
        if is_piece and name != "integral":
            continue
        expected = OTHERWISE.get(name) or toUnicode(name.removesuffix("serif").removesuffix("sans"))
        assert symbols.get(code) == unicodedata.normalize("NFC", expected), name
        compared += 1
    assert compared > 150


@pytest.mark.parametrize("font", ["Wingdings", " WINGDINGS ", "'Wingdings'", '"wingdings"'])
def test_a_character_is_known_by_its_code_by_the_letter_of_that_code_and_by_its_private_code(font: str) -> None:
    symbols = symbols_of(font)
    assert symbols is not None
    assert as_seen(f"à {chr(PRIVATE + 0xE0)}\u00a0ü\n", symbols) == "→ →\u00a0✓\n"
    assert private_as_seen(f"à {chr(PRIVATE + 0xE0)}", symbols) == "à →"
    assert as_seen("\u4e2d\ue000", symbols) == "\u4e2d\ue000", "no code of a font"


@pytest.mark.parametrize("font", ["Arial", "Symbolon", "Wingdings 2", "", None])
def test_the_text_of_another_font_is_what_it_says(font: str | None) -> None:
    assert symbols_of(font) is None
