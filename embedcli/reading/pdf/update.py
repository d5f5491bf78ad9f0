"""An update appended to a PDF, as any editor appends one: pdfium then reads the new objects in place of the old.

In: a file's bytes and the objects to be replaced. Out: the bytes with the update behind them. Not here: which objects
(overlay.py).
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass, field
from typing import Any

from embedcli.reading.pdf.second import number_of

Key = tuple[int, int]
"""Number and generation of an object; number 0: it has none, and stands within another."""

_PLACE = re.compile(rb"startxref\s+(\d+)")


def key_of(reference: Any) -> Key:
    return number_of(reference), int(getattr(reference, "generation", 0))


@dataclass
class Update:
    """Objects to be written anew: as bytes, or as pypdf's objects which were changed where they stand."""

    reader: Any
    bodies: dict[Key, bytes] = field(default_factory=dict)
    changed: dict[Key, Any] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not self.bodies and not self.changed

    def add(self, body: bytes) -> int:
        """The number of a new object."""
        number = self._size + sum(number >= self._size for number, _ in self.bodies)
        self.bodies[number, 0] = body
        return number

    def appended_to(self, data: bytes) -> bytes:
        """The file with these objects, and a table of the kind that the file itself has."""
        bodies = self._written()
        start = max(data.find(b"%PDF-", 0, 1024), 0)  # places are counted from there
        parts, places, length = [data, b"\n"], {}, len(data) + 1 - start
        for key, body in sorted(bodies.items()):
            places[key] = length
            parts.append(b"%d %d obj\n" % key + body + b"\nendobj\n")
            length += len(parts[-1])
        before = int((_PLACE.findall(data[-2048:]) or _PLACE.findall(data) or [0])[-1])
        own_number = max(self._size, *(number + 1 for number, _ in places))
        keys = self._trailer(own_number + 1, before)
        if data[start + before : start + before + 4] == b"xref":
            lines = b"".join(b"%d 1\n%010d %05d n \n" % (n, place, g) for (n, g), place in places.items())
            parts.append(b"xref\n" + lines + b"trailer\n<<" + keys + b">>\n")
        else:
            places[own_number, 0] = length
            rows = b"".join(struct.pack(">BIH", 1, place, g) for (_, g), place in places.items())
            index = b" ".join(b"%d 1" % number for number, _ in places)
            head = b"<</Type/XRef/W[1 4 2]/Index[%s]%s/Length %d>>stream\n" % (index, keys, len(rows))
            parts.append(b"%d 0 obj\n" % own_number + head + rows + b"\nendstream\nendobj\n")
        return b"".join((*parts, b"startxref\n%d\n%%%%EOF\n" % length))

    @property
    def _size(self) -> int:
        return int(self.reader.trailer["/Size"])

    def _written(self) -> dict[Key, bytes]:
        bodies = dict(self.bodies)
        for key, item in self.changed.items():
            written = io.BytesIO()
            item.write_to_stream(written)
            bodies.setdefault(key, written.getvalue())
        return bodies

    def _trailer(self, size: int, before: int) -> bytes:
        keys = b"/Size %d/Prev %d" % (size, before)
        for name in ("/Root", "/Info"):
            reference = self.reader.trailer.raw_get(name) if name in self.reader.trailer else None
            if number_of(reference):
                keys += b"%s %d %d R" % (name.encode(), *key_of(reference))
        return keys
