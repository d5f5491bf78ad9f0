"""Bytes that say, or whose envelope says, how they are encoded -> text.

In: bytes and the label of an encoding as web pages and mails write it, or None. Out: text. Not here: bytes that say
nothing (decode.py), which is also asked where the label cannot be right.

A label is often wrong: a page that was saved again as UTF-8 still names the encoding it had before. UTF-8 beyond ASCII
is never chance in texts of one byte a character; in those of two bytes it can be, so there the label comes first.
"""

from __future__ import annotations

import codecs
import re

from embedcli.reading.text.decode import decode

MOST_REPLACED = 0.01
HEAD_BYTES = 4096

_AS_BROWSERS_DO = {  # each decodes all that its subset does, alike
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "tis-620": "cp874",
    "iso2022_jp": "iso2022_jp_ext",
    "big5": "big5hkscs",
}
_OTHER_NAMES = {"ks_c_5601-1987": "cp949", "x-sjis": "cp932", "x-mac-roman": "mac-roman", "unicode-1-1-utf-8": "utf-8"}
_SEVERAL_BYTES = frozenset(
    {"gb18030", "big5hkscs", "cp932", "cp949", "euc_jp", "johab", "hz", "utf-7", "iso2022_jp_ext", "iso2022_kr"}
)
_CHARSET = re.compile(
    rb"""<meta[^>]{0,500}?charset\s*=\s*["']?\s*([\w.:-]+)|^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]+)""",
    re.IGNORECASE,
)


def decode_declared(data: bytes, label: str | None) -> str:
    """The text; UnreadableSource as `decode` raises it."""
    codec = _codec(label)
    if codec is not None and codec in _SEVERAL_BYTES:
        text = _fitting(data, codec)
        if text is not None:
            return text
    try:
        return decode(data) if codec is None or data.startswith(codecs.BOM_UTF8) else data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    text = _fitting(data, codec or "utf-8")
    return text if text is not None else decode(data)


def decode_page(data: bytes) -> str:
    """The text of a web page or an XML file, which may name its encoding in its first lines."""
    found = _CHARSET.search(data, 0, HEAD_BYTES)
    label = (found[1] or found[2]).decode("ascii", "replace") if found else None
    return decode_declared(data, label)


def _codec(label: str | None) -> str | None:
    """What Python calls an encoding; None for one it does not know, and for those that such text cannot have."""
    if not label:
        return None
    name = label.strip(" \"'").lower()
    try:
        codec = codecs.lookup(_OTHER_NAMES.get(name, name))
    except (LookupError, ValueError):
        return None
    if codec.name.startswith(("utf-16", "utf-32")):
        return None
    return _AS_BROWSERS_DO.get(codec.name, codec.name)


def _fitting(data: bytes, codec: str) -> str | None:
    """The text if it fits, but for a few damaged characters."""
    try:
        text = data.decode(codec, "replace")
    except (LookupError, ValueError):  # `hex` and its like are known, and decode no text
        return None
    high_count = len(data) - len(data.decode("ascii", "ignore"))
    return text if text.count("\ufffd") <= MOST_REPLACED * high_count else None
