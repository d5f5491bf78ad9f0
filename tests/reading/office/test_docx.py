"""A Word document is read as its reader sees it, with all changes accepted."""

from __future__ import annotations

import io
import time
import zipfile
from typing import Any

import docx as python_docx
import pytest
from docx.enum.style import WD_STYLE_TYPE

from embedcli.errors import UnreadableSource
from embedcli.reading.office import package
from embedcli.records import Document
from tests.office_files import docx, paragraph, read_bytes, relations, replaced, run, saved, zipped


def text_of(*paragraphs: str, **parts: str) -> str:
    return read_bytes(docx("".join(paragraphs), **parts), "a.docx").text


def reason_of(data: bytes, name: str) -> str:
    with pytest.raises(UnreadableSource) as caught:
        read_bytes(data, name)
    return caught.value.reason


def manual() -> Any:
    made = python_docx.Document()
    made.add_heading("Pump manual", 0)
    made.add_paragraph("Read this first.")
    made.add_heading("Install", 1)
    made.add_heading("Linux", 2)
    made.add_paragraph("Unpack it.", style="List Bullet")
    made.add_paragraph("Start it.", style="List Number")
    made.add_heading("Torque", 1)
    table = made.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ("Part", "Torque", "Bolt", "12 Nm"), strict=True):
        cell.text = text
    return made


def at(document: Document, path: str) -> str:
    """The line that a section begins with."""
    offset = next(offset for offset, section in document.sections if section == path)
    return document.text[offset:].split("\n", 1)[0]


def test_headings_become_sections_and_lists_and_tables_become_lines() -> None:
    document = read_bytes(saved(manual()), "manual.docx")
    assert document.title == "Pump manual"
    assert [path for _, path in document.sections] == ["Install", "Install > Linux", "Torque"]
    assert at(document, "Install > Linux") == "Linux"
    assert document.text.endswith("Linux\n- Unpack it.\n- Start it.\n\nTorque\nPart | Torque\nBolt | 12 Nm")


def test_it_is_known_by_its_content_whatever_its_name() -> None:
    data = saved(manual())
    assert {read_bytes(data, name).text for name in ("a.docx", "a.zip", "a", "a.doc")} == {
        read_bytes(data, "a.docm").text
    }


def test_the_title_among_the_properties_is_the_title() -> None:
    made = manual()
    made.core_properties.title = " Manual of\nthe pump "
    assert read_bytes(saved(made), "a.docx").title == "Manual of the pump"


def test_headers_and_footers_are_read_once() -> None:
    made = manual()
    for _ in range(2):
        made.add_section().header.is_linked_to_previous = False
    for section in made.sections:
        section.header.paragraphs[0].text = "ACME confidential"
        section.footer.paragraphs[0].text = "Version 3"
    text = read_bytes(saved(made), "a.docx").text
    assert text.startswith("ACME confidential\n\nPump manual") and text.endswith("\n\nVersion 3")
    assert (text.count("ACME"), text.count("Version 3")) == (1, 1)


def test_headers_that_no_page_shows_are_left_out() -> None:
    """The parts stay in the file where the special first page, or that of even pages, is switched off."""
    made = python_docx.Document()
    made.add_paragraph("Body")
    section = made.sections[0]
    section.header.paragraphs[0].text = "All"
    section.different_first_page_header_footer = True
    section.first_page_header.paragraphs[0].text = "First"
    made.settings.odd_and_even_pages_header_footer = True
    section.even_page_header.paragraphs[0].text = "Even"
    assert sorted(read_bytes(saved(made), "a.docx").text.split("\n\n")) == ["All", "Body", "Even", "First"]
    section.different_first_page_header_footer = False
    assert read_bytes(saved(made), "a.docx").text == "All\n\nEven\n\nBody"
    made.settings.odd_and_even_pages_header_footer = False
    assert read_bytes(saved(made), "a.docx").text == "All\n\nBody"


