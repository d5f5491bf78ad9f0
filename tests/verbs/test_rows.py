"""`embedcli rows` writes what the index holds, chosen by columns, condition and generation."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.published import changes, spoil
from tests.workshop import Workshop, words

HERE = Path(__file__).resolve().parent.parent.parent


def written(command: Callable[..., Any], shop: Workshop, *flags: str) -> bytes:
    ran = command("rows", shop.index, *flags)
    assert (ran.exit_code, ran.stderr) == (0, ""), ran.stderr
    output: bytes = ran.stdout_bytes
    return output


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["path"], row["chunk_index"]))


def test_json_lines_hold_every_row_and_column(kept: Workshop, command: Callable[..., Any]) -> None:
    found = ordered([json.loads(line) for line in written(command, kept).splitlines()])
    rows = kept.rows()
    assert len(found) == len(rows) > 6 and list(found[0]) == list(rows[0])
    for mine, row in zip(found, rows, strict=True):
        assert np.array_equal(np.array(mine.pop("vector"), np.float32), np.array(row.pop("vector"), np.float32))
        assert mine.pop("modified_at").endswith("Z") and row.pop("modified_at")
        assert mine == row


def test_arrow_and_csv_hold_the_same_rows(kept: Workshop, command: Callable[..., Any]) -> None:
    table = pa.ipc.open_stream(written(command, kept, "--format", "arrow")).read_all()
    assert table.sort_by([("path", "ascending"), ("chunk_index", "ascending")]).equals(kept.table())
    text = written(command, kept, "--format", "csv", "--columns", "path,chunk_index,text,vector").decode()
    rows = ordered([{**row, "chunk_index": int(row["chunk_index"])} for row in csv.DictReader(io.StringIO(text))])
    assert [(row["path"], row["text"]) for row in rows] == [(row["path"], row["text"]) for row in kept.rows()]
    assert json.loads(rows[0]["vector"]) == pytest.approx(kept.rows()[0]["vector"])


def test_columns_come_in_the_order_in_which_they_are_named(kept: Workshop, command: Callable[..., Any]) -> None:
    line = written(command, kept, "--columns", "text, path,text").splitlines()[0]
    assert list(json.loads(line)) == ["text", "path"]


def test_a_condition_chooses_rows_by_columns_that_are_not_written(kept: Workshop, command: Callable[..., Any]) -> None:
    flags = ("--columns", "chunk_id", "--where", "path like 'part-1/%' and chunk_index % 2 = 1")
    found = {json.loads(line)["chunk_id"] for line in written(command, kept, *flags).splitlines()}
    rows = kept.rows()
    wanted = {row["chunk_id"] for row in rows if row["path"].startswith("part-1/") and row["chunk_index"] % 2}
    assert found == wanted and 0 < len(wanted) < len(rows)
    assert written(command, kept, "--where", "path = 'nosuch'") == b""


def test_since_a_generation_gives_what_its_change_lists_name(shop: Workshop, command: Callable[..., Any]) -> None:
    shop.write("a.txt", words(150, 1))
    shop.write("b.txt", words(150, 2))
    shop.ingest()
    shop.write("b.txt", words(150, 2) + words(40, 9))
    shop.write("c.txt", words(50, 3))
    shop.ingest()
    since = {
        number: {json.loads(line)["chunk_id"] for line in written(command, shop, "--since", str(number)).splitlines()}
        for number in (0, 1, 2)
    }
    listed = changes(shop, 2)
    assert since[0] == shop.ids() and since[2] == set()
    assert since[1] == listed["added"] | listed.get("changed", set()) != set()
    both = written(command, shop, "--since", "1", "--where", "path = 'c.txt'", "--columns", "path").splitlines()
    assert both and {json.loads(line)["path"] for line in both} == {"c.txt"}


def test_meta_is_an_object_in_json_lines(kept: Workshop, command: Callable[..., Any]) -> None:
    """As the column is made by records; here it is put into the shard's column by hand."""
    from embedcli.columns import row_schema
    from embedcli.pipes.output import open_writer
    from embedcli.verbs.rows import _schema

    schema = _schema(16, ["meta"])
    out = io.BytesIO()
    open_writer("jsonl", out, schema).write(pa.table([['{"author":"Lee","n":[1]}', None]], schema=schema))
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"meta": {"author": "Lee", "n": [1]}},
        {"meta": None},
    ]
    assert row_schema(16).field("meta").metadata is None


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--columns", "pth"], "there is no column `pth`"),
        (["--columns", ""], "there is no column ``"),
        (["--where", "path likee 'a'"], "syntax error at or near"),
        (["--since", "7"], "`--since 7` is not a generation up to now, which is 1"),
        (["--since", "-1"], "`--since -1` is not a generation"),
        (["--format", "parquet"], "`--format parquet` is not one of jsonl, csv, arrow"),
    ],
)
def test_a_mistake_is_exit_2_before_anything_is_written(
    kept: Workshop, command: Callable[..., Any], flags: list[str], problem: str
) -> None:
    ran = command("rows", kept.index, *flags)
    assert ran.stdout_bytes == b"" and ran.exception.exit_code == 2 and problem in str(ran.exception)
    assert ran.exception.hint


def test_no_index_is_exit_10(tmp_path: Path, command: Callable[..., Any]) -> None:
    assert command("rows", tmp_path / "nosuch").exception.exit_code == 10
    assert not (tmp_path / "nosuch").exists()


def test_a_damaged_shard_is_exit_14_and_named(kept: Workshop, command: Callable[..., Any]) -> None:
    path = next((kept.index / "current/vectors").glob("*.parquet"))
    spoil(path, at=path.stat().st_size // 2)
    ran = command("rows", kept.index)
    assert ran.exception.exit_code == 14 and path.stem in str(ran.exception)


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_jq_reads_the_rows_and_head_may_leave(kept: Workshop) -> None:
    program = f"PYTHONPATH={HERE} {sys.executable} -m embedcli rows {kept.index}"
    command = f"{program} --columns path,text | jq -r .path | sort -u; {program} | head -c 9 >/dev/null"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == sorted({row["path"] for row in kept.rows()})
