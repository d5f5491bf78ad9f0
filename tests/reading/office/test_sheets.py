"""A workbook is read sheet by sheet, a row a line, values as they are meant."""

from __future__ import annotations

import datetime
import time
from typing import Any

import openpyxl
import pytest
from openpyxl.chart import BarChart, Reference

from embedcli.errors import UnreadableSource
from embedcli.reading.office import sheets
from tests import xlsb_files
from tests.office_files import odf, read_bytes, relations, replaced, saved


def workbook(*rows: list[Any], name: str = "Torques") -> Any:
    made = openpyxl.Workbook()
    made.active.title = name
    for row in rows:
        made.active.append(row)
    return made


def lines(made: Any) -> list[str]:
    return read_bytes(saved(made), "a.xlsx").text.split("\n")


def reason_of(data: bytes, name: str) -> str:
    with pytest.raises(UnreadableSource) as caught:
        read_bytes(data, name)
    return caught.value.reason


def test_a_row_is_led_by_its_headings_under_the_name_of_its_sheet() -> None:
    made = workbook(["Part", "Torque"], ["Bolt", "12 Nm"], ["Nut", 3.0])
    made.create_sheet("Empty")
    made.create_sheet("Prices").append(["One", "cell"])
    document = read_bytes(saved(made), "a.xlsx")
    assert document.text == "Torques\nPart: Bolt; Torque: 12 Nm\nPart: Nut; Torque: 3\n\nPrices\nOne | cell"
    assert document.sections == ((0, "Torques"), (document.text.index("Prices"), "Prices"))


def test_values_are_as_they_are_meant() -> None:
    day = datetime.datetime(2024, 1, 2)
    row = [3.0, 0.1 + 0.2, 12.5, "00123", True, day, day.replace(hour=13, minute=5), datetime.time(7, 30), -4, 1e20]
    assert lines(workbook(row))[1] == (
        "3 | 0.3 | 12.5 | 00123 | TRUE | 2024-01-02 | 2024-01-02 13:05:00 | 07:30:00 | -4 | 1e+20"
    )


def test_merged_cells_are_read_once_and_line_breaks_become_blanks() -> None:
    made = workbook(["Bolts and\nnuts", None, None], [1, 2, 3])
    made.active.merge_cells("A1:C1")
    assert lines(made)[1:] == ["Bolts and nuts", "1 | 2 | 3"]


def test_hidden_sheets_and_charts_are_out() -> None:
    made = workbook(["shown", "too"])
    for state in ("hidden", "veryHidden"):
        sheet = made.create_sheet(state)
        sheet.sheet_state = state
        sheet.append(["SECRET"])
    made.create_chartsheet("Chart")
    assert lines(made) == ["Torques", "shown | too"]


def with_box(made: Any, text: str, keys: str = "", suffix: str = "xml") -> bytes:
    """The workbook with a text box over its first sheet."""
    box = f'<x:sp><x:cNvPr name="Box 1" {keys}/><a:p><a:r><a:t>{text}</a:t></a:r></a:p></x:sp>'
    parts = {
        f"xl/worksheets/_rels/sheet1.{suffix}.rels": relations({"rId1": ("drawing", "../drawings/drawing1.xml")}),
        "xl/drawings/drawing1.xml": f'<x:wsDr xmlns:x="x" xmlns:a="a">{box}</x:wsDr>',
    }
    return replaced(made if isinstance(made, bytes) else saved(made), parts)


def test_text_in_a_box_over_a_sheet_stands_behind_its_rows() -> None:
    made = workbook(["Part", "Torque"], ["Bolt", "12 Nm"])
    made.create_sheet("Prices").append(["One", "cell"])
    text = read_bytes(with_box(made, "Turn slowly"), "a.xlsx").text
    assert text == "Torques\nPart: Bolt; Torque: 12 Nm\nTurn slowly\n\nPrices\nOne | cell"
    assert read_bytes(with_box(workbook(), "Turn slowly"), "a.xlsx").text == "Torques\nTurn slowly"
    whole = read_bytes(saved(made), "a.xlsx").text
    assert read_bytes(with_box(made, "SECRET", 'hidden="1"'), "a.xlsx").text == whole
    assert read_bytes(with_box(made, "<broken"), "a.xlsx").text == whole
    made.worksheets[0].sheet_state = "hidden"
    made.active = 1
    assert read_bytes(with_box(made, "SECRET"), "a.xlsx").text == "Prices\nOne | cell"