def test_a_paragraph_that_its_style_hides_is_left_out() -> None:
    made = python_docx.Document()
    style = made.styles.add_style("Internal", WD_STYLE_TYPE.PARAGRAPH)
    style.font.hidden = True
    made.add_paragraph("SECRET", style="Internal")
    made.add_paragraph("SECRET ", style="Internal").add_run("seen").font.hidden = False
    made.add_paragraph("Body")
    assert read_bytes(saved(made), "a.docx").text == "seen\n\nBody"


HTML = "<html><body><h1>Plan</h1><p>Prüfen.</p></body></html>"


@pytest.mark.parametrize(
    "chunk",
    [
        HTML,
        f"MIME-Version: 1.0\nContent-Type: multipart/related; boundary=B\n\n--B\nContent-Type: text/html\n\n{HTML}",
        r"{\rtf1\ansi Plan\par Pr\'fcfen.\par}",
        "Plan\n\nPrüfen.",
    ],
    ids=["html", "mht", "rtf", "text"],
)
def test_a_part_in_another_format_is_read_where_the_text_takes_it_in(chunk: str) -> None:
    data = docx(paragraph("Before") + '<w:altChunk r:id="aFChunk1"/>' + paragraph("After"), aFChunk1="")
    read = read_bytes(replaced(data, {"word/aFChunk1.xml": chunk}), "a.docx").text
    assert read.split() == ["Before", "Plan", "Prüfen.", "After"]
    alone = docx('<w:altChunk r:id="aFChunk1"/>', aFChunk1="")
    assert read_bytes(replaced(alone, {"word/aFChunk1.xml": chunk}), "a.docx").text.split() == ["Plan", "Prüfen."]


def test_a_formula_has_its_brackets_and_signs() -> None:
    def sign(text: str) -> str:
        return f"<m:r><m:t>{text}</m:t></m:r>"

    other = '<m:begChr m:val="["/><m:endChr m:val=""/>'
    total = f'<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:e>{sign("x")}</m:e></m:nary>'
    inner = f"<m:d><m:dPr>{other}</m:dPr><m:e>{total}</m:e></m:d>"
    formula = f"<m:oMath>{sign('f')}<m:d><m:e>{sign('x+')}{inner}</m:e></m:d></m:oMath>"
    integral = f"<m:oMath><m:nary><m:naryPr/><m:e>{sign('y')}</m:e></m:nary></m:oMath>"
    assert text_of(paragraph(formula, " and ", integral)) == "f(x+[∑x) and ∫y"


def test_a_large_first_letter_begins_its_word() -> None:
    large = paragraph("T", properties='<w:framePr w:dropCap="drop" w:lines="3" w:wrap="around"/>')
    assert text_of(large, paragraph("his pump."), paragraph("End")) == "This pump.\n\nEnd"
    assert text_of(paragraph("Box", properties='<w:framePr w:w="9"/>'), paragraph("End")) == "Box\n\nEnd"


def test_a_hidden_row_is_left_out() -> None:
    cells = "".join(f"<w:tc>{paragraph(text)}</w:tc>" for text in ("SECRET", "1"))
    assert text_of(f"<w:tbl><w:tr><w:trPr><w:hidden/></w:trPr>{cells}</w:tr></w:tbl>", paragraph("Body")) == "Body"


@pytest.mark.parametrize(("result", "chosen"), [('<w:result w:val="1"/>', " Green"), ("", " Red")])
def test_what_is_chosen_from_the_list_of_a_form_is_read(result: str, chosen: str) -> None:
    entries = '<w:listEntry w:val="Red"/><w:listEntry w:val="Green"/>'
    data = f"<w:ffData><w:ddList>{result}{entries}</w:ddList></w:ffData>"
    field = f'<w:r><w:fldChar w:fldCharType="begin">{data}</w:fldChar></w:r>'
    field += "<w:r><w:instrText> FORMDROPDOWN </w:instrText></w:r>"
    field += '<w:r><w:fldChar w:fldCharType="end"/></w:r>'
    assert text_of(paragraph("Colour: ", field, " now")) == f"Colour: {chosen[1:]} now"


