"""Corrections to a PDF that pdfium's calls cannot make: layers that are off, glyph names that it does not know.

In: the bytes of a PDF. Out: which rare things its objects name, and the bytes with an update behind them, as any editor
appends one: objects of hidden layers are emptied or marked, fonts get the map that their glyph names mean. Not here:
leaving marked objects out (pdf_page.py), opening the file (pdf.py).
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from embedcli.reading.pdf_second import inner, pypdf_errors

HIDDEN_KEY = "EmbedcliHidden"
"""Stands with the value 1 in the property list of marked content that belongs to a layer which is off."""

MOST_UNPACKED_BYTES = 16 << 20
"""Of one object stream: honest ones hold some hundred objects."""
MOST_RESOURCES = 100_000
MOST_NESTING = 20
ANNOTATION_HIDDEN = 2

_NAMES = re.compile(
    rb"/(?:OCProperties|Collection|FreeText|Stamp|Watermark|Identity-[HV]|Encrypt|ObjStm|Differences\b[^]]{0,8000})"
)
_LIGATURE_NAMES = re.compile(rb"/(?:[A-Za-z](?:_[A-Za-z])+|uni(?:[0-9A-F]{4}){2,})\b")
_LIGATURE = re.compile(r"/([A-Za-z](?:_[A-Za-z])+|uni(?:[0-9A-F]{4}){2,})(?:\.\w+)?")
_START = re.compile(rb"stream\r?\n")


@dataclass(frozen=True, slots=True)
class Hints:
    """What a file's objects name somewhere: each may be there, and where it is False it is not."""

    layers: bool = False
    typed: bool = False
    """Annotations that are text on the page: typed on it, stamped."""
    bare_codes: bool = False
    """Fonts whose codes may be mere glyph numbers."""
    ligatures: bool = False
    portfolio: bool = False
    """A collection of files whose own page may be but a placeholder."""
    encrypted: bool = False
    """Packed objects are then not looked into."""

    def __or__(self, other: Hints) -> Hints:
        return Hints(*(getattr(self, item.name) or getattr(other, item.name) for item in fields(Hints)))


def hints_of(data: bytes) -> Hints:
    """A look through all objects, packed ones too, without parsing: it costs 2 % of the reading."""
    found = set(_NAMES.findall(data))
    if b"/ObjStm" in found:
        for unpacked in _object_streams(data):
            found.update(_NAMES.findall(unpacked))
    return Hints(
        layers=b"/OCProperties" in found,
        typed=not found.isdisjoint((b"/FreeText", b"/Stamp", b"/Watermark")),
        bare_codes=not found.isdisjoint((b"/Identity-H", b"/Identity-V")),
        ligatures=any(name.startswith(b"/Diff") and _LIGATURE_NAMES.search(name) for name in found),
        portfolio=b"/Collection" in found,
        encrypted=b"/Encrypt" in found,
    )


