"""Bytes that are no Unicode -> the code page they are written in.

In: the bytes of a text file that are not UTF-8, UTF-16 or UTF-32. Out: the name of a Python codec, or None where
none fits. Not here: the forms of Unicode, and what is no text (decode.py).

A detector judges by the letters of a language. Where a text has few of them, or none but symbols, it errs: there
the way in which each character stands among its neighbours decides (`_oddness`), and a tie of symbols goes to
Windows-1252.
"""

from __future__ import annotations

import re
import unicodedata

SAMPLE_BYTES = 64 * 1024
LONGEST_LEAD_BYTES = 4 * 1024
SHORT_SAMPLE_BYTES = 200
JUDGED_BYTES = 8 * 1024
"""Of the sample, whose characters are looked at one by one."""

ONE_WORD_BYTES = 6
"""A sample as short as this says nothing of its language."""

MOST_ODD = 0.5
"""The oddness a character, on average, up to which a text is believed to be in a page of DOS or Mac."""

_LATIN = (
    *("cp1250", "cp1252", "cp1254", "cp1257", "cp1258"),
    *("iso8859-1", "iso8859-2", "iso8859-15", "cp850", "mac-roman"),
)
_COMMON = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874"),
    *("koi8-r", "cp866", "iso8859-1", "iso8859-2", "iso8859-5", "iso8859-7", "iso8859-9", "iso8859-15"),
    *("gb18030", "big5hkscs", "cp932", "euc_jis_2004", "cp949"),
)
_ALL = (
    *_COMMON,
    *("cp720", "cp1006", "cp1125", "cp437", "cp737", "cp775", "cp850", "cp852", "cp855", "cp856", "cp857"),
    *("cp858", "cp860", "cp861", "cp862", "cp863", "cp864", "cp865", "cp869", "euc_kr", "johab"),
    *("iso8859-3", "iso8859-4", "iso8859-6", "iso8859-8", "iso8859-10", "iso8859-13", "iso8859-14"),
    *("iso8859-16", "koi8-t", "koi8-u", "kz1048", "mac-cyrillic", "mac-greek", "mac-iceland", "mac-latin2"),
    *("mac-roman", "mac-turkish", "ptcp154", "shift_jis_2004", "tis-620", "hp-roman8"),
)
_SUPERSETS = {  # each decodes all that its subset does, alike
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
}
_OLDER = ("cp850", "cp437", "mac-roman")

_HIGH = re.compile(rb"[\x80-\xff]")
_LONE_HIGH = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
_NOT_LETTERS = bytes(code for code in range(256) if not (chr(code).isascii() and chr(code).isalpha()))
_NOT_HIGH = bytes(range(0x80))
_OVERSTRUCK = re.compile(rb"[^\n]\x08")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_ENGLISH = re.compile(r"\b(?:the|and|of)\b", re.IGNORECASE)
_POWER = re.compile(r"(?<![^\W\d_])(?:[a-y]|[cdkmnµ]m|ft|in|yd)$")
"""What is squared: a unit or a variable; not `z`, as the Polish write `z\u0142` after each price."""

_CURRENCIES = "€£¥"
_BEFORE_WORDS = "‚„¿¡" + _CURRENCIES
_INSIDE_WORDS = "’·×−"
_SIGNS = "©®™¦¬§¶¢"
_FRACTIONS = "½¼¾"
_PAIRS = {"«": "»", "»": "«", "„": "“”", "‚": "‘’", "¡": "!", "¿": "?"}
_LETTERLIKE = "ªºµ"


def detect_legacy(data: bytes) -> str | None:
    """The code page of a text that holds at least one byte >= 0x80; None where no one fits."""
    whole = sample_of(data)
    sample = _OVERSTRUCK.sub(b"", whole) or whole  # all of it may be struck over, and a detector wants something
    found = detect(sample, _candidates(sample), otherwise="cp1252")
    start = sample[:JUDGED_BYTES]
    if found is None:
        return None
    letters = _letters(start, found)
    if all(_is_latin(letter) for letter in letters):
        return _among_latin(start, found)
    only_symbols = not _letters(start, "cp1252")
    return "cp1252" if only_symbols and _judge(start, "cp1252") <= _judge(start, found) else found


def _among_latin(sample: bytes, found: str) -> str:
    """Windows-1252, DOS or Mac where their characters stand better than those of the page found."""
    odd, windows = _judge(sample, found), _judge(sample, "cp1252")
    other, page = min((_judge(sample, page), number, page) for number, page in enumerate(_OLDER))[::2]
    if other + 1 <= min(odd, windows) and other <= MOST_ODD * len(_HIGH.findall(sample)):
        return page
    says_nothing = not _letters(sample, "cp1252") or len(sample) <= ONE_WORD_BYTES
    return "cp1252" if windows <= odd - (0 if says_nothing else 1) else found


def detect(sample: bytes, candidates: tuple[str, ...], *, otherwise: str) -> str | None:
    """What the detector takes the sample for; `otherwise` where it cannot say."""
    import chardet  # loads tables of 60 ms; most files never need it

    found = chardet.detect(
        sample,
        compat_names=False,
        prefer_superset=False,  # it would call iso8859-5 cp1251
        include_encodings=candidates,
        no_match_encoding=otherwise,
    )
    encoding = found["encoding"]
    return None if encoding is None else _SUPERSETS.get(encoding, encoding)


