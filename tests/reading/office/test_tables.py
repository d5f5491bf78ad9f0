"""A row of a table is a line that can be understood alone."""

from __future__ import annotations

import time

import pytest

from embedcli.reading.office.tables import led_lines
from tests.office_files import read_bytes


def lines(*rows: str) -> list[str]:
    """Of rows whose cells are cut at `,`."""
    return list(led_lines(row.split(",") if row else () for row in rows))


def csv_text(text: str, name: str = "a.csv") -> str:
    return read_bytes(text.encode(), name).text


def test_rows_are_led_by_the_headings_and_empty_cells_are_left_out() -> None:
    assert lines("Part,Torque,Note", "Bolt,12 Nm,", "Nut,,loose") == [
        "Part: Bolt; Torque: 12 Nm",
        "Part: Nut; Note: loose",
    ]


def test_captions_above_the_header_stand_alone() -> None:
    assert lines("Torques 2024,,", "", "Part,Torque,Unit", "Bolt,12,Nm") == [
        "Torques 2024",
        "Part: Bolt; Torque: 12; Unit: Nm",
    ]
    assert lines("Torques 2024,,", "Part,Torque,Unit", "Bolt,12,Nm")[0] == "Torques 2024"


def test_headings_may_be_years_stand_twice_or_be_missing_where_values_stand_below() -> None:
    assert lines("Part,2023,2024", "Bolt,5,6") == ["Part: Bolt; 2023: 5; 2024: 6"]
    assert lines("Part,2024-01-01,2024-02-01", "Bolt,5,6") == ["Part: Bolt; 2024-01-01: 5; 2024-02-01: 6"]
    assert lines("Part,Sum,Sum", "Bolt,5,6") == ["Part: Bolt; Sum: 5; Sum: 6"]
    assert lines(",Name,Age", "0,Anna,30") == ["0; Name: Anna; Age: 30"]
    assert lines("Anna,1985,1990", "Bob,1987,1992") == ["Anna | 1985 | 1990", "Bob | 1987 | 1992"]
    assert lines("Report,Anna", "Part,Torque,Unit", "Bolt,12,Nm") == [
        "Report | Anna",
        "Part: Bolt; Torque: 12; Unit: Nm",
    ]


@pytest.mark.parametrize(
    "rows",
    [
        ("Bolt,12", "Nut,13"),
        ("a,a", "b,c"),
        ("x,y", "x,z"),
        ("only,one row"),
        ("Customer:,Smith", "City:,Berlin"),
        ("2024-01-02,x", "2024-01-03,y"),
        ("a,b", "c,d,e"),
    ],
)
def test_without_a_header_row_the_cells_are_kept_apart(rows: tuple[str, ...]) -> None:
    rows = (rows,) if isinstance(rows, str) else rows
    assert lines(*rows) == [" | ".join(row.split(",")) for row in rows]


def test_an_empty_row_ends_no_table_unless_another_header_follows() -> None:
    rows = ("Part,Torque", "Bolt,12", "", "Nut,13", "", "Checked by Anna,", "", "Name,Age,City", "Anna,30,Berlin")
    assert lines(*rows) == [
        "Part: Bolt; Torque: 12",
        "Part: Nut; Torque: 13",
        "Checked by Anna",
        "Name: Anna; Age: 30; City: Berlin",
    ]


