"""Bytes -> text, and text -> clean text.

In: the bytes of a text file, or text as a PDF reader gave it. Out: text without mojibake, control characters
and marks that only served a layout, in NFC, once: the offsets of chunks and of the tokenizer then agree.
Not here: which bytes are text and which are a PDF (readers.py), what a PDF page says (pdf.py).

Every step is linear in the text, and a step whose trigger characters are absent is not taken.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

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
_LIGATURE_CODE = re.compile("[\x0b\x0c\x0e\x0f\x1b-\x1f]")
_LONE_CR = re.compile("(?<=[A-Za-z])\r(?!\n)|\r(?=[A-Za-z])")
_OLD_TEX = re.compile("[\x0b\x0c\x0e\x0f]")

_LETTERS = r"[^\W\d_]"
_JOINED = re.compile(f"(?<!{_LETTERS})({_LETTERS}*+)\x02(?=({_LETTERS}*+))")
_HYPHENATED = re.compile(f"(?<!{_LETTERS})({_LETTERS}++)-(?=({_LETTERS}++))")
_WORD = re.compile(f"{_LETTERS}++")

_DELETED = "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\ufeff\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff"  # \t and \n stay
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"
_COMPATIBLE = "\ufb00-\ufb06\u2f00-\u2fd5"
_DELETE = re.compile(f"[{_DELETED}]+")
_DELETE_PDF = re.compile(f"[{_DELETED}{_PRIVATE}]+")
_TRIGGER = re.compile(f"[{_DELETED}{_COMPATIBLE}]")
_TRIGGER_PDF = re.compile(f"[{_DELETED}{_PRIVATE}{_COMPATIBLE}]")
_COMPATIBLE_RUN = re.compile(f"[{_COMPATIBLE}]+")

_CJK = (  # Han, kana, their punctuation; without U+3000, which is a blank, and without Hangul
    "\u2e80-\u2fdf\u3001-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U00020000-\U0003ffff"
)
_HAS_CJK = re.compile(f"[{_CJK}]")
_CJK_LINE_END = re.compile(f"(?<=[{_CJK}])[ \t\u3000]*+\n[ \t\u3000]*+(?=[{_CJK}])")


def clean(text: str, *, pdf: bool, compounds: frozenset[str] = frozenset()) -> str:
    """The text without what a layout or a damaged file left in it, in NFC. `compounds`: see find_compounds.

    The order matters: ligature codes share their bytes with line ends, and U+0002 is a control character too.
    Left alone are the order of right-to-left text, joiners, full-width forms, and blanks of every kind.
    """
    if pdf:
        text = _join_words(_expand_ligatures(text), compounds)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    trigger, delete = (_TRIGGER_PDF, _DELETE_PDF) if pdf else (_TRIGGER, _DELETE)
    triggered = trigger.search(text)
    if triggered:
        text = delete.sub("", text)
    if pdf and not text.isascii() and _HAS_CJK.search(text):
        text = _CJK_LINE_END.sub("", text)
    if triggered:
        text = _COMPATIBLE_RUN.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)
    return unicodedata.normalize("NFC", text)


def _expand_ligatures(text: str) -> str:
    """TeX fonts without a Unicode map leave their codes: 0B-0F in the old layout, 1B-1F in the newer one."""
    if _LIGATURE_CODE.search(text) is None:
        return text
    if _OLD_TEX.search(text):  # only then is a CR that ends no line an `fl`
        text = _LONE_CR.sub("fl", text)
    return _LIGATURE.sub(lambda code: _LIGATURES[code[0]], text)


def find_compounds(pages: Sequence[str]) -> frozenset[str]:
    """Words cut at a line end (U+0002) that the document elsewhere spells with a hyphen, and never without.

    Lower case, with their hyphen. Of 100 cut words 76 occur joined elsewhere, and 3 only with a hyphen.
    """
    cut = _pairs(_JOINED, (_words_with("\x02", page) for page in pages))
    if not cut:
        return frozenset()
    spelled = _pairs(_HYPHENATED, (_words_with("-", page) for page in pages))
    wanted = {compound.replace("-", ""): compound for compound in cut & spelled}
    for page in pages if wanted else ():
        lower = page.lower()
        near = {word for word in wanted if word in lower}  # few, and found far sooner than every word of the page
        for word in near & set(_WORD.findall(lower)) if near else ():
            del wanted[word]
    return frozenset(wanted.values())


def _pairs(pattern: re.Pattern[str], texts: Iterable[str]) -> set[str]:
    return {f"{first}-{second}".lower() for text in texts for first, second in pattern.findall(text)}


def _words_with(mark: str, page: str) -> str:
    """Far less to search than the page."""
    return " ".join(word for word in page.split() if mark in word) if mark in page else ""


def _join_words(text: str, compounds: frozenset[str]) -> str:
    if "\x02" not in text:
        return text
    if compounds:
        text = _JOINED.sub(
            lambda cut: cut[1] + "-" * (f"{cut[1]}-{cut[2]}".lower() in compounds),
            text,
        )
    return text.replace("\x02", "")