def test_decorative_writing_and_watermarks_are_read() -> None:
    art = '<w:r><w:pict><v:shape><v:textpath string="CONFIDENTIAL"/></v:shape></w:pict></w:r>'
    assert text_of(paragraph("Body", art)) == "Body\n\nCONFIDENTIAL"


def test_the_words_of_diagrams_and_charts_follow_their_paragraph() -> None:
    def drawn(kind: str, key: str) -> str:
        return f'<w:r><w:drawing><{kind} xmlns:{kind[0]}="x" {key}/></w:drawing></w:r>'

    body = paragraph("See", drawn("d:relIds", 'r:dm="diagramData1"')) + paragraph(drawn("c:chart", 'r:id="chart1"'))
    data = docx(body + paragraph("End"), diagramData1="", chart1="")
    steps = "".join(f"<d:t><a:p><a:r><a:t>{text}</a:t></a:r></a:p></d:t>" for text in ("Order", "Deliver"))
    names = "<c:ser><c:tx><c:v>Sales</c:v></c:tx><c:cat><c:v>East</c:v><c:v>West</c:v></c:cat>"
    parts = {
        "word/diagramData1.xml": f'<d:dataModel xmlns:d="x" xmlns:a="y">{steps}</d:dataModel>',
        "word/chart1.xml": f'<c:chartSpace xmlns:c="x">{names}<c:val><c:v>3</c:v></c:val></c:ser></c:chartSpace>',
    }
    assert read_bytes(replaced(data, parts), "a.docx").text == "See\n\nOrder\nDeliver\n\nSales\nEast | West\n\nEnd"
    broken = replaced(data, {name: "<" for name in parts})
    assert read_bytes(broken, "a.docx").text == "See\n\nEnd"


def test_tracked_changes_are_read_as_accepted() -> None:
    deleted = "<w:del><w:r><w:delText>old</w:delText></w:r><w:r><w:t>older</w:t></w:r></w:del>"
    moved = f"<w:moveFrom>{run('away')}</w:moveFrom><w:moveTo>{run(' moved here')}</w:moveTo>"
    assert (
        text_of(paragraph("The ", deleted, f"<w:ins>{run('new')}</w:ins>", " pump", moved)) == "The new pump moved here"
    )


def test_a_paragraph_whose_end_was_deleted_goes_on_in_the_next() -> None:
    first = paragraph("Turn it ", properties="<w:rPr><w:del/></w:rPr>")
    assert text_of(first, paragraph("to the left."), paragraph("Stop.")) == "Turn it to the left.\n\nStop."
    assert text_of(paragraph("Only", properties="<w:rPr><w:del/></w:rPr>")) == "Only"


def test_a_deleted_row_is_out_and_a_row_of_one_cell_is_a_frame() -> None:
    def row(*cells: str, properties: str = "") -> str:
        return f"<w:tr><w:trPr>{properties}</w:trPr>" + "".join(f"<w:tc>{cell}</w:tc>" for cell in cells) + "</w:tr>"

    table = f"""<w:tbl>{row(paragraph("a"), paragraph("b1") + paragraph("b2"))}
        {row(paragraph("gone"), paragraph("too"), properties="<w:del/>")}
        {row(paragraph("One"), paragraph(), paragraph("three"))}{row(paragraph("Dear Sir,") + paragraph("Thank you."))}
        </w:tbl>"""
    assert text_of(table) == "a | b1 b2\nOne |  | three\n\nDear Sir,\n\nThank you."


def test_tables_in_cells_are_part_of_the_cell() -> None:
    inner = f"<w:tbl><w:tr><w:tc>{paragraph('x')}</w:tc><w:tc>{paragraph('y')}</w:tc></w:tr></w:tbl>"
    outer = f"<w:tbl><w:tr><w:tc>{paragraph('a')}{inner}</w:tc><w:tc>{paragraph('b')}</w:tc></w:tr></w:tbl>"
    assert text_of(outer) == "a x | y | b"


