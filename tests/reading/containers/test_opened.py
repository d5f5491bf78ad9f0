"""The formats of records, each as another program writes it: DuckDB, pandas, pyarrow, gzip and zstd.

Not here: what a run makes of them (run/test_containers.py).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import subprocess
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pandas
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from embedcli.errors import UnreadableSource
from embedcli.reading.containers import columns, lines, mailbox, opened
from embedcli.reading.containers.opened import records_in
from embedcli.records import Record, RecordRule
from embedcli.sources.containers import Asked, suffix_of

ROWS = [
    {"id": 1, "title": "Light", "text": "It blinks, red\nand green.", "team": "hub", "n": 1},
    {"id": 2, "title": "Tür", "text": 'It "squeaks".', "team": "", "n": 2},
]

NEEDS_ZSTD = pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")


def read(path: Path, *, named: bool = False, **rule: Any) -> list[Record] | None:
    with path.open("rb") as file:
        found = records_in(file, path.name, Asked(RecordRule(**rule), named), spool_folder=path.parent)
        return None if found is None else list(found)


def good(path: Path, **flags: Any) -> list[tuple[str, str, str | None, Any]]:
    records = read(path, **flags)
    assert records is not None and not any(record.problem for record in records)
    return [(one.id, one.text, one.title, json.loads(one.meta or "{}")) for one in records]


def expected(kind: type = int) -> list[tuple[str, str, str | None, Any]]:
    return [
        (str(row["id"]), str(row["text"]), str(row["title"]), {"team": row["team"], "n": kind(row["n"])})
        for row in ROWS
    ]  # fmt: skip


@pytest.fixture
def frame() -> pandas.DataFrame:
    return pandas.DataFrame(ROWS)


def test_json_lines_of_pandas(tmp_path: Path, frame: pandas.DataFrame) -> None:
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    assert good(tmp_path / "a.jsonl") == expected()
    frame.to_json(tmp_path / "a.ndjson.gz", orient="records", lines=True)
    assert good(tmp_path / "a.ndjson.gz") == expected()


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
def test_tables_of_pandas_and_of_excel(tmp_path: Path, frame: pandas.DataFrame, name: str, separator: str) -> None:
    frame.to_csv(tmp_path / name, index=False, sep=separator, encoding="utf-8-sig", lineterminator="\r\n")
    found = good(tmp_path / name, named=True)
    assert [(one, text.replace("\r", ""), title, meta) for one, text, title, meta in found] == expected(str)
    assert read(tmp_path / name) is None


class _Watched(io.FileIO):
    """A file that knows which threads have used it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.threads: set[int] = set()

    def seek(self, *position: int) -> int:
        self.threads.add(threading.get_ident())
        return super().seek(*position)

    def tell(self) -> int:
        self.threads.add(threading.get_ident())
        return super().tell()

    def read(self, *size: int) -> bytes:
        self.threads.add(threading.get_ident())
        return super().read(*size)


@pytest.mark.parametrize("kind", ["parquet", "arrow file", "arrow stream"])
def test_no_thread_of_arrow_uses_a_file_of_python(tmp_path: Path, kind: str) -> None:
    """One that still does when the process ends aborts it."""
    path, table = tmp_path / "a", pa.Table.from_pylist(ROWS)
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        new = pa.ipc.new_file if kind == "arrow file" else pa.ipc.new_stream
        with new(path, table.schema) as writer:
            writer.write_table(table)
    with _Watched(path) as file:
        found = records_in(file, path.name, Asked(RecordRule(), False), spool_folder=tmp_path)
        assert found is not None and [one.id for one in found] == ["1", "2"]
        assert file.threads == {threading.get_ident()}


def test_parquet_and_csv_of_duckdb(tmp_path: Path, frame: pandas.DataFrame) -> None:
    duckdb.sql(f"copy (select * from frame) to '{tmp_path}/a.parquet' (format parquet, compression zstd)")
    duckdb.sql(f"copy (select * from frame) to '{tmp_path}/a.csv' (header)")
    assert good(tmp_path / "a.parquet") == expected()
    assert good(tmp_path / "a.csv", named=True) == expected(str)


