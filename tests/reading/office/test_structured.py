"""JSON, XML, drawings, notebooks and subtitles are read as what a person would look for in them."""

from __future__ import annotations

import base64
import json
import random
import time
from typing import Any

import pytest

from embedcli.errors import UnreadableSource
from embedcli.records import Document
from tests.office_files import read_bytes

PICTURE = base64.b64encode(random.Random(5).randbytes(3_000)).decode()


def of_json(value: Any, name: str = "a.json") -> str:
    return read_bytes(json.dumps(value, ensure_ascii=False, indent=1).encode(), name).text


def of_xml(text: str, name: str = "a.xml") -> str:
    return read_bytes(text.encode(), name).text


def test_a_json_value_is_led_by_the_names_above_it() -> None:
    value = {"name": "Pump", "parts": [{"name": "Bolt", "torque": 12.0}, {"name": "Nut", "ok": True, "x": None}]}
    assert of_json(value) == "name: Pump\n\nparts.name: Bolt\nparts.torque: 12.0\n\nparts.name: Nut\nparts.ok: true"
    assert of_json({"tags": ["a", "b"], "empty": [], "text": "two\nlines"}) == "tags: a, b\ntext: two\nlines"
    assert of_json(["one", "two"]) == "one, two"
    assert of_json("alone") == "alone"


def test_numbers_stay_as_they_are_written_and_keys_may_stand_twice() -> None:
    assert read_bytes(b'{"a": 1.50, "a": 12345678901234567890, "b": 1e5}', "a.json").text == (
        "a: 1.50\na: 12345678901234567890\nb: 1e5"
    )


def test_long_lists_of_numbers_and_pictures_are_left_out_and_counted() -> None:
    value = {"text": "Pump", "vector": [n / 7 for n in range(400)], "picture": PICTURE, "line": [[1.5, 2], [3, 4]]}
    document = read_bytes(json.dumps(value).encode(), "a.json")
    assert document.text == "text: Pump\nvector: \npicture: \nline: 1.5,2,3,4"
    assert (document.pages_skipped, document.reason) == (2, "data_left_out")


def test_pages_inside_values_are_read_as_pages() -> None:
    assert of_json({"body": "<p>One <b>two</b></p><script>MARK</script>"}) == "body: One two"
    assert of_xml("<rss><item><d>&lt;p&gt;One&lt;/p&gt;</d></item></rss>", "a.rss") == "rss.item.d: One"
    assert of_json({"code": "if a < b: c > d"}) == "code: if a < b: c > d"


def test_broken_json_is_read_as_it_stands() -> None:
    for text in ('{"a": 1, // why\n}', "[" * 100_000, "not json"):
        assert read_bytes(text.encode(), "a.json").text == text
    with pytest.raises(UnreadableSource) as caught:
        of_json({})
    assert caught.value.reason == "empty"


def test_each_line_of_json_lines_is_a_record() -> None:
    assert read_bytes(b'{"a": 1, "b": 2}\n\n{"a": 3}\n', "a.jsonl").text == "a: 1\nb: 2\n\na: 3"
    assert read_bytes(b'{"a": 1}\n{"a":\n', "a.ndjson").text == '{"a": 1}\n{"a":\n'


def test_an_xml_value_is_led_by_the_names_above_it() -> None:
    text = """<?xml version="1.0" encoding="iso-8859-1"?><!DOCTYPE parts SYSTEM "parts.dtd"><parts xmlns="x"
        xmlns:xsi="y" xsi:schemaLocation="MARK"><!-- MARK --><part x:id="7" xml:lang="MARK">
        <name>Bolt</name><torque unit="Nm">12</torque>
        </part><part><name>Müller &amp; Co</name><empty/></part></parts>"""
    assert read_bytes(text.encode("latin-1"), "a.xml").text == (
        "parts.part.id: 7\nparts.part.name: Bolt\nparts.part.torque.unit: Nm\nparts.part.torque: 12\n\n"
        "parts.part.name: Müller & Co"
    )


def test_a_sentence_with_marks_inside_stays_whole() -> None:
    text = "<book><para>Turn the <b>red</b> knob\n   <i>slowly</i>.</para><para>Stop.</para></book>"
    assert of_xml(text) == "book.para: Turn the red knob slowly.\nbook.para: Stop."