def test_notes_follow_the_paragraph_that_refers_to_them() -> None:
    notes = (
        f'<w:footnote w:id="0" w:type="separator">{paragraph("----")}</w:footnote>'
        f'<w:footnote w:id="1">{paragraph("Measured at 20 degrees.")}</w:footnote>'
    )
    endnotes = f'<w:endnote w:id="1">{paragraph("See ISO 898.")}</w:endnote>'
    first = paragraph(
        "12 Nm", '<w:r><w:footnoteReference w:id="1"/></w:r>', " at most", '<w:r><w:endnoteReference w:id="1"/></w:r>'
    )
    text = text_of(first, paragraph("Next."), footnotes=notes, endnotes=endnotes)
    assert text == "12 Nm at most\n\nMeasured at 20 degrees.\n\nSee ISO 898.\n\nNext."


def test_comments_are_out() -> None:
    commented = paragraph('<w:commentRangeStart w:id="0"/>', "Text", '<w:r><w:commentReference w:id="0"/></w:r>')
    assert text_of(commented, comments=f"<w:comment>{paragraph('Really?')}</w:comment>") == "Text"


def test_a_text_box_is_read_once() -> None:
    box = f"<w:txbxContent>{paragraph('In the box')}{paragraph('and below')}</w:txbxContent>"
    both = (
        f'<w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><wps:txbx>{box}</wps:txbx></w:drawing>'
        f"</mc:Choice><mc:Fallback><w:pict><v:textbox>{box}</v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r>"
    )
    assert text_of(paragraph("Before ", both, "and after")) == "Before and after\n\nIn the box\n\nand below"
    assert text_of(paragraph(f"<w:r><w:pict><v:textbox>{box}</v:textbox></w:pict></w:r>")) == "In the box\n\nand below"


def test_fields_give_their_result() -> None:
    mark = '<w:r><w:fldChar w:fldCharType="{}"/></w:r>'.format
    field = (
        mark("begin") + "<w:r><w:instrText>PAGEREF x</w:instrText></w:r>" + run("instruction") + mark("separate")
        + run("7") + mark("end")
    )  # fmt: skip
    nested = mark("begin") + field + mark("separate") + run("result") + mark("end")
    simple = f'<w:fldSimple w:instr="DATE">{run("1 May")}</w:fldSimple>'
    assert text_of(paragraph("Page ", field, ", ", simple, ", ", nested, ".")) == "Page 7, 1 May, result."


def test_a_field_that_is_never_closed_hides_nothing_after_its_paragraph() -> None:
    opened = '<w:r><w:fldChar w:fldCharType="begin"/></w:r>'
    assert text_of(paragraph("Text", opened, "lost"), paragraph("All the rest.")) == "Text\n\nAll the rest."


def test_content_controls_links_and_tags_are_read_and_placeholders_are_not() -> None:
    control = "<w:sdt><w:sdtPr>{}<w:rPr><w:vanish/></w:rPr></w:sdtPr><w:sdtContent>{}</w:sdtContent></w:sdt>".format
    inside = paragraph(
        control("", run("Berlin")), control("<w:showingPlcHdr/>", run("Click here")),
        f'<w:hyperlink r:id="x">{run(", link")}</w:hyperlink>', f"<w:smartTag>{run(', tag')}</w:smartTag>",
        f"<w:customXml>{run(', custom')}</w:customXml>",
    )  # fmt: skip
    assert text_of(control("", inside)) == "Berlin, link, tag, custom"


