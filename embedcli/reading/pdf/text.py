"""The text of one page: pdfium's, mended where the places of the characters say otherwise.

In: a loaded page. Out: its text with U+0002 for hyphens at line ends, CRLF for line ends. Not here: whether it can be
believed (judge.py), the order of right-to-left letters (rtl.py), hyphens (text/hyphens.py), clean-up (text/clean.py).

Every step looks for its trigger in the text first: asking pdfium where a character stands costs more than reading it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pypdfium2.raw as pdfium_c

from embedcli.reading.pdf.broken import looks_broken
from embedcli.reading.pdf.glyphs import MISSING, WIDEST_TOUCH, Box, Glyphs, ink, share_a_line
from embedcli.reading.pdf.judge import MOST_GARBLED
from embedcli.reading.pdf.rtl import in_reading_order, turned_ligatures
from embedcli.reading.text.hyphens import CUT
from embedcli.reading.text.rare import rare_characters

MOST_SAMPLES = 8
LEAST_BARE = 0.02
"""Of a page's characters: fewer are not worth asking pypdf, which may take seconds."""
MOST_ALIKE = 20
"""Characters at the end of several words that are not seen, and of others that are."""
WIDEST_GAP = 1.0
"""Of the line's height: what is further away is another column."""

Edit = tuple[int, int, str]
"""Half-open indices into the text, and what stands there instead."""

_RAISED_BREAK = re.compile(
    r"\r\n(?:(?<=[\d*†‡§¶™®©ªº°◦]\r\n)(?!\d)"  # back down from a raised mark
    r"|(?<=\d(?:st|nd|rd|th|er|re)\r\n)"
    r"|(?=\d)(?:(?<=[\d)\]]\r\n)|(?<=\W[A-Za-z]\r\n)|(?<=\W[a-z]{2}\r\n))(?=\d{1,3}[\s.,;:)\]])"  # up to an exponent
    r"|(?=[.,;:!?)\]’”*†‡§¶])(?<=\S\r\n))"  # or from a lowered one to the end of the sentence
)
_BREAK = re.compile(r"(?<=\S)[^\S\n]*+\n\s*+(?=\S)")
_CLOSING = ".,;:!?)]’”"
_ACCENTS = {
    "`": "\u0300", "´": "\u0301", "^": "\u0302", "ˆ": "\u0302", "~": "\u0303", "˜": "\u0303", "¯": "\u0304",
    "ˉ": "\u0304", "˘": "\u0306", "˙": "\u0307", "¨": "\u0308", "˚": "\u030a", "°": "\u030a", "˝": "\u030b",
    "ˇ": "\u030c", "¸": "\u0327", "˛": "\u0328",
}  # fmt: skip
_WORD = re.compile(r"\S+")
_UNCUT = re.compile(rf"[^\s{CUT}]{{2,}}")
"""A word, or a part of one that a hyphen at the end of a line cuts."""
_PRIVATE_OR_RTL = re.compile("[\u0590-\u08ff\uf6be-\ufdff\ufe70-\ufefc]")
"""Right-to-left text, and private code points that Adobe's names have."""
_HALF = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("([\ud800-\udbff][\udc00-\udfff])|([\udc00-\udfff])([\ud800-\udbff])")
_ACCENT = re.compile(f"[{''.join(map(re.escape, _ACCENTS))}]")
_TRIGGER = re.compile("|".join(kind.pattern for kind in (_PRIVATE_OR_RTL, _HALF, _ACCENT)))
_DOTLESS = {"ı": "i", "ȷ": "j", "\uf6be": "j"}
_PRIVATE = re.compile("[\uf6be-\uf6ff\uf721-\uf7ff\uf8e8-\uf8ea]")
_ICONS = re.compile("icon|awesome|glyph|dingbat|wingding|webding|symbol|emoji|fontello|material", re.IGNORECASE)
_ADOBE = {
    **{0xF700 + code: chr(code).lower() for code in (0x21, 0x24, 0x26, *range(0x30, 0x3A), 0x3F, 0x60)},
    **{0xF700 + code: chr(code).lower() for code in (*range(0x61, 0x7B), 0xA1, 0xA2, 0xA8, 0xAF, 0xB4, 0xB8, 0xBF)},
    **{0xF700 + code: chr(code) for code in (*range(0xE0, 0xF7), *range(0xF8, 0x100))},
    **dict(zip(range(0xF6D9, 0xF6DD), "©®™1", strict=True)),
    **dict(zip(range(0xF6DE, 0xF6F4), "—¢¢,,$$--..abdeilmorst", strict=True)),
    **dict(
        zip((0xF6BE, 0xF6C3, 0xF6F9, 0xF6FA, 0xF6FD, 0xF6FF, 0xF8E8, 0xF8E9, 0xF8EA), "ȷ\u0326łœšž®©™", strict=True)
    ),
}
"""Private code points that the Adobe Glyph List gives to oneoldstyle, Asmall and the like: the plain characters."""


