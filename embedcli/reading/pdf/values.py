"""The values of form fields, moved behind the labels on their left.

In: an open page, with the places that its fields had before it was flattened. Out: the same page, its objects in
another order. pdfium reads objects in their order, and a flattened page has all values at its end: there a value stays
that has no label on its line. Not here: the text of the page (text.py), flattening (page.py).
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import pypdfium2.raw as pdfium_c

WIDEST_GAP = 144
SHARED = 2
TALLEST_LABEL = 36
"""In points: how far a label may stand from its field, how much of it may be in there, how tall its line may be."""
MOST_OBJECTS = 20_000

_TYPED = (pdfium_c.FPDF_FORMFIELD_TEXTFIELD, pdfium_c.FPDF_FORMFIELD_COMBOBOX, pdfium_c.FPDF_FORMFIELD_LISTBOX)
"""Kinds of fields; a box to be ticked stands on either side of its label."""

Box = tuple[float, float, float, float]  # left, bottom, right, top


def place_of_field(form: Any, annotation: Any) -> Box | None:
    """Where on the page there is a field with a value of words; None of other annotations."""
    if pdfium_c.FPDFAnnot_GetFormFieldType(form, annotation) not in _TYPED:
        return None
    rectangle = pdfium_c.FS_RECTF()
    if not pdfium_c.FPDFAnnot_GetRect(annotation, rectangle):
        return None
    return rectangle.left, rectangle.bottom, rectangle.right, rectangle.top


def move_to_labels(page: Any, fields: Sequence[Box]) -> None:
    """Flattening has put what annotations show into one object, the last of the page, a part for each of them."""
    count = pdfium_c.FPDFPage_CountObjects(page)
    if not fields or not 1 < count <= MOST_OBJECTS or pdfium_c.FPDFPage_GetRotation(page):
        return
    shown = pdfium_c.FPDFPage_GetObject(page, count - 1)
    if pdfium_c.FPDFPageObj_GetType(shown) != pdfium_c.FPDF_PAGEOBJ_FORM:
        return
    labels = sorted(_labels(page, count - 1), key=lambda label: label[0][1])
    moves = []
    for number in range(pdfium_c.FPDFFormObj_CountObjects(shown)):
        part = pdfium_c.FPDFFormObj_GetObject(shown, number)
        box = _box(part)
        if any(_is_in(box, field) for field in fields) and (index := _label_of(box, labels)) is not None:
            moves.append((index, number, part))
    for moved, (index, _, part) in enumerate(sorted(moves, key=lambda move: move[:2]), start=1):
        if pdfium_c.FPDFFormObj_RemoveObject(shown, part):
            pdfium_c.FPDFPage_InsertObjectAtIndex(page, part, index + moved)


def _labels(page: Any, count: int) -> Iterator[tuple[Box, int]]:
    """The boxes of the upright texts on the page with their places among its objects."""
    matrix = pdfium_c.FS_MATRIX()
    for index in range(count):
        item = pdfium_c.FPDFPage_GetObject(page, index)
        if pdfium_c.FPDFPageObj_GetType(item) != pdfium_c.FPDF_PAGEOBJ_TEXT:
            continue
        is_upright = pdfium_c.FPDFPageObj_GetMatrix(item, matrix) and not matrix.b and not matrix.c and matrix.a > 0
        if is_upright and (box := _box(item))[3] - box[1] <= TALLEST_LABEL:
            yield box, index


def _label_of(box: Box, labels: Sequence[tuple[Box, int]]) -> int | None:
    """The place among the objects of the text that ends next to a value on its left, and has its line; `labels` go by
    their lower edges."""
    middle = (box[1] + box[3]) / 2
    begin = bisect_left(labels, middle - TALLEST_LABEL, key=lambda label: label[0][1])
    end = bisect_right(labels, middle, key=lambda label: label[0][1])
    near = [
        (right, index)
        for (_, low, right, high), index in labels[begin:end]
        if middle <= high + (high - low) / 2 and -SHARED <= box[0] - right <= WIDEST_GAP
    ]
    return max(near)[1] if near else None


def _is_in(box: Box, field: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return field[0] <= x <= field[2] and field[1] <= y <= field[3]


def _box(item: Any) -> Box:
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    pdfium_c.FPDFPageObj_GetBounds(item, left, bottom, right, top)
    return left.value, bottom.value, right.value, top.value
