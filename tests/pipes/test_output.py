"""Each format holds the rows that were written, and what was not finished does not look whole."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcli.pipes.output import FORMATS, JSON_TEXT, open_writer, vector_column

DIM = 5
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), metadata=JSON_TEXT),
        pa.field("text", pa.string()),
        pa.field("page_start", pa.int32()),
        pa.field("modified_at", pa.timestamp("us", tz="UTC")),
        pa.field("embedding", pa.list_(pa.float32(), DIM)),
    ]
)


def vectors(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).standard_normal((count, DIM), np.float32) * np.float32(1e-3))


def table(count: int) -> pa.Table:
    """Of which row 1 is all null, where there is one."""
    rows: list[Any] = vectors(count)
    texts: list[str | None] = [f'zeile "{number}",\n李' for number in range(count)]
    ids: list[str | None] = [json.dumps({"n": number}) for number in range(count)]
    pages: list[int | None] = list(range(count))
    times: list[datetime | None] = [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)] * count
    for column in (rows, texts, ids, pages, times):
        column[1:2] = [None] * (count > 1)
    return pa.table([pa.array(ids), pa.array(texts), pa.array(pages, pa.int32()), pa.array(times, SCHEMA.types[3]),
                     vector_column(rows, DIM)], schema=SCHEMA)  # fmt: skip


def written(name: str, *tables: pa.Table) -> bytes:
    out = io.BytesIO()
    writer = open_writer(name, out, tables[0].schema if tables else SCHEMA)
    for part in tables:
        writer.write(part)
    writer.finish()
    return out.getvalue()


def test_json_lines_give_each_float_back_to_the_bit() -> None:
    lines = written("jsonl", table(3), table(1500)).splitlines()
    assert len(lines) == 1503
    first, null, *_ = (json.loads(line) for line in lines)
    assert first["id"] == {"n": 0} and first["text"] == 'zeile "0",\n李' and first["page_start"] == 0
    assert first["modified_at"] == "2026-01-02T03:04:05Z"
    assert null == dict.fromkeys(SCHEMA.names)
    found = [json.loads(line)["embedding"] for line in lines[3:]]
    for row, vector in zip(found, vectors(1500), strict=True):
        assert row is None or np.array_equal(np.array(row, np.float32), vector)
    assert found.count(None) == 1


def test_csv_has_a_heading_and_vectors_that_pgvector_reads() -> None:
    rows = list(csv.reader(io.StringIO(written("csv", table(3), table(1)).decode())))
    assert rows[0] == SCHEMA.names and len(rows) == 5
    assert rows[1][1] == 'zeile "0",\n李' and rows[2] == [""] * 5
    assert np.array_equal(np.array(json.loads(rows[1][4]), np.float32), vectors(1)[0])


@pytest.mark.parametrize("name", SCHEMA.names)
def test_a_column_alone_in_csv_has_a_line_for_each_row_that_readers_do_not_skip(name: str) -> None:
    """pandas, Arrow and DictReader skip an empty line, and each row behind it would be that of another text."""
    whole = csv.DictReader(io.StringIO(written("csv", table(3), table(1)).decode()))
    alone = written("csv", table(3).select([name]), table(1).select([name]))
    assert list(csv.DictReader(io.StringIO(alone.decode()))) == [{name: row[name]} for row in whole]


def test_arrow_and_parquet_hold_the_table(tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = pa.concat_tables([table(3), table(20_000)])
    stream = pa.ipc.open_stream(written("arrow", table(3), table(20_000))).read_all()
    file = pq.ParquetFile(io.BytesIO(written("parquet", table(3), table(20_000))))
    assert stream.equals(whole) and file.read().equals(whole)
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [8192, 8192, 3619]


def test_npy_has_every_row_and_nan_where_there_is_none() -> None:
    array = np.load(io.BytesIO(written("npy", table(3), table(1200))))
    assert array.shape == (1203, DIM) and array.dtype == np.float32
    assert np.isnan(array[1]).all() and np.isnan(array[4]).all() and np.isfinite(np.delete(array, [1, 4], 0)).all()
    assert np.array_equal(array[0], vectors(1)[0])


@pytest.mark.parametrize("name", FORMATS)
def test_no_rows_are_a_whole_output_too(name: str) -> None:
    data = written(name)
    if name == "jsonl":
        assert data == b""
    elif name == "csv":
        assert data.decode().count("\n") == 1
    elif name == "npy":
        assert np.load(io.BytesIO(data)).shape == (0, DIM)
    else:
        read = pa.ipc.open_stream(data).read_all() if name == "arrow" else pq.read_table(io.BytesIO(data))
        assert read.num_rows == 0 and read.schema.names == SCHEMA.names


def test_parquet_that_was_not_finished_does_not_open() -> None:
    """pyarrow ends the file when its writer is forgotten."""
    out = io.BytesIO()
    writer = open_writer("parquet", out, SCHEMA)
    writer.write(table(20_000))
    del writer
    assert len(out.getvalue()) > 100_000
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(out.getvalue()))


@pytest.mark.parametrize("name", ["jsonl", "csv", "arrow"])
def test_rows_leave_as_they_are_written(name: str) -> None:
    out = io.BytesIO()
    writer = open_writer(name, out, SCHEMA)
    before = len(out.getvalue())
    writer.write(table(1))
    assert len(out.getvalue()) > before + 20
    writer.finish()
