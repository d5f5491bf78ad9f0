"""What is filled into a form stands behind its label."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

import pytest
from pdf_files import FIRST_EXTRA, HELVETICA, pdf

from embedcli.reading.pdf.document import read_pdf

Placed = tuple[str, int, int]  # a text, or a value, and where it begins


def form(texts: Sequence[Placed], values: Sequence[Placed], *, kind: bytes = b"/FT/Tx", page: bytes = b"") -> bytes:
    """Labels in their order, and fields of 100 points with these values."""
    content = "".join(f"BT /F1 12 Tf {x} {y} Td ({text}) Tj ET " for text, x, y in texts).encode()
    fields = [
        b"<</Type/Annot/Subtype/Widget"
        + kind
        + b"/T(f%d)/V(%s)/Rect[%d %d %d %d]/DA(/F1 12 Tf 0 g)>>" % (number, text.encode(), x, y - 4, x + 100, y + 14)
        for number, (text, x, y) in enumerate(values)
    ]
    numbers = b" ".join(b"%d 0 R" % (FIRST_EXTRA + number) for number in range(len(fields)))
    catalog = b"/AcroForm<</Fields[%s]/NeedAppearances true/DR<<%s>>/DA(/F1 12 Tf 0 g)>>" % (numbers, HELVETICA)
    return pdf(content, objects=fields, page=b"/Annots[%s]" % numbers + page, catalog=catalog)


def words_of(data: bytes) -> str:
    return " ".join(read_pdf(io.BytesIO(data), beat=lambda page: None).text.split())


def test_a_value_follows_the_label_on_its_left() -> None:
    texts = [("Name:", 50, 700), ("City:", 50, 670), ("Born:", 260, 670), ("The end.", 50, 600)]
    values = [("Ada", 100, 700), ("London", 100, 670), ("1815", 300, 670)]
    assert words_of(form(texts, values)) == "Name: Ada City: London Born: 1815 The end."
    assert words_of(form(texts, values[::-1])) == "Name: Ada City: London Born: 1815 The end."
    assert words_of(form(texts, values, kind=b"/FT/Ch/Ff 131072")) == "Name: Ada City: London Born: 1815 The end."


def test_values_of_one_label_keep_their_order_and_a_line_goes_on_behind_them() -> None:
    texts = [("I,", 50, 700), (", live in", 180, 700), (".", 350, 700)]
    values = [("Ada", 70, 700), ("London", 240, 700)]
    assert words_of(form(texts, values)) in ("I, Ada , live in London .", "I, Ada, live in London.")
    assert words_of(form([("Both", 50, 700), ("end", 50, 600)], [("a", 90, 700), ("b", 195, 700)])) == "Both a b end"


@pytest.mark.parametrize("place", [(50, 680), (400, 700), (20, 700)])
def test_a_value_without_a_label_on_its_line_stays_at_the_end(place: tuple[int, int]) -> None:
    assert words_of(form([("Name", 50, 700), ("The end.", 50, 600)], [("Ada", *place)])) == "Name The end. Ada"


def test_what_stands_on_a_button_stays_at_the_end() -> None:
    """A box to be ticked may be that of the label on its right."""
    texts = [("Yes", 50, 700), ("No", 50, 670)]
    assert words_of(form(texts, [("x", 100, 700)], kind=b"/FT/Btn/Ff 65536/MK<</CA(Send)>>")) == "Yes No Send"


def test_a_turned_page_is_left_as_it_is() -> None:
    turned = form([("Name", 50, 700), ("end", 50, 600)], [("Ada", 100, 700)], page=b"/Rotate 90")
    assert words_of(turned).split()[-1] == "Ada"


def test_no_value_is_lost_wherever_the_fields_stand() -> None:
    generator = random.Random(7)
    for _ in range(30):
        places = [(generator.randrange(20, 480), generator.randrange(20, 780)) for _ in range(60)]
        texts = [(f"label{number}", x, y) for number, (x, y) in enumerate(places[:30])]
        values = [(f"value{number}", x, y) for number, (x, y) in enumerate(places[30:])]
        found = words_of(form(texts, values))
        assert all(found.count(f"value{number}") >= 1 for number in range(30))