BareFonts = Callable[[], frozenset[str]]
"""Names of the page's fonts whose codes are numbers of glyphs; slow."""


def read_text(page: Any, *, bare_fonts: BareFonts | None = None, has_parts: bool = False) -> tuple[str, int]:
    """The text, and how many characters pdfium has. What is no text but numbers of glyphs is U+FFFD, or gone where it
    is little; without `bare_fonts` there is none. `has_parts`: whether the page may hold form objects."""
    has_parts = has_parts and _holds_parts(page)
    glyphs = Glyphs(page)
    try:
        unwanted = list(_bare_codes(glyphs, bare_fonts)) if bare_fonts else []
        turned = None if unwanted else _turned_quarter(glyphs, page)
        if turned is None:
            return _mended(glyphs, unwanted, has_parts=has_parts), glyphs.count
    finally:
        glyphs.close()
    return _turned_text(page, turned, has_parts=has_parts), glyphs.count


def _holds_parts(page: Any) -> bool:
    kind_of, item = pdfium_c.FPDFPageObj_GetType, pdfium_c.FPDFPage_GetObject
    return any(
        kind_of(item(page, index)) == pdfium_c.FPDF_PAGEOBJ_FORM
        for index in reversed(range(pdfium_c.FPDFPage_CountObjects(page)))
    )