def test_broken_xml_and_bombs_are_read_as_they_stand() -> None:
    for text in ("<a><b>text</a>", "<a>&nbsp;text</a>", '<!DOCTYPE a [<!ENTITY b "&c;&c;">]><a>&b;</a>', "{{ x }}"):
        assert of_xml(text) == text


def test_a_drawing_is_read_by_its_words() -> None:
    text = """<?xml version="1.0"?><!DOCTYPE svg PUBLIC "x" "y" [<!ENTITY ns "http://www.w3.org/2000/svg">]>
        <svg xmlns="&ns;"><title>Pump</title><style>MARK</style><path d="M0,0"/><text x="1"><tspan x="1">In</tspan>
        <tspan x="1" y="9">let</tspan></text><g><text>Out<tspan>let</tspan></text></g></svg>"""
    document = read_bytes(text.encode(), "a.svg")
    assert (document.text, document.title) == ("Pump\nIn let\nOutlet", "Pump")
    with pytest.raises(UnreadableSource) as caught:
        of_xml('<svg xmlns="s"><path d="M0,0"/></svg>', "b.svg")
    assert caught.value.reason == "empty"


def notebook(*cells: dict[str, Any]) -> Document:
    return read_bytes(json.dumps({"cells": cells, "metadata": {"x": "MARK"}, "nbformat": 4}).encode(), "a.ipynb")


def test_a_notebook_is_its_cells_without_what_they_put_out() -> None:
    output = {"output_type": "display_data", "data": {"image/png": PICTURE, "text/plain": ["<Figure>"]}}
    document = notebook(
        {
            "cell_type": "markdown",
            "source": ["# Pumps\n", "Some text.\n", "```\n", "# no heading\n", "```\n", "## Data"],
        },
        {"cell_type": "code", "source": "import pumps\n\npumps.plot()", "outputs": [output]},
        {"cell_type": "markdown", "source": f"![plot](data:image/png;base64,{PICTURE})\nDone."},
    )
    assert document.text == (
        "Pumps\n\nSome text.\n```\n# no heading\n```\n\nData\n\nimport pumps\n\npumps.plot()\n\n![plot]()\nDone."
    )
    assert [path for _, path in document.sections] == ["Pumps", "Pumps > Data"]
    assert (document.title, document.pages_skipped) == ("Pumps", 0)


def test_an_old_notebook_and_one_that_is_none() -> None:
    cells = [{"cell_type": "heading", "level": 2, "source": ["Pumps"]}, {"cell_type": "code", "input": ["x = 1"]}]
    old = read_bytes(json.dumps({"worksheets": [{"cells": cells}]}).encode(), "a.ipynb")
    assert (old.text, old.sections) == ("Pumps\n\nx = 1", ((0, "Pumps"),))
    for text in ("[1, 2]", '{"cells": 7}', "no json", '{"cells": [null, 3]}'):
        assert read_bytes(text.encode(), "a.ipynb").text == text


SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Turn the pump on.</i>

2
00:00:02,600 --> 00:00:04,000 X1:0
{\\an8}And wait
for a minute.

3
00:00:04,000 --> 00:00:05,000
for a minute.
Done &amp; dusted.
"""
VTT = """WEBVTT - title

STYLE
::cue { color: MARK }

NOTE MARK

intro
00:01.000 --> 00:02.500 align:start
<v.loud Anna>Turn the <00:01.500><c>pump</c> on.</v>

