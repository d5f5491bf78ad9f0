"""Bytes -> text, whatever they are encoded in.

In: the bytes of a text file. Out: its text, or UnreadableSource `empty` or `not_text`. One broken byte costs one
character, U+FFFD, never the encoding of the whole file. Not here: telling the code page of a text that is no
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
"""Shares of valid among valid and broken sequences. Texts in other encodings, cut in ways that hide it best, reach
0.75 (Greek in GB18030), else 0.65; half of them valid by chance is rare."""

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
"""One such character among ASCII is rather a capital and a quotation mark of Windows-1252."""

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
    """UTF-16 or UTF-32 without a mark, or a text torn by a few NULs."""
    head = data[:HEAD_BYTES]
    without_nuls = data.replace(b"\0", b"") if head.count(0) <= MOST_NULS * len(head) else None
    if without_nuls is not None and _is_utf8(without_nuls):  # wide text that is so too has far more NULs
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
    """A torn last character is dropped; more damage than a little means that the mark was chance."""
    end = len(data) - (len(data) - start) % width_bytes
    text = data[start:end].decode(encoding, "replace")
    if encoding != "utf-8" and not _plausible(text, len(text)):
        raise UnreadableSource("not_text", f"not {encoding}")
    return text


def _detect_wide(head: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark. The detector is too quick to see it where one NUL strayed in."""
    if _ASCII_RUN.search(head):  # the header of a binary format: in wide text each second byte would be NUL
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
    """UTF-8 with some bytes broken, as a cut, a bad copy or a line of another program leaves it; None if it is not.

    Whole characters prove the encoding, since a text in any other has hardly any by chance.
    """
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd") - data.count(_WRITTEN_REPLACEMENT)
    whole = len(text) - len(data.translate(None, _HIGH_BYTES)) - broken
    share = whole / (whole + broken)
    if share >= SURELY_UTF_8 or (share >= PERHAPS_UTF_8 and _most_runs_are_utf8(data)) or _is_cut_in_one(data):
        return text
    return None


def _most_runs_are_utf8(data: bytes) -> bool:
    """Whether no more runs of high bytes are broken than whole: chance makes characters, but few whole runs."""
    runs = _HIGH_RUN.findall(sample_of(data))
    whole = [run for run in runs if _is_utf8(run)]
    return len(whole) >= len(runs) - len(whole) and (len(whole) > 1 or not _SELDOM_ALONE.fullmatch(whole[0]))


def _is_cut_in_one(data: bytes) -> bool:
    """Whether the only high bytes are the very last ones, where a character of UTF-8 was cut."""
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
    if text.count("\ufffd") > MOST_REPLACED * high_count:
        return False
    return len(_CONTROL.findall(text)) <= MOST_CONTROLS * len(text)
