"""Text as it was read -> clean text.

In: the text of a file, or text as a PDF reader gave it. Out: text without control characters and marks that only
served a layout, in NFC, once: the offsets of chunks and of the tokenizer then agree.
Not here: bytes (decode.py), the output of a terminal (terminal.py), what a PDF page says (pdf/document.py).

Every step is linear in the text, and a step whose trigger characters are absent is not taken.
"""

from __future__ import annotations

import re
import unicodedata

from embedcli.reading.text.hyphens import NO_SPELLINGS, Spellings, join_words
from embedcli.reading.text.rare import rare_characters
from embedcli.reading.text.terminal import as_shown

_LIGATURES = {
    "\x0b": "ff",
    "\x0c": "fi",
    "\r": "fl",
    "\x0e": "ffi",
    "\x0f": "ffl",
    "\x1b": "ff",
    "\x1c": "fi",
    "\x1d": "fl",
    "\x1e": "ffi",
    "\x1f": "ffl",
}
_LIGATURE = re.compile("(?<=[A-Za-z])[\x0b\x0c\x0e\x0f\x1b-\x1f]|[\x0b\x0c\x0e\x0f\x1b-\x1f](?=[A-Za-z])")
_LONE_CR = re.compile("(?<=[A-Za-z])\r(?!\n)|\r(?=[A-Za-z])")
_OLD_TEX = re.compile("[\x0b\x0c\x0e\x0f]")

_PARTED = {"\x0b": "\n", "\x0c": "\n", "\x85": "\n"} | dict.fromkeys("\x01\x1c\x1d\x1e\x1f", " ")
"""What parts lines or fields in a text file: deleting it would glue the words on either side."""

_PARTING = re.compile("[\x01\x0b\x0c\x1c-\x1f\x85]")
_DELETED = "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\ufeff\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff"  # \t and \n stay
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"
_COMPATIBLE = "\ufb00-\ufb06\u2f00-\u2fd5"
_DELETE = re.compile(f"[{_DELETED}]+")
_DELETE_PDF = re.compile(f"[{_DELETED}{_PRIVATE}]+")
_TRIGGER = re.compile(f"[{_DELETED}{_COMPATIBLE}]")
_TRIGGER_PDF = re.compile(f"[{_DELETED}{_PRIVATE}{_COMPATIBLE}]")
_MAY_COMPOSE = re.compile("[^\0-\u02ff\u2010-\u2027]")
"""All but characters that are in NFC beside any others: those before the first accent, dashes and quotation marks."""
_COMPATIBLE_RUN = re.compile(f"[{_COMPATIBLE}]+")

_CJK = (  # Han, kana, their punctuation; without U+3000, which is a blank, and without Hangul
    "\u2e80-\u2fdf\u3001-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U00020000-\U0003ffff"
)
_HAS_CJK = re.compile(f"[{_CJK}]")
_CJK_LINE_END = re.compile(f"(?<=[{_CJK}])[ \t\u3000]*+\n[ \t\u3000]*+(?=[{_CJK}])")


def clean(text: str, *, pdf: bool, spellings: Spellings = NO_SPELLINGS) -> str:
    """The text without what a layout or a damaged file left in it, in NFC. `spellings`: see hyphens.find_spellings.

    The order matters: ligature codes share their bytes with line ends, and U+0002 is a control character too.
    Left alone are the order of right-to-left text, joiners, full-width forms, and blanks of every kind.
    """
    if pdf:
        text = join_words(_expand_ligatures(text), spellings)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    trigger, delete = (_TRIGGER_PDF, _DELETE_PDF) if pdf else (_TRIGGER, _DELETE)
    rare = rare_characters(text)
    triggered = trigger.search(rare)
    if triggered:
        text = text if pdf else _PARTING.sub(lambda mark: _PARTED[mark[0]], as_shown(text))
        text = delete.sub("", text)
    if pdf and _HAS_CJK.search(rare):
        text = _CJK_LINE_END.sub("", text)
    if triggered:
        text = _COMPATIBLE_RUN.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)
    return unicodedata.normalize("NFC", text) if triggered or _MAY_COMPOSE.search(rare) else text


def _expand_ligatures(text: str) -> str:
    """TeX fonts without a Unicode map leave their codes: 0B-0F in the old layout, 1B-1F in the newer one."""
    if not any(code in text for code in _LIGATURES if code != "\r"):
        return text
    if _OLD_TEX.search(text):  # only then is a CR that ends no line an `fl`
        text = _LONE_CR.sub("fl", text)
    return _LIGATURE.sub(lambda code: _LIGATURES[code[0]], text)