def test_arrow_files_and_streams(tmp_path: Path, frame: pandas.DataFrame) -> None:
    table = pa.Table.from_pandas(frame)
    feather.write_feather(table, str(tmp_path / "a.feather"))
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert good(tmp_path / "a.feather") == good(tmp_path / "a.arrow") == expected()


@NEEDS_ZSTD
def test_what_is_packed_is_read_whatever_it_is(tmp_path: Path, frame: pandas.DataFrame) -> None:
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "a.csv", index=False)
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        subprocess.run(["zstd", "-q", str(tmp_path / name)], check=True)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        want = expected(str if name == "a.csv" else int)
        for packed in (f"{name}.zst", f"{name}.gz"):
            assert good(tmp_path / packed, named=True) == want, packed
    assert suffix_of("tickets.JSONL.zst") == ".jsonl"


@NEEDS_ZSTD
def test_several_frames_and_members_are_one_stream(tmp_path: Path) -> None:
    parts = [b"".join(orjson.dumps(row) + b"\n" for row in ROWS[n : n + 1]) for n in range(2)]
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    frames = (subprocess.run(["zstd", "-qc"], input=part, capture_output=True, check=True).stdout for part in parts)
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert good(tmp_path / "a.jsonl.gz") == good(tmp_path / "a.jsonl.zst") == expected()


@pytest.mark.parametrize("tool", ["gzip", pytest.param("zstd", marks=NEEDS_ZSTD)])
def test_what_is_cut_off_is_damaged_after_the_records_before(tmp_path: Path, tool: str) -> None:
    data = b"".join(orjson.dumps({"id": n, "text": f"{n * 7919 % 1009} " * 9}) + b"\n" for n in range(20_000))
    packed = subprocess.run([tool, "-qc"], input=data, capture_output=True, check=True).stdout
    path = tmp_path / f"a.jsonl.{'gz' if tool == 'gzip' else 'zst'}"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    with path.open("rb") as file, pytest.raises(UnreadableSource) as caught:
        found = records_in(file, path.name, Asked(RecordRule(), False), spool_folder=tmp_path)
        assert found is not None
        count = 0
        for _ in found:
            count += 1
    assert caught.value.reason == "damaged" and count > 1_000


