"""Which rare things a PDF's objects name, found without parsing it.

In: the bytes of a PDF, or of a part of it. Out: Hints. Not here: what is done about them (document.py, page.py).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields

MOST_UNPACKED_BYTES = 512 << 20
"""Of all object streams of a file, so that no bomb is unpacked to its end; one of 7 MB unpacks to 10."""
MOST_AT_ONCE_BYTES = 16 << 20
"""Of one stream: honest ones hold some hundred objects."""

_NAMES = re.compile(
    rb"/(?:OCProperties|OCMD|Collection|FreeText|Stamp|Watermark|Identity-[HV]|Encrypt|ObjStm|Subtype\s*/Form\b"
    rb"|Differences\b[^]]{0,8000})"
)
_LIGATURE_NAMES = re.compile(rb"/(?:[A-Za-z](?:_[A-Za-z])+|uni(?:[0-9A-F]{4}){2,})\b")
_START = re.compile(rb"stream\r?\n")
_BLOCK_BYTES = 1 << 16
"""Given to zlib at once: it copies what is left over behind a stream."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What a file's objects name somewhere: each may be there, and where it is False it is not."""

    layers: bool = False
    conditions: bool = False
    """On layers: what one governs may be hidden although all layers are on."""
    typed: bool = False
    """Annotations that are text on the page: typed on it, stamped."""
    bare_codes: bool = False
    """Fonts whose codes may be mere glyph numbers."""
    ligatures: bool = False
    parts: bool = False
    """Form objects: what is drawn in a space of its own, and then set somewhere on the page."""
    portfolio: bool = False
    """A collection of files whose own page may be but a placeholder."""
    encrypted: bool = False
    """Packed objects are then not looked into."""

    def __or__(self, other: Hints) -> Hints:
        return Hints(*(getattr(self, item.name) or getattr(other, item.name) for item in fields(Hints)))


def hints_of(data: bytes, *, most_unpacked_bytes: int = MOST_UNPACKED_BYTES) -> Hints:
    """A look through all objects, packed ones too, without parsing: it costs 2 % of the reading."""
    found = set(_NAMES.findall(data))
    if b"/ObjStm" in found:
        for unpacked in _object_streams(data, most_unpacked_bytes):
            found.update(_NAMES.findall(unpacked))
    return Hints(
        layers=b"/OCProperties" in found,
        conditions=b"/OCMD" in found,
        typed=not found.isdisjoint((b"/FreeText", b"/Stamp", b"/Watermark")),
        bare_codes=not found.isdisjoint((b"/Identity-H", b"/Identity-V")),
        ligatures=any(name.startswith(b"/Diff") and _LIGATURE_NAMES.search(name) for name in found),
        parts=any(name.startswith(b"/Subtype") for name in found),
        portfolio=b"/Collection" in found,
        encrypted=b"/Encrypt" in found,
    )


def _object_streams(data: bytes, most_bytes: int) -> Iterator[bytes]:
    """The beginnings of what is packed, until `most_bytes` are unpacked in all."""
    view = memoryview(data)
    position = 0
    while most_bytes > 0 and (position := data.find(b"/ObjStm", position)) >= 0:
        position += len(b"/ObjStm")
        start = _START.search(data, position, position + 500)
        if start:
            try:
                unpacked = _unpacked(view[start.end() :], min(MOST_AT_ONCE_BYTES, most_bytes))
            except zlib.error:
                continue
            most_bytes -= len(unpacked)
            yield unpacked


def _unpacked(view: memoryview, most_bytes: int) -> bytes:
    """At most so many bytes of the stream at the beginning of `view`."""
    decompressor = zlib.decompressobj()
    unpacked = bytearray()
    for start in range(0, len(view), _BLOCK_BYTES):
        unpacked += decompressor.decompress(view[start : start + _BLOCK_BYTES], most_bytes - len(unpacked))
        if decompressor.eof or len(unpacked) >= most_bytes:
            break
    return bytes(unpacked)
