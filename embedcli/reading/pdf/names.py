"""Names of glyphs that pdfium does not know: `f_f_i`, `T_h`, `uni00660069`. It takes them for their codes.

In: the differences of a font's encoding, and its map to Unicode if it has one. Out: a map that says what they mean.
Not here: how it gets into the document (overlay.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_LIGATURE = re.compile(r"/([A-Za-z](?:_[A-Za-z])+|uni(?:[0-9A-F]{4}){2,})(?:\.\w+)?")


def ligature_map(differences: Iterable[object], old: bytes) -> bytes:
    """The font's map with its ligatures in it; `old` is the one it has, or empty, and comes back if it is right."""
    meant = dict(_ligatures(differences))
    if not meant:
        return old
    return _mended_map(old, meant) if old else _new_map(meant)


def _ligatures(differences: Iterable[object]) -> Iterator[tuple[int, str]]:
    code = 0
    for item in differences:
        if isinstance(item, int):
            code = int(item)
            continue
        match = _LIGATURE.fullmatch(str(item))
        if match and 0 <= code < 256:
            yield code, _spelled(match[1])
        code += 1


def _spelled(name: str) -> str:
    if name.startswith("uni") and "_" not in name:
        return bytes.fromhex(name[3:]).decode("utf-16-be", "ignore")
    return name.replace("_", "")


def _new_map(meant: dict[int, str]) -> bytes:
    return (
        b"/CIDInit/ProcSet findresource begin begincmap 1 begincodespacerange<00><FF>endcodespacerange "
        + _pairs(meant)
        + b"endcmap"
    )


def _pairs(meant: dict[int, str]) -> bytes:
    lines = b"".join(b"<%02X><%s>\n" % (code, _hex(text)) for code, text in meant.items())
    return b"%d beginbfchar\n%sendbfchar\n" % (len(meant), lines)


def _mended_map(old: bytes, meant: dict[int, str]) -> bytes:
    """The font's own map with private code points replaced and gaps filled; what it says otherwise is believed."""
    missing = {}
    for code, text in meant.items():
        entry = re.compile(rb"<%02X>\s*<(?:[Ee][0-9A-Fa-f]|[Ff][0-8])[0-9A-Fa-f]{2}>" % code, re.IGNORECASE)
        new = entry.sub(b"<%02X><%s>" % (code, _hex(text)), old)
        if new == old and b"<%02X>" % code not in old.upper() and b"beginbfrange" not in old:
            missing[code] = text
        old = new
    return old.replace(b"endcmap", _pairs(missing) + b"endcmap", 1) if missing else old


def _hex(text: str) -> bytes:
    return text.encode("utf-16-be").hex().upper().encode()
