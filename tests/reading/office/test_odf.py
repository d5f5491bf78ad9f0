"""OpenDocument texts and presentations are read as their readers see them."""

from __future__ import annotations

import pytest

from embedcli.errors import UnreadableSource
from tests.office_files import ODF_NAMESPACES, odf, read_bytes, replaced, zipped


def text_of(body: str, **parts: str) -> str:
    return read_bytes(odf(body, **parts), "a.odt").text


def test_headings_lists_and_tables() -> None:
    body = """<text:p text:style-name="P1">Pump manual</text:p><text:h text:outline-level="1">Install</text:h>
        <text:h text:outline-level="2">Linux</text:h><text:list><text:list-item><text:p>Unpack it.</text:p>
        <text:p>All.</text:p></text:list-item><text:list-item><text:p>Start it.</text:p></text:list-item></text:list>
        <table:table><table:table-row><table:table-cell><text:p>Part</text:p></table:table-cell><table:table-cell>
        <text:p>Torque</text:p></table:table-cell></table:table-row><table:table-row><table:table-cell
        table:number-columns-spanned="2"><text:p>Both</text:p></table:table-cell><table:covered-table-cell/>
        </table:table-row></table:table>"""
    styles = '<style:style style:name="P1" style:parent-style-name="Title"/>'
    document = read_bytes(odf(body, styles=styles), "a.odt")
    assert document.title == "Pump manual"
    assert [path for _, path in document.sections] == ["Install", "Install > Linux"]
    assert document.text.endswith("Linux\n- Unpack it.\nAll.\n- Start it.\nPart | Torque\n\nBoth")


def test_characters_of_symbol_fonts_are_what_they_show() -> None:
    body = """<text:p>5 <text:span text:style-name="T1">\uf06d</text:span>m<text:span text:style-name="T2"> \uf0e0 on
        </text:span>\uf0e0</text:p>"""
    styles = """<style:style style:name="T1"><style:text-properties style:font-name="Symbol1" fo:font-family="Symbol"/>
        </style:style><style:style style:name="T2"><style:text-properties style:font-name="Wingdings"/></style:style>"""
    assert text_of(body, styles=styles) == "5 \u00b5m → on \uf0e0"


def test_a_reading_above_characters_follows_them() -> None:
    body = """<text:p><text:ruby><text:ruby-base>漢字</text:ruby-base><text:ruby-text>かんじ</text:ruby-text>
        </text:ruby>を<text:ruby><text:ruby-base>読</text:ruby-base><text:ruby-text/></text:ruby>む</text:p>"""
    assert text_of(body) == "漢字(かんじ) を読む"


def test_the_title_among_the_properties_is_the_title() -> None:
    meta = "<office:meta><dc:title>Pumps</dc:title></office:meta>"
    assert read_bytes(odf("<text:p>x</text:p>", meta=meta), "a.odt").title == "Pumps"


def test_blanks_tabs_breaks_and_fields() -> None:
    body = """<text:p>one  <text:s text:c="3"/>two<text:tab/>three<text:line-break/>
        fo<text:span>u</text:span>r <text:date>1 May</text:date>, <text:title>Pumps</text:title></text:p>"""
    assert text_of(body) == "one    two\tthree\n four 1 May, Pumps"


def test_deleted_text_and_comments_are_out_and_notes_follow_their_paragraph() -> None:
    body = """<text:tracked-changes><text:changed-region><text:deletion><text:p>DELETED</text:p></text:deletion>
        </text:changed-region></text:tracked-changes><text:p>Kept<office:annotation><text:p>COMMENT</text:p>
        </office:annotation> text<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>A note.
        </text:p></text:note-body></text:note> here.</text:p><text:p>Next.</text:p>"""
    assert text_of(body) == "Kept text here.\n\nA note.\n\nNext."


def test_deleted_text_that_stands_where_it_was_is_out() -> None:
    """As LibreOffice saves a flat file: the region names the change, and its text is between two marks."""
    body = """<text:tracked-changes><text:changed-region xml:id="d" text:id="d"><text:deletion><office:change-info>
        <dc:creator>Anna</dc:creator><text:p>WHY</text:p></office:change-info></text:deletion></text:changed-region>
        <text:changed-region text:id="i"><text:insertion><office:change-info/></text:insertion></text:changed-region>
        </text:tracked-changes><text:p>Kept<text:change-start text:change-id="d"/> DELETED</text:p><text:p>DELETED
        <text:tab/><text:change-end text:change-id="d"/> and <text:change-start text:change-id="i"/>new<text:change-end
        text:change-id="i"/>.</text:p>"""
    assert text_of(body) == "Kept\n\nand new."


