"""A presentation is read slide by slide, as it is shown."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from embedcli.errors import UnreadableSource
from tests.office_files import read_bytes, relations, replaced, saved


def slide(show: Any, title: str | None, body: str = "") -> Any:
    made = show.slides.add_slide(show.slide_layouts[1 if title is not None else 6])
    if title is not None:
        made.shapes.title.text = title
        made.placeholders[1].text = body
    return made


def box(made: Any, text: str) -> Any:
    shape = made.shapes.add_textbox(Inches(1), Inches(1), Inches(2), Inches(1))
    shape.text_frame.text = text
    return shape


def part(data: bytes, name: str) -> str:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name).decode()


def test_slides_are_pages_and_their_titles_sections_and_notes_follow() -> None:
    show = Presentation()
    first = slide(show, "The pump", "It pumps\vwater.\nAnd oil.")
    first.notes_slide.notes_text_frame.text = "Say hello."
    slide(show, None)
    box(slide(show, None), "No title here")
    slide(show, "Torque")
    document = read_bytes(saved(show), "a.pptx")
    assert document.text == ("The pump\n\nIt pumps\nwater.\nAnd oil.\n\nNotes:\nSay hello.\n\nNo title here\n\nTorque")
    assert document.page_count == 4
    assert [number for number, _ in document.pages] == [1, 3, 4]
    assert [path for _, path in document.sections] == ["The pump", "Slide 3", "Torque"]
    assert [offset for _, offset in document.pages] == [offset for offset, _ in document.sections]
    assert document.title == "The pump"


def test_the_title_stands_first_wherever_its_shape_is() -> None:
    show = Presentation()
    made = slide(show, "Title")
    title = made.shapes.title._element
    made.shapes._spTree.append(title)
    box(made, "Below")
    made.shapes._spTree.append(title)
    assert read_bytes(saved(show), "a.pptx").text == "Title\n\nBelow"


def test_a_title_among_the_properties_is_the_title() -> None:
    show = Presentation()
    slide(show, "First")
    show.core_properties.title = "All about pumps"
    assert read_bytes(saved(show), "a.pptx").title == "All about pumps"


def test_tables_are_lines_and_merged_cells_are_read_once() -> None:
    show = Presentation()
    made = slide(show, "Torque")
    table = made.shapes.add_table(3, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    table.cell(2, 0).merge(table.cell(2, 1))
    for cell, text in zip(table.iter_cells(), ("Part", "Torque", "Bolt", "12\nNm", "Together", "LOST"), strict=True):
        cell.text = text
    assert read_bytes(saved(show), "a.pptx").text.endswith("\n\nPart | Torque\nBolt | 12 Nm\nTogether")


def test_hidden_slides_and_shapes_are_out_and_groups_are_in() -> None:
    show = Presentation()
    slide(show, "SECRET")._element.set("show", "0")
    made = slide(show, "Shown")
    group = made.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 100, 100).text_frame.text = "In a group"
    box(made, "HIDDEN")._element.nvSpPr.cNvPr.set("hidden", "1")
    document = read_bytes(saved(show), "a.pptx")
    assert document.text == "Shown\n\nIn a group"
    assert (document.pages, document.page_count) == (((2, 0),), 2)


def test_slides_come_in_the_order_of_the_show() -> None:
    show = Presentation()
    for title in ("Second", "First"):
        slide(show, title)
    order = show.slides._sldIdLst
    order.append(order[0])
    assert read_bytes(saved(show), "a.pptx").text == "First\n\nSecond"


def test_a_footer_is_read_once_and_numbers_and_dates_never() -> None:
    show = Presentation()
    for title in ("One", "Two"):
        made = slide(show, title)
        for text, kind in (("ACME", "ftr"), ("7", "sldNum"), ("1.5.2024", "dt")):
            shape = box(made, text)
            shape._element.nvSpPr.nvPr.get_or_add_ph().set("type", kind)
    assert read_bytes(saved(show), "a.pptx").text == "One\n\nACME\n\nTwo"


def test_the_text_of_a_diagram_belongs_to_its_slide() -> None:
    show = Presentation()
    slide(show, "Steps")
    data = saved(show)
    text = (
        '<d:dataModel xmlns:d="x" xmlns:a="y"><d:ptLst><d:pt><d:t><a:p><a:r><a:t>Order</a:t></a:r></a:p></d:t></d:pt>'
        "<d:pt><d:t><a:p><a:r><a:t>Deliver</a:t></a:r></a:p></d:t></d:pt></d:ptLst></d:dataModel>"
    )
    names = {"rId9": ("diagramData", "../diagrams/data1.xml")}
    data = replaced(data, {"ppt/diagrams/data1.xml": text, "ppt/slides/_rels/slide1.xml.rels": relations(names)})
    assert read_bytes(data, "a.pptx").text == "Steps\n\nOrder\nDeliver"


def test_characters_of_symbol_fonts_are_what_they_show() -> None:
    show = Presentation()
    slide(show, "Steps", "BODY")
    font = '<a:sym typeface="Wingdings" charset="2"/>'
    runs = "".join(
        f"<a:r><a:rPr>{properties}</a:rPr><a:t>{text}</a:t></a:r>"
        for properties, text in (
            ("", "Costs à la carte "),
            (font, "à"),
            (font, " rise \uf0e0 à nouveau"),
            ("", "\uf0e0"),
        )
    )
    data = saved(show)
    name = "ppt/slides/slide1.xml"
    data = replaced(data, {name: part(data, name).replace("<a:r><a:t>BODY</a:t></a:r>", runs)})
    assert read_bytes(data, "a.pptx").text == "Steps\n\nCosts à la carte → rise → à nouveau\uf0e0"


def test_comments_and_alternatives_are_out() -> None:
    show = Presentation()
    slide(show, "Shown")
    data = saved(show)
    fallback = (
        '<mc:AlternateContent xmlns:mc="m"><mc:Choice><p:sp><p:txBody><a:p><a:r><a:t>new</a:t></a:r></a:p></p:txBody>'
        "</p:sp></mc:Choice><mc:Fallback><p:sp><p:txBody><a:p><a:r><a:t>OLD</a:t></a:r></a:p></p:txBody></p:sp>"
        "</mc:Fallback></mc:AlternateContent></p:spTree>"
    )
    main = part(data, "ppt/slides/slide1.xml").replace("</p:spTree>", fallback)
    names = {"rId9": ("comments", "../comments/comment1.xml")}
    parts = {
        "ppt/slides/slide1.xml": main,
        "ppt/comments/comment1.xml": "<c><a:t xmlns:a='y'>COMMENT</a:t></c>",
        "ppt/slides/_rels/slide1.xml.rels": relations(names),
    }
    assert read_bytes(replaced(data, parts), "a.pptx").text == "Shown\n\nnew"


def test_a_presentation_without_text_is_empty_and_half_of_one_damaged() -> None:
    show = Presentation()
    slide(show, "Text")
    data = saved(show)
    for broken, reason in ((saved(Presentation()), "empty"), (data[: len(data) // 2], "damaged")):
        with pytest.raises(UnreadableSource) as caught:
            read_bytes(broken, "a.pptx")
        assert caught.value.reason == reason


def test_the_words_of_a_chart_stand_where_it_is_and_its_numbers_do_not() -> None:
    show = Presentation()
    data = CategoryChartData()
    data.categories = ["East", "West"]
    data.add_series("Sales 2024", (19.25, 21.5))
    data.add_series("Sales 2025", (20.25, 22.5))
    made = slide(show, "Revenue")
    chart = made.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, 900, 900, data).chart
    chart.has_title = True
    chart.chart_title.text_frame.text = "Revenue by region"
    made.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "Source: ACME"
    text = "Revenue\n\nRevenue by region\nSales 2024\nEast | West\nSales 2025\n\nSource: ACME"
    assert read_bytes(saved(show), "a.pptx").text == text
    made.shapes[-2]._element.nvGraphicFramePr.cNvPr.set("hidden", "1")
    assert read_bytes(saved(show), "a.pptx").text == "Revenue\n\nSource: ACME"


def test_a_broken_chart_costs_only_itself() -> None:
    show = Presentation()
    made = slide(show, "Revenue")
    data = CategoryChartData()
    data.categories = ["East"]
    data.add_series("", (1,))
    made.shapes.add_chart(XL_CHART_TYPE.PIE, 0, 0, 900, 900, data)
    whole = saved(show)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        name = next(name for name in archive.namelist() if name.startswith("ppt/charts/chart"))
    assert read_bytes(replaced(whole, {name: "<c:chartSpace"}), "a.pptx").text == "Revenue"


def test_the_shapes_of_a_hidden_group_are_left_out() -> None:
    show = Presentation()
    made = slide(show, "Steps")
    hidden, shown = made.shapes.add_group_shape(), made.shapes.add_group_shape()
    inner = hidden.shapes.add_group_shape()
    for group, text in ((hidden, "SECRET"), (inner, "SECRET"), (shown, "Order")):
        group.shapes.add_textbox(0, 0, 9, 9).text_frame.text = text
    hidden._element.nvGrpSpPr.cNvPr.set("hidden", "1")
    assert read_bytes(saved(show), "a.pptx").text == "Steps\n\nOrder"


def test_a_fraction_of_a_formula_is_no_number_of_its_own() -> None:
    show = Presentation()
    slide(show, "Steps", "BODY")
    data, name = saved(show), "ppt/slides/slide1.xml"
    half = "<m:f><m:num><m:r><m:t>1</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r></m:den></m:f>"
    formula = f'<a:r><a:t>x=</a:t></a:r><a14:m xmlns:a14="n" xmlns:m="m"><m:oMath>{half}</m:oMath></a14:m>'
    text = part(data, name).replace("<a:r><a:t>BODY</a:t></a:r>", formula)
    assert read_bytes(replaced(data, {name: text}), "a.pptx").text == "Steps\n\nx=1/2"