def test_breaks_tabs_hyphens_symbols_and_formulas() -> None:
    parts = (
        "<w:r><w:t>one</w:t><w:br/><w:t>two</w:t><w:cr/><w:t>three</w:t><w:tab/><w:t>four</w:t><w:noBreakHyphen/>"
        '<w:t>five</w:t><w:softHyphen/><w:t>six</w:t><w:sym w:font="Wingdings" w:char="F0FC"/>'
        '<w:sym w:char="00B5"/></w:r>',
        "<m:oMath><m:r><m:t>a+b</m:t></m:r></m:oMath>",
    )
    tabs = '<w:tabs><w:tab w:val="left" w:pos="720"/></w:tabs>'
    assert text_of(paragraph(*parts, properties=tabs)) == "one\ntwo\nthree\tfour-fivesix✓\u00b5a+b"


def test_characters_of_symbol_fonts_are_what_they_show() -> None:
    def sym(font: str, code: str) -> str:
        return f'<w:r><w:sym w:font="{font}" w:char="{code}"/></w:r>'

    parts = (
        run("5 "), sym("Symbol", "F06D"), run("m "), sym("Symbol", "F0B1"), run(" 2; open "), sym("Wingdings", "F0E0"),
        run(" valve "), run("\uf0b0C", '<w:rFonts w:ascii="Symbol" w:hAnsi="Symbol"/>'), run("\uf0b0"),
        sym("Wingdings", "F0FF"), sym("House Icons", "F041"),
    )  # fmt: skip
    assert text_of(paragraph(*parts)) == "5 \u00b5m ± 2; open → valve °C\uf0b0"


def test_a_fraction_of_a_formula_is_no_number_of_its_own() -> None:
    def fraction(above: str, below: str) -> str:
        return f"<m:f><m:num>{above}</m:num><m:den>{below}</m:den></m:f>"

    def term(text: str) -> str:
        return f"<m:r><m:t>{text}</m:t></m:r>"

    half = fraction(term("1"), term("2"))
    formulas = f"<m:oMath>{half}</m:oMath>", f"<m:oMath>{term('x=')}{fraction(term('a') + term('+b'), half)}</m:oMath>"
    assert text_of(paragraph(*formulas)) == "1/2x=(a+b)/(1/2)"


def test_a_reading_above_characters_follows_them() -> None:
    ruby = "<w:r><w:ruby><w:rt>{}</w:rt><w:rubyBase><w:r><w:t>漢字</w:t></w:r></w:rubyBase></w:ruby></w:r>"
    assert text_of(paragraph(ruby.format(run("かんじ")), run("を読む"))) == "漢字(かんじ)を読む"
    assert text_of(paragraph(ruby.format(run("かんじ", "<w:vanish/>")), run("を読む"))) == "漢字を読む"


def test_hidden_text_is_out() -> None:
    hidden = run("hidden", "<w:vanish/>") + run(" shown", '<w:vanish w:val="0"/>')
    assert text_of(paragraph("Text", hidden, properties="<w:rPr><w:vanish/></w:rPr>")) == "Text shown"


def test_headings_are_known_by_the_name_of_their_style_and_by_their_outline() -> None:
    styles = """<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
        <w:style w:styleId="Eigene"><w:name w:val="Eigene"/><w:basedOn w:val="berschrift1"/></w:style>
        <w:style w:styleId="Verzeichnis"><w:name w:val="TOC Heading"/><w:basedOn w:val="berschrift1"/>
        <w:pPr><w:outlineLvl w:val="9"/></w:pPr></w:style>
        <w:style w:styleId="Kreis"><w:name w:val="Kreis"/><w:basedOn w:val="Kreis"/></w:style>"""
    body = "".join(
        paragraph(text, properties=f'<w:pStyle w:val="{style}"/>')
        for text, style in (("Erster", "berschrift1"), ("Inhalt", "Verzeichnis"), ("Zweiter", "Eigene"), ("x", "Kreis"))
    )
    body += paragraph("Dritter", properties='<w:outlineLvl w:val="1"/>')
    document = read_bytes(docx(body, styles=styles), "a.docx")
    assert [path for _, path in document.sections] == ["Erster", "Zweiter", "Zweiter > Dritter"]
    assert document.title == "Erster"