def test_text_boxes_and_shapes_follow_their_paragraph_without_their_descriptions() -> None:
    body = """<text:p>Before <draw:frame><draw:text-box><text:p>In a box</text:p></draw:text-box>
        <svg:title>ALT</svg:title><svg:desc>ALT</svg:desc></draw:frame>
        <draw:custom-shape><svg:title>ALT</svg:title><text:p>In a shape</text:p>
        </draw:custom-shape>after</text:p>"""
    assert text_of(body) == "Before after\n\nIn a box\n\nIn a shape"


def test_hidden_sections_are_out_and_headers_and_footers_are_read_once() -> None:
    margins = "".join(
        f"<style:{name} {display}><text:p>{name[:6].upper()}</text:p></style:{name}>"
        for name, display in (
            ("header", ""),
            ("header-first", ""),
            ("footer", ""),
            ("footer-left", 'style:display="false"'),
        )
    )
    body = '<text:section text:display="none"><text:p>HIDDEN</text:p></text:section><text:p>Text</text:p>'
    assert text_of(body, masters=margins) == "HEADER\n\nText\n\nFOOTER"


SLIDES = """<draw:page><draw:frame presentation:class="outline"><draw:text-box><text:list><text:list-item>
    <text:p>Body</text:p></text:list-item></text:list></draw:text-box></draw:frame>
    <draw:frame presentation:class="title"><draw:text-box>
    <text:p>The pump</text:p></draw:text-box></draw:frame><draw:frame presentation:class="page-number"><draw:text-box>
    <text:p>7</text:p></draw:text-box></draw:frame><presentation:notes><draw:page-thumbnail/><draw:frame><draw:text-box>
    <text:p>Say hello.</text:p></draw:text-box></draw:frame></presentation:notes></draw:page>
    <draw:page draw:style-name="dp2"><draw:frame><draw:text-box><text:p>SECRET</text:p></draw:text-box></draw:frame>
    </draw:page><draw:page><draw:custom-shape><text:p>No title</text:p></draw:custom-shape></draw:page><draw:page/>"""
HIDDEN = '<style:style style:name="dp2"><style:drawing-page-properties presentation:visibility="hidden"/></style:style>'


def test_slides_are_pages_with_titles_as_sections_and_notes_behind() -> None:
    document = read_bytes(odf(SLIDES, kind="presentation", styles=HIDDEN, masters="<text:p>Click</text:p>"), "a.odp")
    assert document.text == "The pump\n- Body\n\nNotes:\nSay hello.\n\nNo title"
    assert (document.pages, document.page_count) == (((1, 0), (3, document.text.index("No title"))), 4)
    assert [path for _, path in document.sections] == ["The pump", "Slide 3"]


def test_a_flat_file_is_read_without_its_pictures() -> None:
    picture = "<draw:frame><draw:image><office:binary-data>QUJD</office:binary-data></draw:image></draw:frame>"
    flat = f"""<?xml version="1.0"?><office:document {ODF_NAMESPACES}><office:meta><dc:title>Flat</dc:title>
        </office:meta><office:body><office:text><text:p>Text{picture}</text:p></office:text></office:body></office:document>"""
    document = read_bytes(flat.encode(), "a.fodt")
    assert (document.text, document.title) == ("Text", "Flat")


def test_a_flat_workbook_has_its_sheets_as_sections() -> None:
    def sheet(name: str, style: str) -> str:
        cells = "".join(f"<table:table-cell><text:p>{name}{n}</text:p></table:table-cell>" for n in "12")
        return (
            f'<table:table table:name="{name}" table:style-name="{style}"><table:table-row>{cells}<table:table-cell'
            ' table:number-columns-repeated="16382"/></table:table-row></table:table>'
        )

    styles = '<style:style style:name="h"><style:table-properties table:display="false"/></style:style>'
    flat = f"""<office:document {ODF_NAMESPACES}><office:automatic-styles>{styles}</office:automatic-styles>
        <office:body><office:spreadsheet>{sheet("A", "s")}{sheet("HIDDEN", "h")}</office:spreadsheet></office:body>
        </office:document>"""
    document = read_bytes(flat.encode(), "a.fods")
    assert (document.text, document.sections) == ("A\nA1 | A2", ((0, "A"),))