def sample_of(data: bytes) -> bytes:
    """Up to 64 KiB of the lines that hold a byte >= 0x80, wherever they stand: only those tell the encoding.

    A line may begin in the middle of a very long one, but only among ASCII bytes: no character is cut there.
    """
    lines: list[bytes] = []
    size_bytes = position = 0
    while size_bytes < SAMPLE_BYTES and (high := _HIGH.search(data, position)):
        line_start = data.rfind(b"\n", position, high.start()) + 1
        start = max(line_start, position, high.start() - LONGEST_LEAD_BYTES)
        end = data.find(b"\n", high.start(), start + SAMPLE_BYTES - size_bytes)
        end = end + 1 if end >= 0 else min(start + SAMPLE_BYTES - size_bytes, len(data))
        lines.append(data[start:end])
        size_bytes += end - start
        position = end
    return b"".join(lines)


def _candidates(sample: bytes) -> tuple[str, ...]:
    """Few high bytes that mostly stand alone are accents: without this an accented `deja vu` is Cyrillic."""
    high_count = len(sample.translate(None, _NOT_HIGH))
    letter_count = high_count + len(sample.translate(None, _NOT_LETTERS))
    lone_count = len(_LONE_HIGH.findall(sample))
    if high_count < 0.4 * letter_count and lone_count >= 0.6 * high_count:
        return _LATIN
    return _COMMON if len(sample) < SHORT_SAMPLE_BYTES else _ALL


def _letters(sample: bytes, encoding: str) -> set[str]:
    """The letters of the sample that are not ASCII."""
    text = sample.decode(encoding, "replace")
    return {letter for letter in _NOT_ASCII.findall(text) if letter.isalpha() and letter not in _LETTERLIKE}


def _is_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("LATIN")


def _judge(sample: bytes, encoding: str) -> float:
    """How odd the characters of the sample are in an encoding, all together; 0 where each is in its place."""
    text = sample.decode(encoding, "replace")
    strange = 0.7 if 12 * len(_ENGLISH.findall(text)) >= text.count(" ") + 1 else 0.0
    single = "".join(quote for quote, others in _PAIRS.items() if not any(other in text for other in others))
    total = 0.0
    for match in _NOT_ASCII.finditer(text):
        character = match[0]
        total += _oddness(text, match.start())
        total += 0.6 * (character in single) + strange * (character.isalpha() and not _in_windows(character))
    return total


def _in_windows(character: str) -> bool:
    return character <= "\xff" or character in "ŠšŽžŒœŸƒ"


def _oddness(text: str, place: int) -> float:
    """How odd a character is where it stands: 0 in its place, 2 where nobody would write it, 8 if it is none."""
    character, kind = text[place], unicodedata.category(text[place])
    before, after = text[place - 1 : place] or " ", text[place + 1 : place + 2] or " "
    if character == "\ufffd" or kind in {"Cc", "Cn", "Co"}:
        return 8
    if character in _LETTERLIKE or kind[0] == "M":
        return 0
    if kind[0] == "L":
        return _oddness_of_letter(character, before, after)
    if kind == "Sk":
        return 2
    if kind == "No":
        return _oddness_of_number(character, text[max(0, place - 3) : place], after)
    return _oddness_of_symbol(character, before, after)


def _oddness_of_symbol(symbol: str, before: str, after: str) -> float:
    inside, alone = before.isalpha() and after.isalpha(), before.isspace() and after.isspace()
    if symbol == "\xa0":
        return 0.5 if inside else 0.3 if before.isspace() or after.isspace() else 0
    if symbol == "\xad":
        return 0 if inside else 1
    if "\u2500" <= symbol <= "\u259f":  # a line or an area is drawn with several
        return 0 if before == symbol or after == symbol else 0.5 if before.isspace() or after.isspace() else 2
    if symbol in _BEFORE_WORDS:
        return 2 if before.isalpha() else float(symbol in _CURRENCIES and after.isalpha())
    if symbol in _SIGNS and not before.isalpha() and (after.isalpha() or not (before + after).isascii()):
        return 1
    if symbol in "–—":
        return 0.3 if inside else 0.6 if before.isalpha() and after.isspace() else 0
    if inside:
        return 0 if symbol in _INSIDE_WORDS else 2
    if symbol in "§¢":
        return 0.6 if before.isalpha() else 0
    return 0.3 if (symbol == "…" and (alone or after.isalpha())) or (symbol in "†‡" and not alone) else 0


def _oddness_of_letter(letter: str, before: str, after: str) -> float:
    latin = _is_latin(letter)
    if not before.isalpha() and not after.isalpha():
        return 2 if before.isdigit() or after.isdigit() else 1 if latin and letter.isupper() else 0.3
    if before == letter == after:
        return 1
    if letter.islower() and after.isupper():
        return 2
    if letter.isupper() and (before.islower() or (before.isupper() and after.islower())):
        return 2 if before.islower() else 1
    return 2 if not latin and (_is_ascii_letter(before) or _is_ascii_letter(after)) else 0


def _oddness_of_number(number: str, before: str, after: str) -> float:
    """`m²`, `10³` and `½ cup` are well; a raised figure after a word is a note, or a letter of another page."""
    if after.isalpha() or not after.isascii() or (number in _FRACTIONS and before[-1:].isalpha()):
        return 2
    if not before[-1:].isalpha() or (number in "²³" and _POWER.search(before)):
        return 0
    return 0.6


def _is_ascii_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()