def test_a_strict_document_and_one_with_other_names_for_its_parts() -> None:
    with zipfile.ZipFile(io.BytesIO(docx(paragraph("Strict")))) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    main = parts.pop("word/document.xml").replace(
        "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "http://purl.oclc.org/ooxml/wordprocessingml/main",
    )
    parts["word/document2.xml"] = main
    parts["_rels/.rels"] = relations({"x": ("officeDocument", "/word/document2.xml")})
    parts["[Content_Types].xml"] = parts["[Content_Types].xml"].replace("document.xml", "document2.xml")
    assert read_bytes(zipped(parts), "a.docx").text == "Strict"


def test_offsets_hold_where_the_text_is_cleaned() -> None:
    made = python_docx.Document()
    made.add_paragraph("Cafe\u0301 \u00ad and \ufb01ne")
    made.add_heading("De\u0301but", 1)
    document = read_bytes(saved(made), "a.docx")
    assert document.text == "Caf\u00e9  and fine\n\nD\u00e9but"
    assert document.text[document.sections[0][0] :] == "D\u00e9but" == document.sections[0][1]


def test_an_empty_document_is_empty_and_a_broken_one_damaged() -> None:
    whole = saved(manual())
    assert reason_of(saved(python_docx.Document()), "a.docx") == "empty"
    assert reason_of(whole[: len(whole) // 2], "a.docx") == "damaged"
    assert reason_of(b"PK\x03\x04" + bytes(100), "a.docx") == "damaged"
    assert reason_of(b"<html>Please log in</html>", "a.docx") == "damaged"
    assert reason_of(replaced(whole, {"word/document.xml": b"<w:document"}), "a.docx") == "damaged"
    assert reason_of(zipped({"readme.txt": "x"}), "a.docx") == "damaged"
    assert reason_of(b"", "a.docx") == "empty"


def test_a_part_that_is_too_large_is_refused_by_its_declared_and_by_its_real_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(package, "MOST_PART_BYTES", 20_000)
    data = docx(paragraph("a" * 30_000))
    assert reason_of(data, "a.docx") == "too_large"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        declared = archive.getinfo("word/document.xml").file_size
    lying = data.replace(declared.to_bytes(4, "little"), (500).to_bytes(4, "little"))
    assert reason_of(lying, "a.docx") in ("too_large", "damaged")


def test_entities_that_stand_for_others_are_refused() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    with zipfile.ZipFile(io.BytesIO(docx(paragraph("&b;")))) as archive:
        main = archive.read("word/document.xml").decode()
    assert reason_of(replaced(docx(""), {"word/document.xml": bomb + main}), "a.docx") == "damaged"


def test_nothing_outside_the_file_is_read(tmp_path: Any) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("SECRET")
    outside = f'<!DOCTYPE x [<!ENTITY a SYSTEM "{secret.as_uri()}">]>'
    with zipfile.ZipFile(io.BytesIO(docx(paragraph("See: &a;")))) as archive:
        main = archive.read("word/document.xml").decode()
    assert read_bytes(replaced(docx(""), {"word/document.xml": outside + main}), "a.docx").text == "See:"


@pytest.mark.parametrize(
    "hostile",
    [
        "<w:r><w:fldChar w:fldCharType='begin'/><w:fldChar w:fldCharType='separate'/></w:r>",
        "<w:txbxContent>",
        "<w:tbl><w:tr><w:tc>",
        "<w:sdt>",
    ],
)
def test_time_is_linear_in_hostile_markup(hostile: str) -> None:
    count = 100_000
    closing = "".join(f"</{tag.strip('<>')}>" for tag in reversed(hostile.split("><"))) if "/" not in hostile else ""
    body = paragraph(hostile * count + paragraph("x") * 100 + closing * count)
    started = time.process_time()
    read_bytes(docx(body), "a.docx")
    assert time.process_time() - started < 30