00:02.600 --> 00:04.000
And wait.
"""


def test_subtitles_are_what_is_said() -> None:
    assert read_bytes(SRT.replace("\n", "\r\n").encode("utf-8-sig"), "a.srt").text == (
        "Turn the pump on.\nAnd wait for a minute.\nDone & dusted."
    )
    assert read_bytes(VTT.encode(), "a.vtt").text == "Anna: Turn the pump on.\nAnd wait."
    assert read_bytes(b"no captions", "a.srt").text == "no captions"


@pytest.mark.parametrize("name", ["a.srt", "a.vtt"])
def test_the_number_behind_an_empty_caption_is_not_said(name: str) -> None:
    time = "00:00:0{0},000 --> 00:00:0{0},500\n"
    captions = ["Hello.\n\n", "\n", "\n\n", "42\n\n", ""]
    text = "".join(f"{number}\n{time.format(number)}{words}" for number, words in enumerate(captions, start=1))
    assert read_bytes(text.encode(), name).text == "Hello.\n42"


def drawing(inside: str) -> str:
    page = 'xmlns:h="http://www.w3.org/1999/xhtml"'
    return of_xml(f'<svg xmlns="http://www.w3.org/2000/svg" {page}>{inside}</svg>', "a.svg")


def test_labels_that_a_diagram_has_as_pages_are_read_once() -> None:
    """As Mermaid and draw.io write them, the latter with shortened text for viewers without pages."""
    label = "<foreignObject><h:div><h:p>Check the<h:br/>pu<h:b>mp</h:b></h:p></h:div></foreignObject>"
    assert drawing(f"<g>{label}</g><text>yes</text>") == "Check the pump\nyes"
    assert drawing(f"<switch>{label}<text>Check th...</text></switch><text>yes</text>") == "Check the pump\nyes"
    unable = '<switch><g requiredFeatures="#Extensibility"/><a><text>Text is not SVG</text></a></switch>'
    assert drawing(f"<text>yes</text>{unable}<text>no</text>") == "yes\nno"
    assert drawing("<switch><foreignObject/><text>yes</text></switch>") == "yes"


@pytest.mark.parametrize("how", ['display="none"', 'style="fill:red; display: none"', 'visibility="hidden"'])
@pytest.mark.parametrize("element", ["g", "text", "a"])
def test_words_of_a_drawing_that_are_not_drawn_are_left_out(element: str, how: str) -> None:
    assert drawing(f"<{element} {how}><text>SECRET</text>SECRET</{element}><text>shown</text>") == "shown"


def sheet(name: str, *rows: str, behind: str = "") -> str:
    table = "".join(row if row.startswith("<Row") else f"<Row>{row}</Row>" for row in rows)
    return f'<Worksheet ss:Name="{name}"><Table>{table}</Table>{behind}</Worksheet>'


def cells(*values: str, kind: str = "String") -> str:
    return "".join(f'<Cell><Data ss:Type="{kind}">{value}</Data></Cell>' for value in values)


@pytest.mark.parametrize("name", ["a.xls", "a.xml"])
def test_a_workbook_in_xml_is_read_as_any_workbook(name: str) -> None:
    kind = "urn:schemas-microsoft-com:office:spreadsheet"
    hidden = "<WorksheetOptions><Visible>SheetHidden</Visible></WorksheetOptions>"
    date = cells("2024-03-05T00:00:00.000", "2024-03-05T13:30:00.000", kind="DateTime")
    rich = '<Cell ss:Index="4"><Data ss:Type="String"><B>M</B>8</Data><Comment><Data>SECRET</Data></Comment></Cell>'
    sheets = (
        sheet("Torques", cells("Part", "Torque", "Seen", "Size"), cells("Bolt") + cells("12.5", kind="Number") + rich),
        sheet("Secret", cells("SECRET", "SECRET"), behind=hidden),
        sheet("Dates", date, f'<Row ss:Index="9">{cells("1", kind="Boolean")}{cells("#N/A", kind="Error")}</Row>'),
    )
    text = f'<?xml version="1.0"?><Workbook xmlns="{kind}" xmlns:ss="{kind}">{"".join(sheets)}</Workbook>'
    document = read_bytes(text.encode(), name)
    assert document.text == (
        "Torques\nPart: Bolt; Torque: 12.5; Size: M8\n\nDates\n2024-03-05 | 2024-03-05 13:30:00\nTRUE"
    )
    assert [path for _, path in document.sections] == ["Torques", "Dates"]


@pytest.mark.parametrize("name", ["a.json", "a.xml", "a.svg", "a.ipynb", "a.srt"])
@pytest.mark.parametrize(
    "hostile", ["[", '{"a":', "<a>", "<a b='c'>", "<text>", "&", "0:0", "00:00:00,0 --> 00:00:00,0\n", "<v a", "{\\"]
)
def test_time_is_linear_in_hostile_files(name: str, hostile: str) -> None:
    started = time.process_time()
    for end in ("", "x"):
        try:
            read_bytes((hostile * (300_000 // len(hostile)) + end).encode(), name)
        except UnreadableSource as error:
            assert error.reason in ("damaged", "empty", "not_text")
    assert time.process_time() - started < 30