def _object_streams(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    position = 0
    while (position := data.find(b"/ObjStm", position)) >= 0:
        position += len(b"/ObjStm")
        start = _START.search(data, position, position + 500)
        if start:
            try:
                yield zlib.decompressobj().decompress(view[start.end() :], MOST_UNPACKED_BYTES)
            except zlib.error:
                continue


@dataclass
class _Update:
    """Objects to be written anew, by number and generation."""

    reader: Any
    bodies: dict[tuple[int, int], bytes] = field(default_factory=dict)
    changed: dict[tuple[int, int], Any] = field(default_factory=dict)
    seen: set[tuple[int, int]] = field(default_factory=set)

    def new_number(self) -> int:
        return self.size + sum(number >= self.size for number, _ in self.bodies)

    @property
    def size(self) -> int:
        return int(self.reader.trailer["/Size"])


def corrected(data: bytes, hints: Hints) -> bytes:
    """The PDF, with an update where it has layers that are off or glyph names to be explained. Slow: it asks pypdf."""
    import pypdf

    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted:
            return data  # what is appended would have to be encrypted too
        update = _Update(reader)
        hidden = _Layers(reader.trailer["/Root"].get("/OCProperties")) if hints.layers else _Layers(None)
        if hints.ligatures or hidden.any_off:
            for page in reader.pages:
                _visit_page(page, update, hidden, names=hints.ligatures)
        return _with_update(data, update) if update.bodies or update.changed else data
    except pypdf_errors():
        return data


class _Layers:
    """Which optional-content groups, and conditions on them, are off when the document is opened."""

    def __init__(self, properties: Any) -> None:
        self._off: set[int] = set()
        if properties is None:
            return
        properties = properties.get_object()
        groups = _ids(properties.get("/OCGs"))
        default = inner(properties, "/D")
        if default.get("/BaseState") == "/OFF":
            self._off = groups - _ids(default.get("/ON"))
        self._off |= _ids(default.get("/OFF"))
        for event in _objects(default.get("/AS")):
            if event.get("/Event") == "/View":
                self._off |= {number for number, group in _items(event.get("/OCGs")) if _viewed(group) == "/OFF"}
                self._off -= {number for number, group in _items(event.get("/OCGs")) if _viewed(group) == "/ON"}

    @property
    def any_off(self) -> bool:
        return bool(self._off)

    def hide(self, reference: Any) -> bool:
        """Whether what this group or condition governs is not shown."""
        if reference is None:
            return False
        condition = reference.get_object()
        if _number(reference) in self._off:
            return True
        if not hasattr(condition, "get") or condition.get("/Type") != "/OCMD":
            return False
        if "/VE" in condition:
            return not self._holds(condition["/VE"], 0)
        states = [number not in self._off for number, _ in _items(condition.get("/OCGs"))]
        policy = condition.get("/P", "/AnyOn")
        shown = {"/AllOn": all(states), "/AnyOff": not all(states), "/AllOff": not any(states)}.get(policy, any(states))
        return bool(states) and not shown

    def _holds(self, expression: Any, depth: int) -> bool:
        """A visibility expression: [/And ...], [/Or ...], [/Not ...] or a group."""
        if not isinstance(expression.get_object(), list):
            return _number(expression) not in self._off
        operator, *parts = expression.get_object()
        if depth > MOST_NESTING or not parts:
            return True
        values = [self._holds(part, depth + 1) for part in parts]
        return {"/And": all(values), "/Or": any(values)}.get(operator, not values[0])


def _viewed(group: Any) -> Any:
    return inner(inner(group, "/Usage"), "/View").get("/ViewState")


def _number(reference: Any) -> int:
    return int(getattr(reference, "idnum", 0))


def _items(array: Any) -> list[tuple[int, Any]]:
    """Object number (0: none) and object of each; a single reference stands for an array of one."""
    if array is None:
        return []
    found = array.get_object()
    references = list(found) if isinstance(found, list) else [array]
    return [(_number(reference), item) for reference in references if hasattr(item := reference.get_object(), "get")]


def _objects(array: Any) -> list[Any]:
    return [item for _, item in _items(array)]


def _ids(array: Any) -> set[int]:
    return {number for number, _ in _items(array)}


def _visit_page(page: Any, update: _Update, hidden: _Layers, *, names: bool) -> None:
    owner = page.indirect_reference
    for annotation in _references(page.get("/Annots")):
        found = annotation.get_object()
        if hasattr(found, "get") and hidden.hide(_raw(found, "/OC")):
            found[_name("/F")] = _integer(ANNOTATION_HIDDEN)
            _change(update, annotation, owner, page)
    _visit(_raw(page, "/Resources"), update, hidden, owner=(owner, page), names=names, depth=0)


def _visit(
    reference: Any, update: _Update, hidden: _Layers, *, owner: tuple[Any, Any], names: bool, depth: int
) -> None:
    """One dictionary of resources. `owner` is the nearest object around it that has a number."""
    if reference is None or depth > MOST_NESTING or len(update.seen) > MOST_RESOURCES:
        return
    resources = reference.get_object()
    if not hasattr(resources, "get") or _is_known(reference, update):
        return
    owner = (reference, resources) if _number(reference) else owner
    for name, condition in _entries(resources, "/Properties"):
        if hidden.hide(condition):
            found = condition.get_object()
            found[_name(f"/{HIDDEN_KEY}")] = _integer(1)
            del name
            _change(update, condition, *_nearest(resources, "/Properties", owner))
    for _, font in _entries(resources, "/Font"):
        if names and _number(font) and not _is_known(font, update):
            _explain_names(font, update)
    for _, item in _entries(resources, "/XObject"):
        found = item.get_object()
        if not hasattr(found, "get") or found.get("/Subtype") != "/Form":
            continue
        if hidden.hide(_raw(found, "/OC")):
            update.bodies[_key(item)] = b"null"
        elif not _is_known(item, update):
            _visit(_raw(found, "/Resources"), update, hidden, owner=owner, names=names, depth=depth + 1)


def _nearest(resources: Any, key: str, owner: tuple[Any, Any]) -> tuple[Any, Any]:
    reference = _raw(resources, key)
    return (reference, reference.get_object()) if _number(reference) else owner


def _is_known(reference: Any, update: _Update) -> bool:
    """Whether this numbered object was visited before; it is from now on."""
    key = _key(reference)
    known = key in update.seen
    if key[0]:
        update.seen.add(key)
    return known


def _key(reference: Any) -> tuple[int, int]:
    return _number(reference), int(getattr(reference, "generation", 0))


def _change(update: _Update, reference: Any, owner: Any, owned: Any) -> None:
    """The object, or where it has no number the one around it, is to be written as it is now."""
    if _number(reference):
        update.changed[_key(reference)] = reference.get_object()
    elif _number(owner):
        update.changed[_key(owner)] = owned


def _raw(dictionary: Any, key: str) -> Any:
    """The value itself, a reference where it is one; None where there is none."""
    return dictionary.raw_get(key) if key in dictionary else None


def _entries(resources: Any, key: str) -> list[tuple[str, Any]]:
    found = inner(resources, key)
    return [(name, found.raw_get(name)) for name in found]


def _references(array: Any) -> list[Any]:
    found = array.get_object() if array is not None else []
    return list(found) if isinstance(found, list) else []


def _explain_names(reference: Any, update: _Update) -> None:
    """Give a font the map from its codes to what ligature names mean: pdfium takes those for their codes."""
    font = reference.get_object()
    encoding = font.get("/Encoding").get_object() if "/Encoding" in font else None
    if not hasattr(encoding, "get") or "/Differences" not in encoding:
        return
    meant = dict(_ligatures(encoding["/Differences"].get_object()))
    if not meant:
        return
    old = font["/ToUnicode"].get_object().get_data() if "/ToUnicode" in font else b""
    new = _mended_map(old, meant) if old else _new_map(meant)
    if new != old:
        number = update.new_number()
        update.bodies[number, 0] = b"<</Length %d>>stream\n" % len(new) + new + b"\nendstream"
        font[_name("/ToUnicode")] = _indirect(number, update.reader)
        update.changed[_key(reference)] = font


def _ligatures(differences: Any) -> Iterator[tuple[int, str]]:
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
    lines = b"".join(b"<%02X><%s>\n" % (code, _hex(text)) for code, text in meant.items())
    return (
        b"/CIDInit/ProcSet findresource begin begincmap 1 begincodespacerange<00><FF>endcodespacerange "
        b"%d beginbfchar\n%sendbfchar endcmap" % (len(meant), lines)
    )


def _mended_map(old: bytes, meant: dict[int, str]) -> bytes:
    """The font's own map with private code points replaced; what it says otherwise is believed."""
    for code, text in meant.items():
        old = re.sub(
            rb"<%02X>(\s*)<(?:[Ee][0-9A-Fa-f]|[Ff][0-8])[0-9A-Fa-f]{2}>" % code,
            b"<%02X><%s>" % (code, _hex(text)),
            old,
            flags=re.IGNORECASE,
        )
    return old


def _hex(text: str) -> bytes:
    return text.encode("utf-16-be").hex().upper().encode()


def _name(text: str) -> Any:
    from pypdf.generic import NameObject

    return NameObject(text)


def _integer(number: int) -> Any:
    from pypdf.generic import NumberObject

    return NumberObject(number)


def _indirect(number: int, reader: Any) -> Any:
    from pypdf.generic import IndirectObject

    return IndirectObject(number, 0, reader)


def _with_update(data: bytes, update: _Update) -> bytes:
    """The file with these objects appended, and a table of the kind that the file itself has."""
    bodies = dict(update.bodies)
    for key, item in update.changed.items():
        written = io.BytesIO()
        item.write_to_stream(written)
        bodies.setdefault(key, written.getvalue())
    start = max(data.find(b"%PDF-", 0, 1024), 0)  # places are counted from there
    parts, offsets, length = [data, b"\n"], {}, len(data) + 1 - start
    for (number, generation), body in sorted(bodies.items()):
        offsets[number, generation] = length
        parts.append(b"%d %d obj\n" % (number, generation) + body + b"\nendobj\n")
        length += len(parts[-1])
    before = int(
        (re.findall(rb"startxref\s+(\d+)", data[-2048:]) or re.findall(rb"startxref\s+(\d+)", data) or [0])[-1]
    )
    size = max(update.size, *(number + 1 for number, _ in offsets)) + 1
    keys = b"/Size %d/Prev %d" % (size, before)
    for key in ("/Root", "/Info"):
        reference = _raw(update.reader.trailer, key)
        if _number(reference):
            keys += b"%s %d %d R" % (key.encode(), *_key(reference))
    if data[start + before : start + before + 4] == b"xref":
        lines = b"".join(b"%d 1\n%010d %05d n \n" % (n, offset, g) for (n, g), offset in offsets.items())
        parts.append(b"xref\n" + lines + b"trailer\n<<" + keys + b">>\n")
    else:
        offsets[size - 1, 0] = length
        rows = b"".join(struct.pack(">BIH", 1, offset, g) for (_, g), offset in offsets.items())
        index = b" ".join(b"%d 1" % number for number, _ in offsets)
        parts.append(
            b"%d 0 obj\n<</Type/XRef/W[1 4 2]/Index[%s]%s/Length %d>>stream\n" % (size - 1, index, keys, len(rows))
            + rows
            + b"\nendstream\nendobj\n"
        )
    return b"".join((*parts, b"startxref\n%d\n%%%%EOF\n" % length))