def test_the_titles_of_a_chart_are_read_and_what_it_takes_from_cells_is_not_said_twice() -> None:
    made = workbook(["Part", "Torque"], ["Bolt", 12])
    sheet = made.worksheets[0]
    chart = BarChart()
    chart.title, chart.y_axis.title = "All torques of 2024", "Newton metres"
    chart.add_data(Reference(sheet, min_col=2, min_row=1, max_row=2), titles_from_data=True)
    chart.set_categories(Reference(sheet, min_col=1, min_row=2, max_row=2))
    sheet.add_chart(chart, "D2")
    whole = saved(made)
    text = read_bytes(whole, "a.xlsx").text
    assert text == "Torques\nPart: Bolt; Torque: 12\nAll torques of 2024\nNewton metres"
    assert read_bytes(replaced(whole, {"xl/charts/chart1.xml": "<broken"}), "a.xlsx").text == text.partition("\nAll")[0]
    beside = relations({"rId1": ("chart", "../charts/none.xml")})
    lost = replaced(whole, {"xl/drawings/_rels/drawing1.xml.rels": beside})
    assert read_bytes(lost, "a.xlsx").text == text.partition("\nAll")[0]


def test_the_words_of_a_diagram_over_a_sheet_are_read() -> None:
    words = "<a:p><a:r><a:t>Clean it</a:t></a:r></a:p>"
    parts = {
        "xl/drawings/_rels/drawing1.xml.rels": relations({"rId7": ("diagramData", "../diagrams/data1.xml")}),
        "xl/diagrams/data1.xml": f"<dgm:dataModel><dgm:pt>{words}</dgm:pt></dgm:dataModel>",
    }
    data = replaced(with_box(workbook(["Part", "Torque"], ["Bolt", 12]), "In a box"), parts)
    assert read_bytes(data, "a.xlsx").text.endswith("Torque: 12\nClean it\nIn a box")


BOX = "<draw:frame><draw:text-box><text:p>{}</text:p></draw:text-box></draw:frame>"
CHART = """<office:document-content><office:chart><chart:chart><chart:title><text:p>Title {0}</text:p></chart:title>
    <chart:series chart:label-cell-address="{0}.$B$1"/><table:table table:name="local-table"><table:table-row>
    <table:table-cell/><table:table-cell office:value-type="string"><text:p>Series {0}</text:p></table:table-cell>
    </table:table-row></table:table></chart:chart></office:chart></office:document-content>"""


def test_what_is_drawn_over_a_sheet_of_libreoffice_stands_behind_its_rows() -> None:
    """Shapes hang on the sheet or on a cell; a chart keeps a copy of the cells that it shows."""
    chart = '<draw:frame><draw:object xlink:href="./{}"/></draw:frame>'
    string = '<table:table-cell office:value-type="string">{}<text:p>{}</text:p></table:table-cell>'
    cells = string.format("", "Part") + f"<table:table-cell>{BOX.format('On a cell')}</table:table-cell>"
    cells += string.format(chart.format("Object 2"), "Bolt")
    number = BOX.format("On a number") + "<text:p>3</text:p>"
    cells += f'<table:table-cell office:value-type="float" office:value="3">{number}</table:table-cell>'
    note = "<office:annotation><text:p>NOTE</text:p></office:annotation>"
    row = f"<table:table-row>{cells}{string.format(note, 'Nut')}</table:table-row>"
    shapes = f"<table:shapes>{BOX.format('Over it')}{chart.format('Object 1')}</table:shapes>"
    sheets = f'<table:table table:name="S1">{shapes}{row}</table:table>'
    sheets += f'<table:table table:name="S2"><table:shapes>{BOX.format("Only this")}</table:shapes></table:table>'
    parts = {
        "META-INF/manifest.xml": "<manifest:manifest/>",
        "Object 1/content.xml": CHART.format("S1"),
        "Object 2/content.xml": CHART.format("local-table"),
    }
    data = replaced(odf(sheets, kind="spreadsheet"), parts)
    assert read_bytes(data, "a.ods").text.splitlines() == [
        *("S1", "Part | Bolt | 3 | Nut", "Over it", "Title S1", "On a cell", "Title local-table"),
        *("Series local-table", "On a number", "", "S2", "Only this"),
    ]
    broken = replaced(data, {"Object 1/content.xml": "<office:", "Object 2/content.xml": "<office:"})
    assert "On a number\n\nS2\nOnly this" in read_bytes(broken, "a.ods").text


