"""`--where`: a condition of SQL picks rows, and can do nothing else."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedcli.columns import row_schema
from embedcli.errors import UsageError
from embedcli.index.where import Where

DIM = 4
PATHS = ["contracts/a.txt", "contracts/b.txt", "notes/c.txt", "notes/d.txt"]
METAS = [
    '{"author":"Lee","price":12,"due date":"2026-05-01","deep":{"a/b":"x"}}',
    '{"author":"O\'Hara","price":7.5}',
    '{"author":"李","price":"unknown"}',
    None,
]


def rows() -> pa.Table:
    given = {
        "path": PATHS,
        "meta": METAS,
        "chunk_index": [0, 1, 2, None],
        "modified_at": [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)],
        "vector": [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]],
    }
    schema = row_schema(DIM)
    return pa.table({name: given.get(name, [None] * 4) for name in schema.names}, schema=schema)


def met(sql: str) -> list[int]:
    """The numbers of the rows that meet the condition, which gets only the columns that it says it needs."""
    where = Where(sql, dim=DIM)
    found: list[int] = np.flatnonzero(where.mask(rows().select(where.columns))).tolist()
    return found


@pytest.mark.parametrize(
    ("sql", "numbers"),
    [
        ("path like 'contracts/%'", [0, 1]),
        ("path like 'contracts/%' and modified_at > '2026-01-01'", [1]),
        ("modified_at >= '2026-01-03 00:00:00'", [2, 3]),
        ("meta.author = 'Lee'", [0]),
        ("META.author = 'O''Hara'", [1]),
        ("meta.author = '李' -- a comment", [2]),
        ("meta.\"due date\" < '2026-06'", [0]),
        ("meta.deep.\"a/b\" = 'x'", [0]),
        ("try_cast(meta.price as double) > 7", [0, 1]),
        ("meta->>'author' in ('Lee', 'Kim')", [0]),
        ("meta is null", [3]),
        ("chunk_index > 0", [1, 2]),
        ("not chunk_index > 0", [0]),
        ("vector[1] = 1", [0]),
        ("len(list_filter(string_split(path, '/'), lambda part: part = 'notes')) = 1", [2, 3]),
        ("true", [0, 1, 2, 3]),
    ],
)
def test_a_condition_picks_its_rows(sql: str, numbers: list[int]) -> None:
    assert met(sql) == numbers


def test_a_time_without_a_zone_is_utc_wherever_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert met("modified_at >= '2026-01-02'") == [1, 2, 3]


def test_only_the_columns_that_a_condition_names_are_read() -> None:
    assert Where("path = 'a' or Meta.author is null", dim=DIM).columns == ("path", "meta")
    assert Where("1 = 1", dim=DIM).columns == ("chunk_index",)


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("path likee 'a'", 'syntax error at or near "likee"'),
        ("", "it is empty: is a shell variable not set?"),
        ("path = 'a", "unterminated string literal"),
        ("pth = 'a'", 'Referenced column "pth" not found in FROM clause! Candidate bindings: "path"'),
        ("path", "it gives VARCHAR, not true or false"),
        ("chunk_index", "it gives INTEGER, not true or false"),
        ("nope(path)", "nope does not exist"),
        ("meta.price > 7", "an explicit cast is required"),
        ("max(chunk_index) = 1", "cannot contain aggregates"),
        ("row_number() over () = 1", "cannot contain window functions"),
        ("path = ?", "parameter"),
        ("path = 'a'; drop table rows", "syntax error"),
        ("true) union all select (true", "it is more than a condition"),
        ("true) order by (path", "it is more than a condition"),
        ("true) limit (1", "it is more than a condition"),
        ("false) or (true", "syntax error"),
        ("exists (select 1 from read_text('/etc/hostname'))", "it has a `select` inside it"),
        ("path in (from glob('/*'))", "it has a `select` inside it"),
        ("columns(*) is not null", "it has a `*` inside it"),
    ],
)
def test_what_is_no_condition_about_a_row_is_an_error_of_one_line(sql: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        Where(sql, dim=DIM)
    assert problem.lower() in str(caught.value).lower()
    assert f"`{sql}`" in str(caught.value) and "\n" not in str(caught.value)
    assert "meta.author" in caught.value.hint


def test_a_value_that_does_not_suit_is_an_error_of_one_line() -> None:
    where = Where("meta.price::double > 7", dim=DIM)
    with pytest.raises(UsageError, match="Could not convert string 'unknown' to DOUBLE: `meta.price::double > 7`"):
        where.mask(rows())


@pytest.mark.parametrize(
    "statement",
    [
        "select * from '{file}'",
        "select * from read_csv('{file}')",
        "select * from read_text('{file}')",
        "copy (select 1) to '{file}.new'",
        "attach '{file}.new' as other",
        "export database '{file}.new'",
        "install httpfs",
        "load '{file}'",
        "set enable_external_access = true",
        "set temp_directory = '/tmp'",
        "select * from secrets_of_this_program",
    ],
)
def test_the_connection_itself_can_neither_read_nor_write(statement: str, tmp_path: Path) -> None:
    """Below the check of the condition: whatever got through it would find nothing to reach."""
    import duckdb

    secrets_of_this_program = pa.table({"a": [1]})  # noqa: F841 - what DuckDB's client would find by its name
    file = tmp_path / "a.csv"
    file.write_text("a\n1\n")
    connection = Where("true", dim=DIM)._connection
    with pytest.raises(duckdb.Error):
        connection.execute(statement.format(file=file)).fetchall()
    assert os.listdir(tmp_path) == ["a.csv"] and file.read_text() == "a\n1\n"


@pytest.mark.parametrize(
    "sql",
    [
        "path like 'a!%' escape '!' and modified_at > now() - interval 7 days",
        "lower(title) ilike '%x%' or path similar to 'a.*' or path glob '*.md' or text[1:3] = 'abc'",
        "year(modified_at) = 2026 and date_trunc('day', modified_at) = '2026-01-01' and -chunk_index % 2 < 0",
        "try_cast(meta.n as int) between 2 and 4 and coalesce(section, '') <> '' and meta.a.b in ('x', 'y')",
        "starts_with(path, 'a/') and not contains(text, 'z') and case when page_start is null then true else false end",
    ],
)
def test_a_client_of_a_server_may_say_what_people_say(sql: str) -> None:
    Where(sql, dim=DIM, limited=True)


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("length(repeat(text, 200000)) > 0", "repeat"),
        ("len(lpad(text, 1000000, 'x')) > 1", "lpad"),
        ("list_sum(range(1000000)) > 0", "list_sum"),
        ("replace(text, 'a', 'bbbb') = 'x'", "replace"),
        ("len(printf('%100000000d', 1)) > 0", "printf"),
        ("text || text || text = ''", "||"),
        ("length(text::blob::bit::varchar::blob::bit::varchar) > 0", "bit"),
        ("len(cast(text as varchar[])) > 0", "list"),
        ("len(json_extract(meta, '$..*')) > 0", "json_extract"),
        ("list_contains([text, repeat(text, 9)], 'x')", "list_value"),
    ],
)
def test_a_client_of_a_server_may_not_take_all_memory(sql: str, name: str) -> None:
    with pytest.raises(UsageError, match=rf"it has `{re.escape(name)}`, which a server does not run"):
        Where(sql, dim=DIM, limited=True)
    Where(sql, dim=DIM)
