"""Bytes -> text, whatever they are encoded in.

In: the bytes of a text file. Out: its text, or UnreadableSource `empty` or `not_text`. One broken byte costs one
character, U+FFFD, never the encoding of the whole file. Not here: detecting the code page of a text that is not in
Unicode (legacy.py), control characters and line ends (clean.py).
"""

from __future__ import annotations

import re

from embedcli.errors import UnreadableSource
from embedcli.reading.text.legacy import detect, detect_legacy, sample_of

HEAD_BYTES = 64 * 1024
DETECTOR_BYTES = 8 * 1024
MOST_REPLACED = 0.01
SURELY_UTF_8 = 0.8
PERHAPS_UTF_8 = 0.5
"""A text is UTF-8 if at least this share of its sequences of high bytes is valid UTF-8: the first suffices alone, the
second only if most runs of high bytes are valid too. Texts in other encodings, cut where they look most like UTF-8,
reach 0.75 (Greek in GB18030), most of them 0.65; even half is rare by chance."""

MOST_CONTROLS = 0.02
MOST_NULS = 0.02

_BOMS = (  # UTF-32 before UTF-16: its little-endian mark begins with that of UTF-16
    (b"\x00\x00\xfe\xff", "utf-32-be", 4),
    (b"\xff\xfe\x00\x00", "utf-32-le", 4),
    (b"\xef\xbb\xbf", "utf-8", 1),
    (b"\xfe\xff", "utf-16-be", 2),
    (b"\xff\xfe", "utf-16-le", 2),
)
_MAGICS = (
    b"%PDF-",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"\x7fELF",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    b"7z\xbc\xaf\x27\x1c",
    b"\xfd7zXZ\x00",
)
_WIDE = {"utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}
_ASCII_RUN = re.compile(rb"[\t\n\r\x20-\x7e]{24}")
_JAPANESE_ESCAPE = re.compile(rb"\x1b(?:\$[@AB]|\([BJ])")
_NOT_HIGH = bytes(range(0x80))
_HIGH_BYTES = bytes(range(0x80, 0x100))
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_WRITTEN_REPLACEMENT = "\ufffd".encode()
_SELDOM_ALONE = re.compile(rb"[\xc6-\xdf][\x80-\xbf]")
"""If a text has only one such character among ASCII, it is more likely a capital and a quotation mark in
Windows-1252."""

_CUT_CHARACTER = re.compile(rb"(?:(?<=[a-z])[\xc2-\xc5]|[\xe1-\xef][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]?)\Z")
_PRIVATE_USE = re.compile("[\ue000-\uf8ff]")
_CONTROL = re.compile("[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f-\x9f]")  # not those of a terminal's output


def decode(data: bytes) -> str:
    """The text of a file; UnreadableSource `empty` for no bytes, `not_text` where text would be a guess."""
    if not data:
        raise UnreadableSource("empty")
    for bom, encoding, width in _BOMS:
        if data.startswith(bom):
            return _decode_marked(data, encoding, width, start=len(bom))
    if data.startswith(_MAGICS):
        raise UnreadableSource("not_text", "the first bytes are those of a binary format")
    if b"\0" in data[:HEAD_BYTES]:  # before UTF-8: UTF-16 English is valid UTF-8
        return _decode_with_nuls(data)
    return _decode_unmarked(data)


def _decode_with_nuls(data: bytes) -> str:
    """Decode UTF-16 or UTF-32 without a byte order mark, or a text with a few stray NULs, which are deleted."""
    head = data[:HEAD_BYTES]
    without_nuls = data.replace(b"\0", b"") if head.count(0) <= MOST_NULS * len(head) else None
    if without_nuls is not None and _is_utf8(without_nuls):  # UTF-16 can be valid UTF-8 too, but then has far more NULs
        return without_nuls.decode("utf-8")
    encoding = _detect_wide(data[:DETECTOR_BYTES])
    if encoding:
        return _decode_marked(data, encoding, _WIDE[encoding], start=0)
    if without_nuls is None:
        raise UnreadableSource("not_text", "NUL bytes")
    return _decode_unmarked(without_nuls)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _decode_marked(data: bytes, encoding: str, width_bytes: int, *, start: int) -> str:
    """Decode from `start` on in the encoding that a byte order mark or the detector named. A torn last character is
    dropped. If more than a little is broken, the bytes only look like that encoding: `not_text`."""
    end = len(data) - (len(data) - start) % width_bytes
    text = data[start:end].decode(encoding, "replace")
    if encoding != "utf-8" and not _plausible(text, len(text)):
        raise UnreadableSource("not_text", f"not {encoding}")
    return text


def _detect_wide(head: bytes) -> str | None:
    """The encoding of UTF-16 or UTF-32 without a byte order mark, or None.

    The detector also names one for other text with a single stray NUL, so its answer is checked for private-use
    characters.
    """
    if _ASCII_RUN.search(head):  # the header of a binary format: in wide text every second byte would be NUL
        return None
    encoding = detect(head, tuple(_WIDE), otherwise="utf-16-le")
    if encoding not in _WIDE:
        return None
    text = head.decode(encoding, "replace")
    return encoding if len(_PRIVATE_USE.findall(text)) <= MOST_REPLACED * len(text) else None


def _decode_unmarked(data: bytes) -> str:
    if data.isascii() and _JAPANESE_ESCAPE.search(data):
        try:
            return data.decode("iso2022_jp_ext")
        except UnicodeDecodeError:
            pass  # escapes of a terminal
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _torn_utf8(data) or _decode_legacy(data)


def _torn_utf8(data: bytes) -> str | None:
    """The text, if it is UTF-8 in which a cut, a bad copy or a line of another program broke some bytes; else None.

    Valid sequences prove the encoding: text in any other encoding has hardly any by chance.
    """
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd") - data.count(_WRITTEN_REPLACEMENT)
    whole = len(text) - len(data.translate(None, _HIGH_BYTES)) - broken
    share = whole / (whole + broken)
    if share >= SURELY_UTF_8 or (share >= PERHAPS_UTF_8 and _most_runs_are_utf8(data)) or _ends_within_character(data):
        return text
    return None


def _most_runs_are_utf8(data: bytes) -> bool:
    """Whether at least half of the runs of high bytes are valid UTF-8. In other encodings single characters are valid
    by chance, whole runs seldom."""
    runs = _HIGH_RUN.findall(sample_of(data))
    whole = [run for run in runs if _is_utf8(run)]
    return len(whole) >= len(runs) - len(whole) and (len(whole) > 1 or not _SELDOM_ALONE.fullmatch(whole[0]))


def _ends_within_character(data: bytes) -> bool:
    """Whether the only high bytes are the last ones, the beginning of a UTF-8 character that was cut."""
    return data[:-3].isascii() and _CUT_CHARACTER.search(data) is not None


def _decode_legacy(data: bytes) -> str:
    encoding = detect_legacy(data)
    if encoding is None:
        raise UnreadableSource("not_text", "no encoding fits")
    text = data.decode(encoding, "replace")
    if not _plausible(text, len(data.translate(None, _NOT_HIGH))):
        raise UnreadableSource("not_text", f"not {encoding}")
    return text


def _plausible(text: str, high_count: int) -> bool:
    """Whether few enough of `high_count` characters or bytes were replaced, and few of the text's are controls."""
    if text.count("\ufffd") > MOST_REPLACED * high_count:
        return False
    return len(_CONTROL.findall(text)) <= MOST_CONTROLS * len(text)
