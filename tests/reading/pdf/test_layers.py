"""What is on a page and what is not: layers, words typed on it, stamps, fields, scans, forms and files within."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pypdf
import pytest

from embedcli.reading import formats
from embedcli.reading.pdf.hints import Hints, hints_of
from embedcli.reading.pdf.xfa import xfa_text
from embedcli.records import Document
from tests.pdf_files import FIRST_EXTRA, HELVETICA, IMAGE, lines, pdf, stream
from tests.reading.pdf.test_document import read, reason_of

ON, OFF = FIRST_EXTRA, FIRST_EXTRA + 1
GROUPS = [b"<</Type/OCG/Name(Shown)>>", b"<</Type/OCG/Name(Notes)>>"]


def layered(
    content: bytes, *more: bytes, default: bytes = b"/OFF[%d 0 R]" % OFF, properties: bytes = b"", **rest: bytes
) -> bytes:
    """A page with two layers, `ON` shown and `OFF` not, under the names On and Off."""
    catalog = b"/OCProperties<</OCGs[%d 0 R %d 0 R]/D<<%s>>>>" % (ON, OFF, default)
    resources = HELVETICA + b"/Properties<</On %d 0 R/Off %d 0 R%s>>" % (ON, OFF, properties)
    if more:
        resources += b"/XObject<</X %d 0 R>>" % (OFF + 1)
    return pdf(content, resources=resources, objects=[*GROUPS, *more], catalog=catalog, **rest)


def in_layer(name: bytes, text: bytes) -> bytes:
    return b" /OC /" + name + b" BDC BT /F1 12 Tf 50 600 Td (" + text + b") Tj ET EMC "


def form_object(text: bytes, keys: bytes) -> bytes:
    body = b"BT /F1 12 Tf 50 500 Td (" + text + b") Tj ET"
    head = b"<</Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources<<" + HELVETICA + b">>" + keys
    return head + b"/Length %d>>stream\n" % len(body) + body + b"\nendstream"


def test_only_layers_that_are_on_are_read() -> None:
    assert read(layered(lines(b"Body") + in_layer(b"On", b"shown") + in_layer(b"Off", b"SECRET"))).text == "Body\nshown"


def test_a_form_object_of_a_layer_that_is_off_is_not_read() -> None:
    hidden = form_object(b"SECRET", b"/OC %d 0 R" % OFF)
    assert read(layered(lines(b"Body") + b" /X Do", hidden)).text == "Body"
    shown = form_object(b"shown", b"/OC %d 0 R" % ON)
    assert read(layered(lines(b"Body") + b" /X Do", shown)).text == "Body\nshown"


def test_a_layer_within_a_form_object_is_off_too() -> None:
    body = in_layer(b"Off", b"SECRET") + in_layer(b"On", b"shown")
    head = b"<</Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources<<" + HELVETICA
    head += b"/Properties<</On %d 0 R/Off %d 0 R>>>>/Length %d>>stream\n" % (ON, OFF, len(body))
    assert read(layered(lines(b"Body") + b" /X Do", head + body + b"\nendstream")).text == "Body\nshown"


def test_all_layers_are_off_where_that_is_the_base_state() -> None:
    content = lines(b"Body") + in_layer(b"On", b"shown") + in_layer(b"Off", b"SECRET")
    assert read(layered(content, default=b"/BaseState/OFF/ON[%d 0 R]" % ON)).text == "Body\nshown"


@pytest.mark.parametrize(
    ("condition", "is_shown"),
    [
        (b"/OCGs[%d 0 R %d 0 R]" % (ON, OFF), True),
        (b"/OCGs %d 0 R" % OFF, False),
        (b"/OCGs[%d 0 R %d 0 R]/P/AllOn" % (ON, OFF), False),
        (b"/OCGs[%d 0 R]/P/AnyOff" % ON, False),
        (b"/OCGs[%d 0 R]/P/AllOff" % OFF, True),
        (b"/VE[/And %d 0 R[/Not %d 0 R]]" % (ON, OFF), True),
        (b"/VE[/Or %d 0 R[/Not %d 0 R]]" % (OFF, ON), False),
    ],
)
def test_conditions_on_layers_are_kept(condition: bytes, is_shown: bool) -> None:
    data = layered(lines(b"Body") + in_layer(b"If", b"depends"), properties=b"/If<</Type/OCMD%s>>" % condition)
    assert read(data).text == ("Body\ndepends" if is_shown else "Body")


def test_layers_are_off_in_packed_and_in_locked_files_too() -> None:
    data = layered(lines(b"Body") + in_layer(b"On", b"shown") + in_layer(b"Off", b"SECRET"))
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    writer.encrypt("", "owner", algorithm="RC4-128")
    locked = io.BytesIO()
    writer.write(locked)
    assert read(locked.getvalue()).text == "Body\nshown"


LOOKS = FIRST_EXTRA
FREE_TEXT = b"<</Type/Annot/Subtype/%s/Rect[50 600 300 620]/Contents(Typed words)/DA(/F1 12 Tf 0 g)/F %d%s>>"


def typed(kind: bytes, flags: int = 4, *, drawn: bool, layer: bytes = b"") -> bytes:
    body = b"BT /F1 12 Tf 2 5 Td (Typed words) Tj ET"
    looks = b"<</Type/XObject/Subtype/Form/BBox[0 0 250 20]/Resources<<" + HELVETICA
    looks += b">>/Length %d>>stream\n" % len(body) + body + b"\nendstream"
    keys = (b"/AP<</N %d 0 R>>" % LOOKS if drawn else b"") + layer
    return pdf(lines(b"Body"), objects=[looks], page=b"/Annots[" + FREE_TEXT % (kind, flags, keys) + b"]")


@pytest.mark.parametrize("kind", [b"FreeText", b"Stamp", b"Watermark"])
def test_words_typed_or_stamped_on_a_page_are_its_text(kind: bytes) -> None:
    assert read(typed(kind, drawn=True)).text == "Body\nTyped words"


def test_typed_words_that_the_viewer_is_to_draw_are_text() -> None:
    assert read(typed(b"FreeText", drawn=False)).text == "Body\nTyped words"


@pytest.mark.parametrize("drawn", [True, False])
def test_hidden_words_are_no_text(drawn: bool) -> None:
    assert read(typed(b"FreeText", 2, drawn=drawn)).text == "Body"


def test_remarks_beside_the_text_are_no_text() -> None:
    assert read(typed(b"Text", drawn=False)).text == "Body"


def field(flags: int, value: bytes, *, catalog: bytes = b"") -> bytes:
    widget = b"<</Type/Annot/Subtype/Widget/FT/Tx/Ff %d/MaxLen 8/T(zip)/V(%s)/Rect[150 560 450 580]/F 4" % (
        flags,
        value,
    )
    widget += b"/DA(/F1 12 Tf 0 g)>>"
    catalog = b"/AcroForm<</Fields[%d 0 R]/DR<<" % FIRST_EXTRA + HELVETICA + b">>/NeedAppearances true>>"
    return pdf(lines(b"Postcode"), objects=[widget], page=b"/Annots[%d 0 R]" % FIRST_EXTRA, catalog=catalog)


def test_the_characters_of_a_comb_field_are_one_value() -> None:
    assert read(field(1 << 24, b"10115")).text == "Postcode\n10115"


def test_the_words_of_other_fields_stay_apart() -> None:
    assert read(field(0, b"1 0 1")).text == "Postcode\n1 0 1"


SCAN = b"q %d 0 0 %d 0 0 cm /I Do Q "
WITH_IMAGE = HELVETICA + b"/XObject<</I %d 0 R>>" % FIRST_EXTRA


def scanned(content: bytes, width: int = 600, height: int = 800, turn: int = 0) -> Document:
    page = b"/Rotate %d" % turn
    return read(pdf(SCAN % (width, height) + content, resources=WITH_IMAGE, objects=[IMAGE], page=page))


@pytest.mark.parametrize("turn", [0, 90])
@pytest.mark.parametrize("stamp", [b"ABC-000123", b"RECEIVED 17 May", b"Scanned with an app"])
def test_a_scan_with_a_stamp_beside_it_lacks_its_text(stamp: bytes, turn: int) -> None:
    document = scanned(lines(stamp), height=700, turn=turn)
    assert (document.text, document.pages_skipped, document.reason) == (stamp.decode(), 1, "no_text")


def test_a_scan_whose_text_was_recognised_lacks_nothing() -> None:
    recognised = b" BT 3 Tr /F1 12 Tf 50 400 Td (A short letter) Tj ET"
    assert scanned(lines(b"ABC-1") + recognised).pages_skipped == 0


def test_a_picture_with_a_caption_and_a_page_of_text_over_one_lack_nothing() -> None:
    assert scanned(lines(b"A house"), height=400).pages_skipped == 0
    assert scanned(lines(*[b"Many words of a page's own text"] * 20)).pages_skipped == 0


XFA = (
    b'<xdp:xdp xmlns:xdp="http://ns.adobe.com/xdp/"><template xmlns="http://www.xfa.org/schema/xfa-template/3.0/">'
    b"<subform><draw><value><exData><body xmlns='http://www.w3.org/1999/xhtml'><p>Application</p><p>for a <b>per</b>mit"
    b"</p></body></exData></value></draw><field name='surname'><caption><value><text>Surname</text></value></caption>"
    b"</field><field name='town'><caption><value><text>Town</text></value></caption><value><text>Here</text></value>"
    b"</field></subform></template><xfa:datasets xmlns:xfa='http://www.xfa.org/schema/xfa-data/1.0/'><xfa:data><form>"
    b"<surname>Example</surname><extra>7 rooms</extra></form></xfa:data></xfa:datasets></xdp:xdp>"
)
XFA_WORDS = "Application\nfor a permit\nSurname Example\nTown Here\nextra: 7 rooms"


def xfa_form(xml: bytes, keys: bytes = b"/NeedsRendering true") -> bytes:
    catalog = keys + b"/AcroForm<</Fields[]/XFA %d 0 R>>" % FIRST_EXTRA
    return pdf(lines(b"Please wait... Get another viewer"), objects=[stream(xml)], catalog=catalog)


@pytest.mark.parametrize("keys", [b"/NeedsRendering true", b""])
def test_a_dynamic_form_is_its_captions_and_values_and_never_its_placeholder(keys: bytes) -> None:
    assert read(xfa_form(XFA, keys)).text == XFA_WORDS


@pytest.mark.parametrize("xml", [b"", b"<torn", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"])
def test_a_dynamic_form_that_cannot_be_read_says_so(xml: bytes) -> None:
    assert reason_of(xfa_form(xml)) == "no_text"


def test_a_form_nested_without_end_says_so() -> None:
    deep = b"<p>" * 20_000 + b"words" + b"</p>" * 20_000
    assert xfa_text([XFA.replace(b"<p>Application</p>", deep)]) == ""


def test_declared_entities_of_a_form_are_not_expanded() -> None:
    assert xfa_text([b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + XFA]) == ""


def packed(*objects: bytes) -> bytes:
    streams = (
        b"<</Type/ObjStm/Filter/FlateDecode>>stream\n" + zlib.compress(body) + b"\nendstream" for body in objects
    )
    return b"\n".join(streams)


def test_what_packed_objects_name_is_found_and_no_more_is_unpacked_than_allowed() -> None:
    data = packed(b" " * 1_000_000, b"<</OCProperties 1 0 R>>", b"no zlib")
    assert hints_of(data) == Hints(layers=True)
    assert hints_of(data, most_unpacked_bytes=1_000_000) == Hints()
    assert hints_of(data[:-60]) | Hints(typed=True) == Hints(layers=True, typed=True)


def test_what_is_named_behind_much_that_does_not_pack_is_found() -> None:
    noise = np.random.default_rng(0).bytes(300_000).replace(b"/", b"")
    assert hints_of(packed(noise + b"<</OCProperties 1 0 R>>")) == Hints(layers=True)


def portfolio(*files: tuple[str, bytes], view: bytes = b"D") -> bytes:
    objects, names = [], b""
    for number, (name, data) in enumerate(files):
        at = FIRST_EXTRA + 2 * number
        objects += [b"<</Type/EmbeddedFile/Length %d>>stream\n" % len(data) + data + b"\nendstream"]
        objects += [b"<</Type/Filespec/F(%s)/UF(%s)/EF<</F %d 0 R>>>>" % (name.encode(), name.encode(), at)]
        names += b"(%s)%d 0 R" % (name.encode(), at + 1)
    catalog = b"/Collection<</Type/Collection/View/%s>>/Names<</EmbeddedFiles<</Names[%s]>>>>" % (view, names)
    return pdf(lines(b"Open this in another viewer"), objects=objects, catalog=catalog)


def read_file(data: bytes) -> Document:
    return formats.read(io.BytesIO(data), name="a.pdf", beat=lambda page: None)


def test_a_portfolio_has_no_text_but_the_files_within() -> None:
    inner = pdf(lines(b"One"), lines(b"Two"))
    document = read_file(portfolio(("a.pdf", inner), ("b.txt", b"Three")))
    assert (document.text, document.members) == ("", (("a.pdf", inner), ("b.txt", b"Three")))


def test_a_document_that_is_shown_itself_is_read_itself() -> None:
    assert read_file(portfolio(("a.txt", b"Beside"), view=b"H")).text == "Open this in another viewer"


def table(font: bytes, count: int) -> bytes:
    cells = b"".join(b"BT /%s 12 Tf %d 600 Td ( ) Tj ET " % (font, 50 + 9 * n) for n in range(count))
    return lines(b"Attendance") + b" " + cells


def test_blank_cells_are_no_lost_text() -> None:
    document = read(pdf(table(b"F1", 60), lines(b"Next")))
    assert (document.text, document.pages_skipped) == ("Attendance\n\nNext", 0)


def test_blank_cells_in_a_font_of_their_own_are_no_lost_text() -> None:
    resources = HELVETICA.replace(b"/F1<<", b"/F2<</Type/Font/Subtype/Type1/BaseFont/Courier>>/F1<<")
    assert read(pdf(table(b"F2", 60), resources=resources)).text == "Attendance"