def test_an_encrypted_file_is_password_and_half_of_one_damaged() -> None:
    manifest = f"""<manifest:manifest {ODF_NAMESPACES}><manifest:file-entry manifest:full-path="content.xml">
        <manifest:encryption-data/></manifest:file-entry></manifest:manifest>"""
    data = odf("<text:p>x</text:p>")
    encrypted = zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": b"\x80",
            "META-INF/manifest.xml": manifest,
        }
    )
    for broken, reason in ((encrypted, "password"), (data[: len(data) // 2], "damaged"), (odf(""), "empty")):
        with pytest.raises(UnreadableSource) as caught:
            read_bytes(broken, "a.odt")
        assert caught.value.reason == reason


HIDING = '<style:style style:name="{}" style:family="{}"><style:text-properties text:display="none"/></style:style>'


def test_text_that_is_not_displayed_is_left_out() -> None:
    styles = HIDING.format("H", "text") + HIDING.format("P", "paragraph")
    styles += '<style:style style:name="Q" style:parent-style-name="P" style:family="paragraph"/>'
    styles += '<style:style style:name="P" style:family="text"/>'
    body = (
        '<text:p>The pump <text:span text:style-name="H">SECRET <text:span>SECRET</text:span></text:span>starts.'
        "</text:p>"
        '<text:p text:style-name="P">SECRET</text:p><text:p text:style-name="Q">SECRET</text:p>'
        '<text:p>It <text:span text:style-name="P">stops.</text:span>'
        '<text:hidden-text text:is-hidden="true">SECRET</text:hidden-text>'
        '<text:script>SECRET()</text:script></text:p>'
        '<text:p>SECRET<text:hidden-paragraph text:is-hidden="true"/>SECRET</text:p>'
        '<text:p>End<text:hidden-paragraph text:is-hidden="false"/></text:p>'
    )  # fmt: skip
    assert read_bytes(odf(body, styles=styles), "a.odt").text == "The pump starts.\n\nIt stops.\n\nEnd"


def test_text_is_hidden_by_a_style_that_the_document_shares() -> None:
    shared = f"<office:document-styles {ODF_NAMESPACES}><office:styles>{HIDING.format('Hidden', 'text')}"
    made = replaced(
        odf('<text:p>seen<text:span text:style-name="Hidden">SECRET</text:span></text:p>'),
        {"styles.xml": f"{shared}</office:styles></office:document-styles>"},
    )
    assert read_bytes(made, "a.odt").text == "seen"


FORMULA = """<math:math> <math:semantics> <math:mrow> <math:mi>E</math:mi> <math:mo>=</math:mo> <math:mfrac>
    <math:mrow><math:mi> a </math:mi><math:mo>+</math:mo><math:mn>1</math:mn></math:mrow> <math:mn>2</math:mn>
    </math:mfrac> <math:mtext> for </math:mtext> <math:mi>f</math:mi>
    <math:mfenced><math:mi>x</math:mi><math:mi>y</math:mi></math:mfenced> </math:mrow>
    <math:annotation math:encoding="StarMath 5.0">E = {a + 1} over 2</math:annotation> </math:semantics> </math:math>"""
READ_FORMULA = "E=(a+1)/2 for f(x,y)"


def cell(text: str, kind: str = "string") -> str:
    return f'<table:table-cell office:value-type="{kind}"><text:p>{text}</text:p></table:table-cell>'


def chart(table: str = "local-table") -> str:
    """With words and numbers in a table of its own, which may be a copy of another one."""
    rows = [cell("") + cell("Bolts"), cell("M8") + cell("9.1", "float"), cell("M10") + cell("9.2", "float")]
    table_rows = "".join(f"<table:table-row>{row}</table:table-row>" for row in rows)
    return f"""<office:body><office:chart><chart:chart><chart:title><text:p>Torques</text:p></chart:title>
        <chart:plot-area><chart:axis><chart:title><text:p>Nm</text:p></chart:title>
        <chart:categories table:cell-range-address="{table}.$A$2:.$A$3"/></chart:axis>
        <chart:series chart:label-cell-address="{table}.$B$1" chart:values-cell-range-address="{table}.$B$2:.$B$3"/>
        </chart:plot-area><table:table table:name="local-table">{table_rows}</table:table></chart:chart></office:chart>
        </office:body>"""


def document_part(inside: str) -> str:
    return f"<office:document-content>{inside}</office:document-content>"


def frame(name: str) -> str:
    image = f'<draw:image xlink:href="./ObjectReplacements/{name}"/>'
    return f'<draw:frame><draw:object xlink:href="./{name}"/>{image}</draw:frame>'


def flat(body: str, kind: str) -> str:
    text = read_bytes(
        f"<office:document {ODF_NAMESPACES}><office:body><office:{kind}>{body}</office:{kind}></office:body>"
        "</office:document>".encode(),
        "a.fodt",
    ).text
    return text.replace("\n\n", "\n")


def with_objects(body: str, kind: str = "text", **objects: str) -> bytes:
    manifest = {"META-INF/manifest.xml": "<manifest:manifest/>"}
    parts = {f"{name.replace('_', ' ')}/content.xml": content for name, content in objects.items()}
    return replaced(odf(body, kind=kind), manifest | parts)


def test_a_formula_stands_in_its_place_without_its_source() -> None:
    body = f"<text:p>Where {frame('Object 1')} holds.</text:p>"
    expected = f"Where {READ_FORMULA} holds."
    assert read_bytes(with_objects(body, Object_1=FORMULA), "a.odt").text == expected
    inside = f"<draw:frame><draw:object>{FORMULA}</draw:object></draw:frame>"
    assert flat(body.replace(frame("Object 1"), inside), "text") == expected
    slide = f"<draw:page>{frame('Object 1')}</draw:page>"
    assert read_bytes(with_objects(slide, "presentation", Object_1=FORMULA), "a.odp").text == READ_FORMULA
    assert read_bytes(zipped({"mimetype": f"{MIME}formula", "content.xml": FORMULA}), "a.odf").text == READ_FORMULA


MIME = "application/vnd.oasis.opendocument."


def test_the_words_of_a_chart_follow_its_paragraph_and_its_numbers_do_not() -> None:
    body = f"<text:p>See {frame('Object 1')} there.</text:p>"
    expected = "See there.\n\nTorques\nNm\nBolts\nM8 | M10"
    assert read_bytes(with_objects(body, Object_1=document_part(chart())), "a.odt").text == expected
    inside = f"<draw:frame><draw:object><office:document>{chart()}</office:document></draw:object></draw:frame>"
    assert flat(body.replace(frame("Object 1"), inside), "text") == expected.replace("\n\n", "\n")
    slide = f"<draw:page>{frame('Object 1')}</draw:page>"
    slides = with_objects(slide, "presentation", Object_1=document_part(chart("Sheet1")))
    assert read_bytes(slides, "a.odp").text == "Torques\nNm\nBolts\nM8 | M10"


def test_a_chart_of_a_table_of_the_text_does_not_say_its_words_twice() -> None:
    row = f"<table:table-row>{cell('Bolts')}{cell('M8')}</table:table-row>"
    table = f'<table:table table:name="It\'s">{row}</table:table>'
    part = document_part(chart("'It''s'"))
    data = with_objects(f"{table}<text:p>{frame('Object 1')}</text:p>", Object_1=part)
    assert read_bytes(data, "a.odt").text == "Bolts | M8\n\nTorques\nNm"


def test_other_objects_are_read_as_what_they_are() -> None:
    row = f"<table:table-row>{cell('Part')}{cell('12', 'float')}</table:table-row>"
    sheet = f"<table:table table:name='S'>{row}</table:table>"
    sheet = document_part(f"<office:body><office:spreadsheet>{sheet}</office:spreadsheet></office:body>")
    inner = document_part(
        f"<office:body><office:text><text:p>In {frame('Object 2')}</text:p></office:text></office:body>"
    )
    drawing = document_part(
        "<office:body><office:drawing><draw:page><draw:rect><text:p>Box</text:p></draw:rect>"
        "</draw:page></office:drawing></office:body>"
    )
    body = "".join(f"<text:p>{n}{frame(f'Object {n}')}</text:p>" for n in (1, 3, 4))
    nested = {"Object 3/Object 2/content.xml": FORMULA}
    data = replaced(with_objects(body, Object_1=sheet, Object_3=inner, Object_4=drawing), nested)
    document = read_bytes(data, "a.odt")
    assert document.text == f"1\nPart | 12\n\n3\n\nIn {READ_FORMULA}\n\n4\n\nBox"
    assert document.sections == document.pages == ()


def test_a_broken_or_circular_object_costs_only_itself() -> None:
    body = f"<text:p>Before</text:p><text:p>{frame('Object 1')}{frame('Object 2')}{frame('Object 9')}</text:p>"
    circle = document_part(
        f"<office:body><office:text><text:p>In{frame('.')}{frame('../Object 2')}</text:p></office:text>"
    )
    data = with_objects(body, Object_1="<math:math><math:mi>x</math:mi>", Object_2=circle)
    assert read_bytes(data, "a.odt").text.startswith("Before")


CONTROLS = """<office:forms><form:form form:name="Form">
    <form:text form:id="c1" xml:id="c1" form:label="NO" form:value="OLD" form:current-value="Ada"/>
    <form:textarea form:id="c2" form:current-value="Two lines"><text:p>Two lines</text:p></form:textarea>
    <form:fixed-text form:id="c3" form:label="City:"/><form:checkbox form:id="c4" form:label="I agree" form:value="on"/>
    <form:listbox form:id="c5"><form:option form:label="Red" form:selected="true"/>
    <form:option form:label="Green" form:current-selected="true"/></form:listbox>
    <form:listbox form:id="c6" form:label="NO"><form:option form:label="Red" form:selected="true"/>
    <form:option form:label="Blue"/></form:listbox>
    <form:combobox form:id="c7" form:current-value="Berlin"><form:item form:label="Paris"/></form:combobox>
    <form:password form:id="c8" form:current-value="SECRET"/><form:hidden form:id="c9" form:value="SECRET"/>
    <form:date form:id="c10" form:value="2024-05-01"/></form:form></office:forms>"""


def test_what_stands_in_the_fields_of_a_form_is_read_in_its_place() -> None:
    shown = "".join(f'<text:p>{n} <draw:control draw:control="c{n}"/>.</text:p>' for n in range(1, 11))
    words = ["Ada", "Two lines", "City:", "I agree", "Green", "Red", "Berlin", "", "", "2024-05-01"]
    expected = "\n\n".join(f"{number} {word}." for number, word in enumerate(words, start=1))
    assert text_of(CONTROLS + shown) == expected
    assert text_of(f'{CONTROLS}<text:p>Body</text:p><draw:control draw:control="c1"/>') == "Body\n\nAda"
    slide = read_bytes(
        odf(f'<draw:page>{CONTROLS}<draw:control draw:control="c1"/></draw:page>', kind="presentation"), "a.odp"
    )
    assert slide.text == "Ada"


@pytest.mark.parametrize(("selected", "chosen"), [("1", "Green"), ("0", "Red"), ("", "Red"), ("7", "")])
def test_what_is_chosen_from_the_list_of_a_form_is_read(selected: str, chosen: str) -> None:
    parameters = [("Dropdown_ListEntry", "Red"), ("Dropdown_ListEntry", "Green"), ("Dropdown_Selected", selected)]
    inside = "".join(f'<field:param field:name="{name}" field:value="{value}"/>' for name, value in parameters)
    inside = inside.replace('<field:param field:name="Dropdown_Selected" field:value=""/>', "")
    field = f'<field:fieldmark field:type="vnd.oasis.opendocument.field.FORMDROPDOWN">{inside}</field:fieldmark>'
    assert text_of(f"<text:p>Colour: {field}!</text:p>") == f"Colour: {chosen}!"


def test_a_footer_of_slides_is_read_once() -> None:
    styles = """<style:style style:name="off" style:family="drawing-page"><style:drawing-page-properties
        presentation:display-footer="false"/></style:style>"""
    declared = "".join(
        f'<presentation:footer-decl presentation:name="f{n}">{text}</presentation:footer-decl>'
        for n, text in enumerate(["Pumps &amp; more", "Other", "HIDDEN"])
    )
    slides = "".join(
        f'<draw:page presentation:use-footer-name="{name}" draw:style-name="{style}"><draw:rect><text:p>S</text:p>'
        "</draw:rect><presentation:notes><text:p>N</text:p></presentation:notes></draw:page>"
        for name, style in (("f0", "on"), ("f0", "on"), ("f1", "on"), ("f2", "off"), ("gone", "on"))
    )
    document = read_bytes(odf(declared + slides, kind="presentation", styles=styles), "a.odp")
    assert document.text.split("\n\n") == [
        *("S", "Pumps & more", "Notes:\nN", "S", "Notes:\nN", "S", "Other", "Notes:\nN"),
        *("S", "Notes:\nN", "S", "Notes:\nN"),
    ]
    assert [number for number, _ in document.pages] == [1, 2, 3, 4, 5]
