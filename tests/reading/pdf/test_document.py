"""What read_pdf promises, shown on PDFs of one trap each."""

from __future__ import annotations

import io
import logging
import os
import random
import unicodedata
from pathlib import Path

import psutil
import pypdf
import pypdf.errors
import pypdfium2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_stub_font import TARGET, make_stub_font
from pdf_files import FIRST_EXTRA, HELVETICA, IMAGE, lines, pdf, wide_font

from embedcli.errors import UnreadableSource
from embedcli.reading.pdf.document import PAGE_SEPARATOR, read_pdf
from embedcli.reading.pdf.second import pypdf_errors
from embedcli.reading.text.clean import clean
from embedcli.records import REASONS, Document

RUSSIAN = (
    "Это руководство является свободным, вы можете его изменять.",
    "Москва - столица России и самый большой город страны.",
)
GREEK = (
    "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας και η μεγαλύτερη",
    "πόλη της χώρας με μεγάλη ιστορία και πολιτισμό.",
)
DRAW_IMAGE = b"q 100 0 0 100 50 50 cm /I Do Q"
WITH_IMAGE = HELVETICA + b"/XObject<</I %d 0 R>>" % FIRST_EXTRA
FORM_FIELD = (
    b"<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(Filled value)/Rect[50 600 300 620]"
    b"/DA(/F1 12 Tf 0 g)/P %d 0 R>>" % (FIRST_EXTRA + 1)
)


def read(data: bytes, *, with_forms: bool = True) -> Document:
    return read_pdf(io.BytesIO(data), beat=lambda page: None, with_forms=with_forms)


def reason_of(data: bytes) -> str:
    with pytest.raises(UnreadableSource) as caught:
        read(data)
    assert caught.value.reason in REASONS
    return caught.value.reason