def test_values_of_every_kind_are_meta(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["One"], "id": pa.array([7], pa.int64()), "when": [datetime(2026, 5, 1, 10, tzinfo=UTC)],
            "price": [Decimal("12.50")], "raw": [b"\xff"], "tags": [["a", "b"]], "gone": pa.array([None], pa.string()),
            "deep": [{"a": 1}], "share": [float("nan")],
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    ((_, _, _, meta),) = good(tmp_path / "a.parquet")
    assert meta == {
        "when": "2026-05-01T10:00:00+00:00", "price": "12.50", "raw": "\ufffd", "tags": ["a", "b"], "gone": None,
        "deep": {"a": 1}, "share": None,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_values_that_python_cannot_hold_cost_their_row_at_most(tmp_path: Path, kind: str) -> None:
    far = pa.array([0, 2**60, 0, 0], pa.int64()).cast(pa.timestamp("us"))
    table = pa.table(
        {
            "id": [1, 2, 3, 4], "text": pa.array([b"One", b"Two", b"\xff", b"Four"]).view(pa.string()),
            "day": pa.array([1, 2**31 - 1, 1, 1], pa.int32()).cast(pa.date32()), "far": far,
            "fine": pa.array([1, 2, 3, 1_000], pa.int64()).cast(pa.timestamp("ns")),
            "deep": pa.array([[0], [0], [0], [2**60]], pa.list_(pa.int64())).cast(pa.list_(pa.timestamp("us"))),
        }
    )  # fmt: skip
    if kind == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        feather.write_feather(table, str(tmp_path / "a.arrow"), compression="uncompressed")
    records = read(tmp_path / f"a.{kind}")
    assert records is not None
    found = [(record.id, record.problem) for record in records]
    assert found == [("1", None), ("2", None), ("line 3", "not_utf8"), ("line 4", "damaged")]
    first, second = (json.loads(record.meta or "") for record in records[:2])
    assert (first["day"], first["fine"]) == ("1970-01-02", "1970-01-01 00:00:00.000000001")
    assert str(2**31 - 1) in second["day"] and str(2**60) in second["far"]


def test_ids_of_many_digits_stay_apart(tmp_path: Path) -> None:
    ids = ["18446744073709551615", "18446744073709551616", "18446744073709551617", "-9223372036854775809", "1.5"]
    rows = "".join(f'{{"id": {one}, "text": "Text"}}\n' for one in ids)
    assert rows_of(tmp_path / "a.jsonl", rows) == [(one, None) for one in ids]
    deep = '{{"id": {}, "text": "Text", "more": {}}}'.format(ids[1], "[" * 1_000 + "]" * 1_000)
    assert rows_of(tmp_path / "a.jsonl", deep) == [("line 1", "damaged")]


def test_numbers_of_many_digits_keep_them_in_meta(tmp_path: Path) -> None:
    numbers = ["9007199254740993", "18446744073709551617", "-9223372036854775809", "1" * 300]
    rows = "".join(f'{{"id": {n}, "text": "Text", "n": {one}, "f": 0.1}}\n' for n, one in enumerate(numbers))
    (tmp_path / "a.jsonl").write_text(rows)
    records = read(tmp_path / "a.jsonl")
    assert records is not None
    assert [record.meta for record in records] == [f'{{"n":{one},"f":0.1}}' for one in numbers]
    assert rows_of(tmp_path / "a.jsonl", f'{{"text": "Text", "n": {"1" * 5_000}}}') == [("line 1", "not_json")]


def test_columns_without_a_text_are_no_records_unless_somebody_says_so(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") is None
    with pytest.raises(UnreadableSource) as caught:
        read(tmp_path / "a.parquet", named=True)
    assert (caught.value.reason, "no column `text` among a" in str(caught.value)) == ("no_text", True)
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UnreadableSource, match="no column"):
        read(tmp_path / "a.csv", named=True)


@pytest.mark.parametrize("data", [b"PAR1 and nothing", b"ARROW1 and nothing", b"\xff\xff\xff\xff\x01", b"\x1f\x8b\x08"])
def test_broken_columns_are_damaged(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(UnreadableSource) as caught:
        read(tmp_path / "a.parquet")
    assert caught.value.reason == "damaged"


def test_bad_rows_of_a_table_cost_themselves_and_have_the_number_of_their_line(tmp_path: Path) -> None:
    text = 'id,text\n1,One\n2,"Two\nlines"\n3,Three,extra\n4,gr\udcfcn\n5,\n6,Six\n'
    (tmp_path / "a.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    records = read(tmp_path / "a.csv", named=True)
    assert records is not None
    found = [(record.id, record.problem) for record in records]
    assert found == [
        ("1", None), ("2", None), ("line 5", "damaged"), ("line 6", "not_utf8"), ("line 7", "no_text"), ("6", None),
    ]  # fmt: skip


def rows_of(path: Path, data: str | bytes) -> list[tuple[str, str | None]]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    records = read(path, named=True)
    assert records is not None
    return [(record.id, record.problem) for record in records]


def test_a_quote_without_an_end_costs_its_row_and_the_rows_behind_it_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'id,text\n1,One\n2,"Two\n3,Three\n4,"Four\nlines"\n5,"Five\n6,Six\n'
    torn = [("1", None), ("line 3", "damaged"), ("3", None), ("4", None), ("line 7", "damaged"), ("6", None)]
    assert rows_of(tmp_path / "a.csv", text) == torn
    assert rows_of(tmp_path / "a.csv.gz", gzip.compress(text.encode())) == torn
    monkeypatch.setattr(lines, "MOST_LINE_BYTES", 40)
    long = 'id,text\n1,"One\n' + "".join(f"{n},Row\n" for n in range(2, 50))
    assert rows_of(tmp_path / "a.csv", long) == [("line 2", "damaged"), *((str(n), None) for n in range(2, 50))]


def test_the_heading_of_a_table_may_have_a_name_of_two_lines(tmp_path: Path) -> None:
    for separator in (",", ";"):
        text = '"id","long\nname","text"\n1,x,One\n2,"y",\n'.replace(",", separator)
        assert rows_of(tmp_path / "a.csv", text) == [("1", None), ("line 4", "no_text")]
    assert rows_of(tmp_path / "a.csv", 'id,text,"odd\n1,One,x\n') == [("1", None)]


def test_fields_that_are_no_json_cost_their_row(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "a.csv", b"id,text,gr\xfcn\n1,One,x\n2,Two,y\n") == [
        ("line 2", "not_utf8"), ("line 3", "not_utf8"),
    ]  # fmt: skip
    for depth in (300, 1_000):
        deep = b"[" * depth + b"]" * depth
        for field in (b"more", b"title", b"text"):
            rows = b'{"id": 1, "text": "One", "%s": %s}\n{"id": 2, "text": "Two"}\n' % (field, deep)
            (first, problem), second = rows_of(tmp_path / "a.jsonl", rows)
            assert second == ("2", None) and (first, problem) in [("1", None), ("line 1", "damaged")]
            assert field != b"more" or problem == "damaged"


def test_a_line_that_is_too_long_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_LINE_BYTES", 100)
    rows = [{"text": "a"}, {"text": "b" * 1_000}, {"text": "c"}]
    (tmp_path / "a.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    records = read(tmp_path / "a.jsonl")
    assert records is not None
    assert [(one.text, one.problem) for one in records] == [("a", None), ("", "too_large"), ("c", None)]


def test_a_bomb_of_columns_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "MOST_UNPACKED", 1)
    monkeypatch.setattr(opened, "BLOCK_BYTES", 1 << 10)
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(b"PAR1" + bytes(200_000)))
    with pytest.raises(UnreadableSource) as caught:
        read(tmp_path / "a.parquet.gz")
    assert caught.value.reason == "too_large"


def test_several_fields_are_one_text_and_may_be_led_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"subject": "Light", "body": "Red.", "nr": 7, "x": 1, "y": 2}\n')
    rule: dict[str, Any] = {"text": ("subject", "body", "none"), "id": "nr", "meta": ("x",)}
    assert good(tmp_path / "a.jsonl", **rule) == [("7", "Light\n\nRed.", None, {"x": 1})]
    assert good(tmp_path / "a.jsonl", **rule, label=True)[0][1] == "subject: Light\n\nbody: Red."


def test_a_mail_as_long_as_memory_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "MOST_MAIL_BYTES", 100)
    data = (
        b"From a x\nSubject: a\n\nText\n\nFrom b x\nSubject: b\n\n"
        + b"long\n" * 99
        + b"\nFrom c x\nSubject: c\n\nEnd\n"
    )
    found = list(mailbox.mails(io.BytesIO(data)))
    assert [record.problem for record in found] == [None, "too_large", None]
    assert found[2].data == b"Subject: c\n\nEnd\n"


def test_rows_of_a_great_file_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    """The last of a million rows need not be there when the first is given away."""

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            line = b'{"text": "again"}\n'
            buffer[: len(line)] = line
            return len(line)

    records = lines.json_lines(io.BufferedReader(Endless()), RecordRule())
    assert [next(records).text for _ in range(1_000)] == ["again"] * 1_000


def test_csv_of_pythons_own_writer_round_trips_what_is_odd(tmp_path: Path) -> None:
    texts = ["a,b", 'say "x"', "two\nlines", " blanks ", "ü\u2028x", "'", ";"]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "text"), *enumerate(texts)])
    assert [text for _, text, _, _ in good(tmp_path / "a.csv", named=True)] == texts


def test_every_broken_row_group_is_damaged_not_a_crash(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["word " * 50] * 5_000}), tmp_path / "a.parquet", compression="zstd")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[40:80] = bytes(40)
    (tmp_path / "a.parquet").write_bytes(data)
    with (tmp_path / "a.parquet").open("rb") as file, pytest.raises(UnreadableSource) as caught:
        list(columns.parquet_rows(file, RecordRule()))
    assert caught.value.reason == "damaged"