def test_a_row_wider_than_the_header_loses_nothing() -> None:
    rows = ["a,b", *["1,2"] * 30, "3,4,5"]
    assert lines(*rows)[-1] == "a: 3; b: 4; 5"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_is_a_table_whatever_its_delimiter(delimiter: str) -> None:
    rows = [["id", "text", "price"], ["00123", "a, b; c | d\te", "1,50"], ["7", 'say "hi"\nthere', "2,00"]]
    quoted = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    assert csv_text("\r\n".join(quoted)) == (
        'id: 00123; text: a, b; c | d e; price: 1,50\nid: 7; text: say "hi" there; price: 2,00'
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_blank_before_a_quoted_cell_does_not_take_it_apart(delimiter: str) -> None:
    rows = ["id, text, price", f'1, "a{delimiter}b", 5', '2,  "c ""d"" e" , 6', '3, "f\ng", "7"']
    seen = " " if delimiter == "\t" else delimiter
    assert csv_text("\n".join(rows).replace(",", delimiter)) == (
        f'id: 1; text: a{seen}b; price: 5\nid: 2; text: c "d" e; price: 6\nid: 3; text: f g; price: 7'
    )


@pytest.mark.parametrize("cell", ['"loose', '"M8" hex', '"a "b" c', '"', '"""', '"x""'])
def test_a_quote_without_its_other_half_takes_no_further_cell(cell: str) -> None:
    rows = [["part", "note", "torque"], ["1", cell, "5"], ["2", "tight", "6"], ["3", '5" pipe', "7"], [cell, "b", "8"]]
    lines = [f"part: {a}; note: {b}; torque: {c}" for a, b, c in rows[1:]]
    for delimiter in ",;\t|":
        assert csv_text("\n".join(map(delimiter.join, rows)), "a.tsv") == "\n".join(lines)


def test_a_quote_in_a_tsv_does_not_reach_over_rows_and_cells() -> None:
    """A cell that is quoted for a line break has no tab too: an inch at the end of a later cell is no other half."""
    rows = [["part", "note", "size"], ["1", '"loose', "2"], ["2", "tight", '5"'], ["3", '"two\nlines"', "6"]]
    assert csv_text("\n".join(map("\t".join, rows)), "a.tsv").splitlines() == [
        'part: 1; note: "loose; size: 2',
        'part: 2; note: tight; size: 5"',
        "part: 3; note: two lines; size: 6",
    ]


def test_a_quote_may_have_a_backslash_before_it() -> None:
    """So Spark and MySQL write them; a cell that ends with a backslash is whole all the same."""
    rows = ["id,text,path", '1,"say \\"hi\\", then ""go"" C:\\\\d","C:\\dir\\"', '2,"\\"a\\"\nb, c","\\\\"']
    assert csv_text("\n".join(rows)).splitlines() == [
        'id: 1; text: say "hi", then "go" C:\\\\d; path: C:\\dir\\',
        'id: 2; text: "a" b, c; path: \\\\',
    ]


def test_a_decimal_comma_is_no_delimiter() -> None:
    assert csv_text("Teil;Preis\nSchraube;1,50\nMutter;2,25\n") == (
        "Teil: Schraube; Preis: 1,50\nTeil: Mutter; Preis: 2,25"
    )


def test_the_hint_for_a_spreadsheet_is_no_row() -> None:
    assert csv_text("sep=;\na;b\n1;2\n") == "a: 1; b: 2"


def test_a_csv_in_another_encoding_is_decoded_as_any_text() -> None:
    data = "Straße;Größe\nGärtnerstraße;fünf\nMühlenweg;zwölf\n".encode("cp1252")
    assert read_bytes(data, "a.csv").text.startswith("Straße: Gärtnerstraße; Größe: fünf")


def test_a_csv_of_one_column_and_one_that_is_prose_stay_as_they_are() -> None:
    assert csv_text("one\ntwo\n") == "one\ntwo\n"
    prose = "A text, with commas, as text has.\nAnother line.\nA third one, short.\nAnd no more\n"
    assert csv_text(prose) == prose


def test_a_cell_of_data_is_left_out_and_counted() -> None:
    document = read_bytes(f"id,payload\n1,{bytes(range(256)).hex() * 8}\n2,text\n".encode(), "a.csv")
    assert (document.text, document.reason) == ("id: 1; payload: \nid: 2; payload: text", "data_left_out")


@pytest.mark.parametrize(
    "hostile", ['"', ",", '",', "\n", "0", "a,\n", "1\n\n", ',"x', ',"""a""', '"\n', ',"x\\"y', ',"\\"']
)
def test_time_is_linear_in_hostile_tables(hostile: str) -> None:
    started = time.process_time()
    read_bytes(b"a,b\n" * 60 + hostile.encode() * (1_000_000 // len(hostile)) + b"x", "a.csv")
    assert time.process_time() - started < 30
