"""Corrections to a PDF that pdfium's calls cannot make: layers that are off, glyph names that it does not know.

In: the bytes of a PDF. Out: the bytes with an update behind them: objects of hidden layers are emptied or marked, fonts
get the map that their glyph names mean. Not here: leaving marked objects out (page.py), opening the file (document.py).
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from embedcli.reading.pdf.hints import Hints
from embedcli.reading.pdf.layers import Layers
from embedcli.reading.pdf.names import ligature_map
from embedcli.reading.pdf.second import inner, number_of, pypdf_errors
from embedcli.reading.pdf.update import Key, Update, key_of
from embedcli.records import Beat

HIDDEN_KEY = "EmbedcliHidden"
"""Stands with the value 1 in the property list of marked content that belongs to a layer which is off."""

MOST_RESOURCES = 100_000
MOST_NESTING = 20
ANNOTATION_HIDDEN = 2


def corrected(data: bytes, hints: Hints, beat: Beat) -> bytes:
    """The PDF, with an update where it has layers that are off or glyph names to be explained. Slow: it asks pypdf."""
    import pypdf

    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted:
            return data  # what is appended would have to be encrypted too
        layers = Layers(inner(inner(reader.trailer, "/Root"), "/OCProperties"))
        walk = _Walk(Update(reader), layers, names=hints.ligatures)
        if hints.ligatures or hints.conditions or layers.any_off:
            for page in reader.pages:
                beat(0)
                walk.visit_page(page)
        return data if walk.update.is_empty else walk.update.appended_to(data)
    except pypdf_errors():
        return data


@dataclass
class _Walk:
    """Through the resources of all pages, each numbered object once."""

    update: Update
    layers: Layers
    names: bool
    seen: set[Key] = field(default_factory=set)

    def visit_page(self, page: Any) -> None:
        try:
            self._hide_annotations(page)
            self._visit(_raw(page, "/Resources"), (page.indirect_reference, page), depth=0)
        except pypdf_errors():
            return  # the other pages may still be had

    def _hide_annotations(self, page: Any) -> None:
        for annotation in _references(page.get("/Annots")):
            found = annotation.get_object()
            if hasattr(found, "raw_get") and self.layers.hide(_raw(found, "/OC")):
                _set_number(found, "/F", ANNOTATION_HIDDEN)
                self._change(annotation, (page.indirect_reference, page))

    def _visit(self, reference: Any, owner: tuple[Any, Any], *, depth: int) -> None:
        """One dictionary of resources. `owner` is the nearest object around it that has a number, and its reference."""
        if reference is None or depth > MOST_NESTING or len(self.seen) > MOST_RESOURCES:
            return
        resources = reference.get_object()
        if not hasattr(resources, "raw_get") or self._is_known(reference):
            return
        owner = (reference, resources) if number_of(reference) else owner
        for condition in _entries(resources, "/Properties"):
            if self.layers.hide(condition):
                _set_number(condition.get_object(), f"/{HIDDEN_KEY}", 1)
                self._change(condition, _around(resources, "/Properties", owner))
        for font in _entries(resources, "/Font"):
            if self.names and not self._is_known(font):
                self._explain_names(font, _around(resources, "/Font", owner))
        for item in _entries(resources, "/XObject"):
            found = item.get_object()
            if not hasattr(found, "raw_get") or found.get("/Subtype") != "/Form":
                continue
            if self.layers.hide(_raw(found, "/OC")):
                self.update.bodies[key_of(item)] = b"null"
            elif not self._is_known(item):
                self._visit(_raw(found, "/Resources"), (item, found), depth=depth + 1)

    def _is_known(self, reference: Any) -> bool:
        """Whether this numbered object was visited before; it is from now on."""
        key = key_of(reference)
        known = key in self.seen
        if key[0]:
            self.seen.add(key)
        return known

    def _change(self, reference: Any, owner: tuple[Any, Any]) -> None:
        """The object, or where it has no number the one around it, is to be written as it is now."""
        if number_of(reference):
            self.update.changed[key_of(reference)] = reference.get_object()
        elif number_of(owner[0]):
            self.update.changed[key_of(owner[0])] = owner[1]

    def _explain_names(self, reference: Any, owner: tuple[Any, Any]) -> None:
        """Give a font the map from its codes to what its ligatures' names mean."""
        from pypdf.generic import IndirectObject, NameObject

        font = reference.get_object()
        differences = _references(inner(font, "/Encoding").get("/Differences")) if hasattr(font, "raw_get") else []
        if not differences:
            return
        old = font["/ToUnicode"].get_object().get_data() if "/ToUnicode" in font else b""
        new = ligature_map(differences, old)
        if new != old:
            number = self.update.add(b"<</Length %d>>stream\n" % len(new) + new + b"\nendstream")
            font[NameObject("/ToUnicode")] = IndirectObject(number, 0, self.update.reader)
            self._change(reference, owner)


def _around(resources: Any, key: str, owner: tuple[Any, Any]) -> tuple[Any, Any]:
    """The dictionary under `key` where it has a number, else the owner of these resources."""
    reference = _raw(resources, key)
    return (reference, reference.get_object()) if number_of(reference) else owner


def _raw(dictionary: Any, key: str) -> Any:
    """The value itself, a reference where it is one; None where there is none."""
    return dictionary.raw_get(key) if key in dictionary else None


def _entries(resources: Any, key: str) -> list[Any]:
    found = inner(resources, key)
    return [found.raw_get(name) for name in found]


def _references(array: Any) -> list[Any]:
    found = array.get_object() if array is not None else []
    return list(found) if isinstance(found, list) else []


def _set_number(dictionary: Any, key: str, number: int) -> None:
    from pypdf.generic import NameObject, NumberObject

    dictionary[NameObject(key)] = NumberObject(number)