def encrypted(user_password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(lines(b"Secret"))))
    writer.encrypt(user_password, "owner", algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def form() -> bytes:
    catalog = b"/AcroForm<</Fields[%d 0 R]/NeedAppearances true/DR<<" % FIRST_EXTRA
    catalog += HELVETICA + b">>/DA(/F1 12 Tf 0 g)>>"
    page = b"/Annots[%d 0 R]" % FIRST_EXTRA
    return pdf(lines(b"Label"), objects=[FORM_FIELD], page=page, catalog=catalog)


def unloadable_page(data: bytes) -> bytes:
    """The first page's entry in the page tree leads to no object."""
    assert b"Kids[3 0 R" in data
    return data.replace(b"Kids[3 0 R", b"Kids[9 9 R", 1)


def test_pages_are_joined_by_an_empty_line_with_exact_offsets() -> None:
    document = read(pdf(lines(b"One"), lines(b"Two", b"lines"), b"", lines(b"Four")))
    assert document.text == "One\n\nTwo\nlines\n\nFour"
    assert document.pages == ((1, 0), (2, 5), (4, 16))
    assert (document.page_count, document.pages_skipped, document.reason) == (4, 0, None)


@settings(deadline=None)
@given(st.lists(st.text("e\u0301\u0327\u1100\u1161\u11a8\nA\u030a \u0344"), max_size=6))
def test_pages_in_nfc_joined_are_the_nfc_of_the_whole(pages: list[str]) -> None:
    joined = PAGE_SEPARATOR.join(clean(page, pdf=True) for page in pages)
    assert joined == unicodedata.normalize("NFC", PAGE_SEPARATOR.join(pages))


def test_title_is_cleaned_and_absent_when_blank() -> None:
    info = b"/Info %d 0 R" % FIRST_EXTRA
    titled = pdf(lines(b"Text"), objects=[b"<</Title(  A\\n\\tbook\\000 )>>"], trailer=info)
    blank = pdf(lines(b"Text"), objects=[b"<</Title(  )>>"], trailer=info)
    assert read(titled).title == "A book"
    assert read(blank).title is None
    assert read(pdf(lines(b"Text"))).title is None


def test_every_page_is_announced_before_it_is_read() -> None:
    beats: list[int] = []
    read_pdf(io.BytesIO(pdf(lines(b"One"), lines(b"Two"))), beat=beats.append)
    assert beats == [0, 1, 2, 0]


def test_text_off_the_page_is_not_read() -> None:
    marks = b" BT /F1 12 Tf 50 900 Td (Printer's mark) Tj ET"
    assert read(pdf(lines(b"Seen") + marks)).text == "Seen"


def test_a_word_cut_at_a_line_end_is_joined() -> None:
    assert read(pdf(lines(b"This is an exam-", b"ple of a cut."))).text == "This is an example of a cut."


def test_a_compound_cut_at_a_line_end_keeps_the_hyphen_another_page_gives_it() -> None:
    cut = lines(b"This is a well-", b"known thing.")
    document = read(pdf(cut, lines(b"It is well-known that they are.")))
    assert document.text.startswith("This is a well-known thing.")


@pytest.mark.parametrize(
    ("text", "encoding", "cmap", "collection"),
    [
        ("汉字文本很好", "gbk", b"GBK-EUC-H", b"GB1"),
        ("日本語の文書", "cp932", b"90ms-RKSJ-H", b"Japan1"),
        ("한국어 문서", "cp949", b"KSCms-UHC-H", b"Korea1"),
        ("中文文件", "big5", b"ETen-B5-H", b"CNS1"),
    ],
)
def test_fonts_that_are_not_embedded_lose_no_text(text: str, encoding: str, cmap: bytes, collection: bytes) -> None:
    data = pdf(lines(text.encode(encoding)), resources=wide_font(cmap, collection))
    assert read(data).text == text


def test_the_shipped_font_is_the_one_its_script_makes() -> None:
    assert TARGET.read_bytes() == make_stub_font()
    assert sorted(path.name for path in TARGET.parent.iterdir()) == [TARGET.name]


def test_lost_text_is_garbled_and_not_blank() -> None:
    lost = b"".join(lines(b"\x03\x34") for _ in range(12))
    assert reason_of(pdf(lost, resources=wide_font(b"NoSuch-H", b"Foo"))) == "garbled"


def test_silent_text_objects_in_an_embedded_font_are_not_lost_text() -> None:
    program = TARGET.read_bytes()
    file = b"<</Length %d>>stream\n" % len(program) + program + b"\nendstream"
    descriptor = b"<</Type/FontDescriptor/FontName/Stub/Flags 32/FontFile2 %d 0 R>>" % FIRST_EXTRA
    font = b"/Font<</F1<</Type/Font/Subtype/TrueType/BaseFont/Stub/Encoding/WinAnsiEncoding"
    font += b"/FontDescriptor %d 0 R>>>>" % (FIRST_EXTRA + 1)
    document = read(pdf(lines(b"Contents", *[b" "] * 30), resources=font, objects=[file, descriptor]))
    assert (document.text.strip(), document.pages_skipped) == ("Contents", 0)


def test_control_characters_for_letters_are_garbled() -> None:
    document = read(pdf(lines(b"Good"), lines(bytes(range(4, 9)) * 20)))
    assert (document.text, document.pages) == ("Good", ((1, 0),))
    assert (document.pages_skipped, document.reason) == (1, "garbled")


def test_russian_read_as_latin_is_mended() -> None:
    document = read(pdf(lines(*(line.encode("cp1251") for line in RUSSIAN))))
    assert document.text == "\n".join(RUSSIAN)


def test_a_short_russian_page_is_mended_too() -> None:
    assert read(pdf(lines(RUSSIAN[1].encode("cp1251")))).text == RUSSIAN[1]


def test_greek_read_as_latin_is_garbled_and_never_made_russian() -> None:
    assert reason_of(pdf(lines(*(line.encode("cp1253") for line in GREEK)))) == "garbled"


def test_accents_of_a_real_language_are_left_alone() -> None:
    french = "Dès Noël, où un zéphyr haï me vêt de glaçons würmiens, je dîne d'exquis rôtis de bœuf au kir à l'aÿ."
    assert read(pdf(lines(french[:60].encode("cp1252"), french[60:].encode("cp1252")))).text.startswith("Dès")


def test_image_only_pages_are_counted_and_blank_ones_are_not() -> None:
    document = read(pdf(lines(b"Text"), DRAW_IMAGE, b"", resources=WITH_IMAGE, objects=[IMAGE]))
    assert (document.text, document.page_count) == ("Text", 3)
    assert (document.pages_skipped, document.reason) == (1, "no_text")


def test_an_image_within_a_form_object_is_found() -> None:
    wrapped = b"<</Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources<</XObject<</I 4 0 R>>>>/Length %d>>"
    body = wrapped % len(DRAW_IMAGE) + b"stream\n" + DRAW_IMAGE + b"\nendstream"
    document = read(pdf(lines(b"Text"), DRAW_IMAGE, resources=WITH_IMAGE, objects=[body, IMAGE]))
    assert document.pages_skipped == 1


@pytest.mark.parametrize("content", [DRAW_IMAGE, b"", b"0 0 100 100 re f"])
def test_a_document_without_any_text_is_no_text(content: bytes) -> None:
    assert reason_of(pdf(content, resources=WITH_IMAGE, objects=[IMAGE])) == "no_text"


def test_the_commonest_cause_is_the_reason() -> None:
    garbage = lines(bytes(range(4, 9)) * 20)
    pages = (garbage, DRAW_IMAGE, garbage)
    assert reason_of(pdf(*pages, resources=WITH_IMAGE, objects=[IMAGE])) == "garbled"


def test_a_page_of_private_codes_only_is_garbled() -> None:
    to_private = b"/CIDInit/ProcSet findresource begin begincmap 1 begincodespacerange<00><FF>"
    to_private += b"endcodespacerange 1 beginbfrange<20><7E><E020>endbfrange endcmap"
    font = HELVETICA.replace(b"/Encoding", b"/ToUnicode %d 0 R/Encoding" % FIRST_EXTRA)
    table = b"<</Length %d>>stream\n" % len(to_private) + to_private + b"\nendstream"
    assert reason_of(pdf(lines(b"Private"), resources=font, objects=[table])) == "garbled"


def test_a_real_password_is_password() -> None:
    assert reason_of(encrypted("secret")) == "password"


def test_the_empty_password_opens() -> None:
    assert read(encrypted("")).text == "Secret"


def test_the_error_of_the_file_before_is_not_believed() -> None:
    assert reason_of(encrypted("secret")) == "password"
    assert reason_of(b"%PDF-1.4 and nothing more") == "damaged"


def test_a_pdf_without_pages_is_damaged() -> None:
    assert reason_of(pdf()) == "damaged"


def test_filled_form_fields_are_text() -> None:
    assert read(form()).text == "Label\nFilled value"


def test_after_a_hang_the_forms_are_left_alone() -> None:
    assert read(form(), with_forms=False).text == "Label"


def test_one_bad_page_keeps_the_others_under_their_numbers() -> None:
    document = read(unloadable_page(pdf(lines(b"One"), lines(b"Two"), lines(b"Three"))))
    assert (document.text, document.pages) == ("Two\n\nThree", ((2, 0), (3, 5)))
    assert (document.pages_skipped, document.reason) == (1, "damaged")


def only_pypdf_opens(data: bytes) -> bytes:
    """The keyword of the first object is torn: pdfium finds no catalog, pypdf does."""
    torn = data.replace(b"1 0 obj", b"1 0 ob\x0f", 1)
    with pytest.raises(pypdfium2.PdfiumError):
        pypdfium2.PdfDocument(torn)
    return torn


def test_pypdf_reads_what_pdfium_cannot_open() -> None:
    info = b"/Info %d 0 R" % FIRST_EXTRA
    whole = pdf(lines(b"One"), lines(b"Two"), objects=[b"<</Title(Rescued)>>"], trailer=info)
    beats: list[int] = []
    document = read_pdf(io.BytesIO(only_pypdf_opens(whole)), beat=beats.append)
    assert (document.text, document.pages, document.title) == ("One\n\nTwo", ((1, 0), (2, 5)), "Rescued")
    assert beats == [0, 0, 1, 2, 0]


@pytest.mark.parametrize("glyphs", [b"/g12/g7/g31", b"/uni04A1/uni0042", b"(cid:17)(cid:4)"])
def test_glyph_names_from_pypdf_are_not_believed(glyphs: bytes) -> None:
    assert reason_of(only_pypdf_opens(pdf(lines(glyphs)))) == "garbled"


def test_wide_fonts_that_are_not_embedded_are_not_believed_from_pypdf() -> None:
    data = pdf(lines("日本語".encode("cp932")), resources=wide_font(b"90ms-RKSJ-H", b"Japan1"))
    assert reason_of(only_pypdf_opens(data)) in ("garbled", "damaged")


def test_every_foreign_exception_is_mapped() -> None:
    mapped = pypdf_errors()
    own = [
        member
        for member in vars(pypdf.errors).values()
        if isinstance(member, type)
        and issubclass(member, Exception)
        and not issubclass(member, Warning)
        and member.__module__ == "pypdf.errors"
    ]
    assert len(own) >= 10
    assert all(issubclass(error, mapped) for error in own)
    assert not issubclass(MemoryError, mapped)
    assert not issubclass(OSError, mapped)
    others = {
        member for member in vars(pypdfium2).values() if isinstance(member, type) and issubclass(member, Exception)
    }
    assert others == {pypdfium2.PdfiumError, pypdfium2.PdfiumWarning}


def test_an_input_error_is_not_taken_for_damage() -> None:
    class TornDisk(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "input/output error")

        def readinto(self, buffer: object, /) -> int:
            return 0

    with pytest.raises(OSError, match="input/output"):
        read_pdf(TornDisk(pdf(lines(b"Text"))), beat=lambda page: None)


def test_damaged_files_give_a_document_or_a_reason_and_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    whole = pdf(lines(b"Some text of one page"), lines(b"and another"))
    chance = random.Random(7)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            document = read(bytes(damaged[: chance.randint(len(damaged) // 2, len(damaged))]))
        except UnreadableSource as problem:
            assert problem.reason in REASONS
        else:
            assert all(document.text[offset:] for _, offset in document.pages)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def growth_bytes(page_count: int, folder: Path) -> int:
    """How much more memory the process holds after the long document than after a short one."""
    path = folder / "long.pdf"
    path.write_bytes(pdf(*[lines(b"A page of text.")] * page_count))
    read(pdf(lines(b"Warm")))
    before = psutil.Process(os.getpid()).memory_info().rss
    with path.open("rb") as file:
        document = read_pdf(file, beat=lambda page: None)
    assert document.page_count == page_count
    return psutil.Process(os.getpid()).memory_info().rss - before


def test_pages_are_closed_as_they_are_read(tmp_path: Path) -> None:
    assert growth_bytes(300, tmp_path) < 300 * 270_000 // 4


@pytest.mark.skipif(os.environ.get("EMBEDCLI_TESTS_LONG") != "1", reason="EMBEDCLI_TESTS_LONG=1 runs it")
def test_memory_is_flat_over_five_thousand_pages(tmp_path: Path) -> None:
    assert growth_bytes(5_000, tmp_path) < 64 << 20