def test_a_title_among_the_properties_is_the_title() -> None:
    made = workbook(["a", "b"])
    made.properties.title = "Torques of 2024"
    assert read_bytes(saved(made), "a.xlsx").title == "Torques of 2024"


def test_it_is_known_by_its_content() -> None:
    assert read_bytes(saved(workbook(["a", "b"])), "a.dat").text == "Torques\na | b"


def test_no_rows_are_empty_and_half_a_file_is_damaged() -> None:
    data = saved(workbook(["a", "b"]))
    assert reason_of(saved(openpyxl.Workbook()), "a.xlsx") == "empty"
    assert reason_of(data[: len(data) // 2], "a.xlsx") == "damaged"


def test_a_workbook_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MOST_UNPACKED_BYTES", 20_000)
    assert reason_of(saved(workbook(*[["a", "b"]] * 2_000)), "a.xlsx") == "too_large"


def test_twenty_thousand_rows_take_seconds_at_most() -> None:
    made = openpyxl.Workbook(write_only=True)
    sheet = made.create_sheet("Bolts")
    sheet.append(["Part", "Torque", "Checked", "Count"])
    for number in range(20_000):
        sheet.append([f"Bolt {number}", number / 8, datetime.datetime(2024, 1, 2), number])
    data = saved(made)
    started = time.process_time()
    document = read_bytes(data, "a.xlsx")
    assert time.process_time() - started < 10
    assert document.text.count("\n") == 20_000
    assert document.text.endswith("Part: Bolt 19999; Torque: 2499.875; Checked: 2024-01-02; Count: 19999")


def test_a_cell_that_strayed_to_the_end_of_a_sheet_costs_no_memory() -> None:
    day = datetime.datetime(2024, 1, 2)
    rows = [
        ["Part", "Torque", "Checked", "At", "Code", "Fits"],
        ["Bolt", 12.0, day, day.replace(hour=13), "00123", True],
    ]
    rows.append(["Nut\nand more", 0.1 + 0.2, day, datetime.time(7, 30), "x", False])
    made = workbook(*rows)
    dense = lines(made)
    made.active.cell(1_048_576, 16_384).value = "strayed"
    started = time.process_time()
    assert lines(made) == [*dense, "strayed"]
    assert time.process_time() - started < 30
    assert dense[1] == "Part: Bolt; Torque: 12; Checked: 2024-01-02; At: 2024-01-02 13:00:00; Code: 00123; Fits: TRUE"


def test_a_binary_workbook_is_read_as_any_other() -> None:
    day = datetime.date(2024, 1, 2)
    rows = [["Part", "Torque", "Day", "Ok", "Sum"], ["Bolt", 12, day, True, "=12 Nm"], ["Nuts é日", 1.5, None, False]]
    data = xlsb_files.workbook({"Torques": rows, "Secret": [["SECRET"]], "Empty": []}, hidden=["Secret"])
    document = read_bytes(data, "a.xlsb")
    assert document.text == (
        "Torques\nPart: Bolt; Torque: 12; Day: 2024-01-02; Ok: TRUE; Sum: 12 Nm\nPart: Nuts é日; Torque: 1.5; Ok: FALSE"
    )
    assert document.sections == ((0, "Torques"),)
    assert reason_of(data[: len(data) // 2], "a.xlsb") == "damaged"


def test_a_duration_of_more_than_a_day_is_in_hours() -> None:
    made = workbook(["Total", datetime.timedelta(hours=30)], ["Break", datetime.timedelta(minutes=7, seconds=5)])
    assert lines(made)[-2:] == ["Total | 30:00:00", "Break | 00:07:05"]


def test_text_in_a_box_over_a_sheet_of_a_binary_workbook_is_read() -> None:
    made = xlsb_files.workbook({"Torques é": [["Part", "Torque"], ["Bolt", 12]], "Second" * 30: [["One", "cell"]]})
    text = read_bytes(with_box(made, "Turn slowly", suffix="bin"), "a.xlsb").text
    assert text == f"Torques é\nPart: Bolt; Torque: 12\nTurn slowly\n\n{'Second' * 30}\nOne | cell"
