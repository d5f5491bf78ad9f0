"""Characters of the fonts Symbol and Wingdings -> the characters that they show.

In: a font's name, and text that is set in it. Out: the text with Unicode's characters for what a reader sees: `m` in
Symbol is µ, and what Word makes of `-->` is the code E0 of Wingdings, an arrow. Not here: the fonts of a PDF, whose
glyphs have names (pdf/names.py); which text is set in which font (the readers of office formats).

Programs write such a character as its code, as that of the Latin letter with the same code (Windows-1252), or in the
private area from F000 on. Of Wingdings the characters are here that say something: arrows, marks, bullets, numbers and
faces, each as the most usual character of its kind. Its pictures are not text, and become nothing.
Sources: Adobe's Symbol encoding; Unicode's proposals for the Wingdings fonts (L2/11-344 and those before it).
"""

from __future__ import annotations

from collections.abc import Mapping

PRIVATE = 0xF000

Symbols = Mapping[int, str]
"""By code, 0x20 to 0xFF; what has no entry shows no text."""


def _codes(first: int, characters: str) -> dict[int, str]:
    """The entries of consecutive codes; a blank stands for a code that has none."""
    return {first + offset: character for offset, character in enumerate(characters) if character != " "}


_SYMBOL = {
    0x20: " ",
    **_codes(0x21, "!∀#∃%&∋()∗+,−./0123456789:;<=>?"),
    **_codes(0x40, "≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_"),
    **_codes(0x61, "αβχδεφγηιϕκλµνοπθρστυϖωξψζ{|}∼"),
    **_codes(0xA0, "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…  ↵"),
    **_codes(0xC0, "ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓"),
    **_codes(0xE0, "◊〈®©™∑"),
    **_codes(0xF1, "〉∫"),
}
_WINGDINGS = {
    0x20: " ",
    **_codes(0x22, "✂"),
    **_codes(0x28, "☎✆✉"),
    **_codes(0x41, "✌👌👍👎☜☞☝☟"),
    **_codes(0x4A, "☺😐☹"),
    **_codes(0x6C, "●❍■□❑❒❑❒⧫◆❖◆"),
    **_codes(0x80, "⓪①②③④⑤⑥⑦⑧⑨⑩⓿❶❷❸❹❺❻❼❽❾❿"),
    **_codes(0x9E, "·•▪○"),
    **_codes(0xA7, "▪◻"),
    **_codes(0xAB, "★"),
    **_codes(0xD8, "➢"),
    **_codes(0xDF, "←→↑↓↖↗↙↘←→↑↓↖↗↙↘⇦⇨⇧⇩⬄⇳"),
    **_codes(0xFB, "✗✓☒☑"),
}
_FONTS: dict[str, Symbols] = {"symbol": _SYMBOL, "wingdings": _WINGDINGS}


def symbols_of(*fonts: str | None) -> Symbols | None:
    """The characters of the first of these fonts, by their names, that is one of symbols; None where the text is what
    it says."""
    names = ((font or "").strip(" \t\n'\"").casefold() for font in fonts)
    return next((_FONTS[name] for name in names if name in _FONTS), None)


def as_seen(text: str, symbols: Symbols) -> str:
    """What a reader sees of text that is set in the font. White space stays, and what no code of a font can be."""
    return "".join(_as_seen(character, symbols) for character in text)


def private_as_seen(text: str, symbols: Symbols) -> str:
    """The same of the characters in the private area alone, where other text may be set in another font."""
    return "".join(_as_seen(mark, symbols) if _is_private(mark) else mark for mark in text)


def _as_seen(character: str, symbols: Symbols) -> str:
    if character.isspace():
        return character
    code = _code(character)
    return character if code is None else symbols.get(code, "")


def _code(character: str) -> int | None:
    if _is_private(character):
        return ord(character) - PRIVATE
    code = character.encode("cp1252", "ignore")
    return code[0] if code else None


def _is_private(character: str) -> bool:
    return PRIVATE + 0x20 <= ord(character) <= PRIVATE + 0xFF
