"""TODO reading.decode."""

from __future__ import annotations

import re

from embedcli.errors import UnreadableSource

HEAD_BYTES = 64 * 1024
DETECTOR_BYTES = 8 * 1024
SAMPLE_BYTES = 64 * 1024
LONGEST_LEAD_BYTES = 4 * 1024
SHORT_SAMPLE_BYTES = 200
FEWEST_MULTIBYTE = 20
MOST_REPLACED = 0.01
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
_HIGH = re.compile(rb"[\x80-\xff]")
_LONE_HIGH = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
_ASCII_RUN = re.compile(rb"[\t\n\r\x20-\x7e]{24}")
_JAPANESE_ESCAPE = re.compile(rb"\x1b(?:\$[@AB]|\([BJ])")
_NOT_LETTERS = bytes(code for code in range(256) if not (chr(code).isascii() and chr(code).isalpha()))
_NOT_HIGH = bytes(range(0x80))
_NOT_LEADS = bytes(code for code in range(256) if not 0xC2 <= code <= 0xF4)
_PRIVATE_USE = re.compile("[\ue000-\uf8ff]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x9f]")


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
    encoding = _detect(head, tuple(_WIDE), otherwise="utf-16-le")
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
    """UTF-8 with a few bytes broken, as a cut or a bad copy leaves it; None if it is something else."""
    multibyte_count = len(data.translate(None, _NOT_LEADS))
    if multibyte_count < FEWEST_MULTIBYTE:
        return None
    text = data.decode("utf-8", "replace")
    return text if text.count("\ufffd") <= MOST_REPLACED * multibyte_count else None


def _decode_legacy(data: bytes) -> str:
    sample = _sample(data)
    encoding = _detect(sample, _candidates(sample), otherwise="cp1252")
    if encoding is None:
        raise UnreadableSource("not_text", "no encoding fits")
    text = data.decode(encoding, "replace")
    if not _plausible(text, len(data.translate(None, _NOT_HIGH))):
        raise UnreadableSource("not_text", f"not {encoding}")
    return text


def _detect(sample: bytes, candidates: tuple[str, ...], *, otherwise: str) -> str | None:
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


def _sample(data: bytes) -> bytes:
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


def _plausible(text: str, high_count: int) -> bool:
    if text.count("\ufffd") > MOST_REPLACED * high_count:
        return False
    return len(_CONTROL.findall(text)) <= MOST_CONTROLS * len(text)