def _bare_codes(glyphs: Glyphs, bare_fonts: BareFonts) -> Iterator[Edit]:
    """Characters that are but the numbers of their glyphs: "7KH RIILFH"."""
    samples = range(0, glyphs.count, glyphs.count // MOST_SAMPLES + 1)
    if not any(map(glyphs.has_no_code, samples)):
        return
    drawn = [index for index, character in enumerate(glyphs.text) if not character.isspace()]
    bare = [index for index in drawn if glyphs.has_no_code(index)]
    if len(bare) < LEAST_BARE * len(drawn):
        return  # a symbol here and there
    names = bare_fonts()
    bare = [index for index in bare if glyphs.font_name(index) in names]
    instead = "\ufffd" if len(bare) > MOST_GARBLED * len(drawn) else ""
    for index in bare:
        yield index, index + 1, instead


def _turned_quarter(glyphs: Glyphs, page: Any) -> int | None:
    """The direction of text whose lines run down the screen, if there is any: pdfium turns their order round."""
    text = glyphs.text
    if not text:
        return None
    starts = [text.find("\n", index) + 1 for index in range(0, len(text), len(text) // MOST_SAMPLES + 1)]
    quarters = glyphs.quarters_of(starts)
    glyphs.quarter = max(quarters, key=quarters.count) if any(quarters) else 0
    downwards = (1 - pdfium_c.FPDFPage_GetRotation(page)) % 4
    return downwards if downwards in quarters else None


def _turned_text(page: Any, quarter: int, *, has_parts: bool) -> str:
    """The text when some or all of it runs down the screen: each part read with the page turned for it."""
    texts = [_part(page, lambda found: found != quarter, None, has_parts=has_parts)]
    pdfium_c.FPDFPage_SetRotation(page, -quarter % 4)
    turned = _part(page, lambda found: found == quarter, quarter, has_parts=has_parts)
    return "\r\n".join(text for text in (*texts, turned) if text)


def _part(page: Any, wanted: Callable[[int], bool], quarter: int | None, *, has_parts: bool) -> str:
    glyphs = Glyphs(page)
    try:
        quarters = glyphs.quarters_of(range(glyphs.count))
        inked = Counter(
            found for found, character in zip(quarters, glyphs.text, strict=True) if not character.isspace()
        )
        glyphs.quarter = quarter if quarter is not None else max(filter(wanted, inked), key=inked.get, default=0)  # type: ignore[arg-type]
        unwanted = [
            (index, index + 1, "")
            for index, character in enumerate(glyphs.text)
            if not character.isspace() and not wanted(quarters[index])
        ]
        text = _mended(glyphs, unwanted, has_parts=has_parts)
    finally:
        glyphs.close()
    return _without_blank_lines(text)


def _without_blank_lines(text: str) -> str:
    return "\r\n".join(line for line in text.split("\r\n") if line and not line.isspace())


def _mended(glyphs: Glyphs, unwanted: list[Edit], *, has_parts: bool) -> str:
    edits = [*unwanted, *(_glued(glyphs) if has_parts else ())]
    outside: list[Edit] = []
    if not _same_line(glyphs.seen, glyphs.text) and (all_ink := ink(glyphs.text)) != (seen_ink := ink(glyphs.seen)):
        outside += _off_the_page(glyphs, *_unlike(all_ink, seen_ink))
    edits += outside
    rare = rare_characters(glyphs.text)
    rare = rare if _TRIGGER.search(rare) else ""  # of most texts one search tells that there is none of three kinds
    if _ACCENT.search(rare):
        edits += _accents(glyphs)
    has_private_or_rtl = _PRIVATE_OR_RTL.search(rare)
    if has_private_or_rtl:
        edits += turned_ligatures(glyphs)
        edits += _private(glyphs)
    edits += _false_breaks(glyphs, _BREAK if not has_private_or_rtl and looks_broken(glyphs) else _RAISED_BREAK)
    text = in_reading_order(glyphs, _pieces(edits, glyphs.text)) if has_private_or_rtl else _apply(edits, glyphs.text)
    text = _without_blank_lines(text) if outside else text
    text = _paired(text) if _HALF.search(rare) else text
    return text.replace(MISSING, "") if MISSING in text else text


def _paired(text: str) -> str:
    """The text with each two halves of a character beyond U+FFFF as one; a part that is turned round has them so."""
    return _PAIR.sub(r"\1\3\2", text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


def _same_line(one: str, other: str) -> bool:
    """Whether the texts differ in line ends at most, as most pages do that differ."""
    return one == other or one.replace("\r\n", "") == other.replace("\r\n", "")


def _apply(edits: list[Edit], text: str) -> str:
    """The text with all edits made; where two overlap the earlier one is."""
    if not edits:
        return text
    parts: list[str] = []
    end_of_last = 0
    for start, end, instead in sorted(edits):
        if start >= end_of_last:
            parts += (text[end_of_last:start], instead)
            end_of_last = end
    return "".join((*parts, text[end_of_last:]))


def _pieces(edits: list[Edit], text: str) -> list[str]:
    """What stands for each character once all edits are made; what is instead of several stands for the first."""
    pieces = list(text)
    end_of_last = 0
    for start, end, instead in sorted(edits):
        if start >= end_of_last:
            pieces[start:end] = [instead] + [""] * (end - start - 1) if end > start else []
            end_of_last = end
    return pieces


def _unlike(all_ink: str, seen_ink: str) -> tuple[int, int]:
    """Between which places the two differ. What is not seen may end as what is seen before it does, and begin as what
    is seen behind it does, so either end of it may be further out than where the first difference is."""
    same_before = _same_at_start(all_ink, seen_ink)
    same_behind = _same_at_start(all_ink[::-1], seen_ink[::-1])
    first = min(same_before, len(seen_ink) - same_behind)
    last = len(all_ink) - min(same_behind, len(seen_ink) - same_before)
    return first - MOST_ALIKE, last + MOST_ALIKE


def _same_at_start(one: str, other: str) -> int:
    """How many characters at the start of both are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _off_the_page(glyphs: Glyphs, from_ink: int, to_ink: int) -> Iterator[Edit]:
    """Words that begin and end outside of what is shown: printer's marks. One that runs over the edge is kept whole.

    Only characters from `from_ink` to `to_ink` may be outside; blanks are not counted.
    """
    corners = glyphs.turned(*glyphs.bounds)
    passed = 0
    for word in _WORD.finditer(glyphs.text):
        start, end = word.span()
        passed += end - start
        if passed - (end - start) > to_ink:
            break
        if passed >= from_ink and not any(_overlap(glyphs.box(index), corners) for index in (start, end - 1)):
            yield start, end, ""


def _overlap(one: Box, other: Box) -> bool:
    return one.start <= other.end and one.end >= other.start and one.low <= other.high and one.high >= other.low


def _false_breaks(glyphs: Glyphs, suspected: re.Pattern[str]) -> Iterator[Edit]:
    """Line ends beside a raised or lowered mark, or within a line: the text goes on where the mark or the part ends."""
    for found in suspected.finditer(glyphs.text):
        after = found.end()
        if glyphs.goes_back(found.start() - 1, after):
            continue
        before, behind = glyphs.line_box(found.start() - 1), glyphs.line_box(after)
        gap = behind.start - before.end
        height = max(before.high - before.low, behind.high - behind.low)
        if -WIDEST_TOUCH * height <= gap <= WIDEST_GAP * height and height > 0 and share_a_line(before, behind):
            yield found.start(), after, _filling(glyphs.text, found.start(), after, apart=gap > WIDEST_TOUCH * height)


def _glued(glyphs: Glyphs) -> Iterator[Edit]:
    """Ends of what pdfium takes for one word although half of it stands elsewhere. It compares places without asking
    whether they are those of the page or of a form object, and each filled-in field is such an object."""
    for word in _UNCUT.finditer(glyphs.text):
        start, last = word.start(), word.end() - 1
        if glyphs.object_of(start) != glyphs.object_of(last):
            objects = [glyphs.object_of(index) for index in range(start, last + 1)]
            for index, (before, behind) in enumerate(pairwise(objects), start=start):
                if before != behind and _stand_apart(glyphs, index):
                    yield index, index + 1, f"{glyphs.text[index]}\r\n"


def _stand_apart(glyphs: Glyphs, index: int) -> bool:
    """Whether the character behind this one stands on another line, or in another column of it. False for writing
    that is turned otherwise than most of the page."""
    if glyphs.quarters_of((index, index + 1)) != [glyphs.quarter] * 2:
        return False
    before, behind = glyphs.line_box(index), glyphs.line_box(index + 1)
    height = max(before.high - before.low, behind.high - behind.low)
    gap = max(behind.start - before.end, before.start - behind.end)
    return height > 0 and (gap > WIDEST_GAP * height or not share_a_line(before, behind))


def _filling(text: str, before: int, after: int, *, apart: bool) -> str:
    """What stands between a mark and the text that goes on: a note's own number stands apart from its words."""
    if text[after] in _CLOSING:
        return ""
    is_number_of_note = text[after].isalpha() and text[text.rfind("\n", 0, before) + 1 : before].isdigit()
    return " " if apart or is_number_of_note else ""


def _accents(glyphs: Glyphs) -> Iterator[Edit]:
    """An accent drawn over (or under) the letter beside it, as TeX's old fonts do, is one character with it."""
    text = glyphs.text
    for found in _ACCENT.finditer(text):
        start, mark = found.start(), _ACCENTS[found[0]]
        for letter_at, first, last in ((start + 1, start, start + 2), (start - 1, start - 1, start + 1)):
            letter = text[letter_at : letter_at + 1] if letter_at >= 0 else ""
            composed = unicodedata.normalize("NFC", _DOTLESS.get(letter, letter) + mark) if letter.isalpha() else ""
            if len(composed) == 1 and _is_drawn_over(glyphs.box(start), glyphs.box(letter_at)):
                yield first, last, composed
                break


def _is_drawn_over(accent: Box, letter: Box) -> bool:
    middle, slack = (accent.start + accent.end) / 2, 0.1 * (accent.high - letter.low)
    return letter.start - abs(slack) <= middle <= letter.end + abs(slack)


def _private(glyphs: Glyphs) -> Iterator[Edit]:
    """Old-style figures and small capitals as what they are; in fonts of icons the same codes are pictures."""
    for found in _PRIVATE.finditer(glyphs.text):
        plain = _ADOBE.get(ord(found[0]))
        if plain and not _ICONS.search(glyphs.font_name(found.start())):
            yield found.start(), found.end(), plain
