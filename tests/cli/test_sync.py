"""`embedcli sync` and `embedcli changes` as they are typed."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from embedcli.errors import TargetError, UsageError
from tests.published import changes, filled
from tests.workshop import Workshop, words

pytest.importorskip("apsw")
Command = Callable[..., Any]


@pytest.fixture
def target(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path}/x.db"


def edited(shop: Workshop) -> Workshop:
    """Two generations: in the second a file changed, one is gone and one is new."""
    filled(shop)
    shop.write("part-0/file-0.txt", words(150, 99))
    (shop.docs / "part-1/file-1.txt").unlink()
    shop.write("part-0/new.txt", words(60, 98))
    shop.ingest()
    return shop


def test_sync_says_what_it_wrote_and_then_that_nothing_is_left(
    shop: Workshop, command: Command, target: str, tmp_path: Path
) -> None:
    filled(shop)
    rows = len(shop.rows())
    place = f"`embedcli_index` of `sqlite:{tmp_path}/x.db`"
    first = command("sync", target, shop.index)
    assert (first.exit_code, first.stdout) == (0, "")
    assert first.stderr == f"generation 1 to {place}: {rows} rows were written, 0 deleted, {rows} rows in all\n"
    second = command("sync", target, "--index", shop.index)
    assert second.stderr == f"generation 1 is in {place} already: {rows} rows\n"
    shop.write("one.txt", "One row.")
    shop.ingest()
    third = command("sync", target, shop.index)
    assert third.stderr == f"generation 2 to {place}: 1 row was written, 0 deleted, {rows + 1} rows in all\n"


def test_sync_with_json_prints_one_object(shop: Workshop, command: Command, target: str) -> None:
    edited(shop)
    ran = command("sync", target, shop.index, "--json", "--into", "other")
    said = json.loads(ran.stdout)
    assert {name: said[name] for name in ("exit_code", "table", "generation", "number", "did", "dry_run")} == {
        "exit_code": 0,
        "table": "other",
        "generation": 2,
        "number": 2,
        "did": "loaded",
        "dry_run": False,
    }
    assert (said["upserts"], said["deletes"], said["rows"]) == (len(shop.rows()), 0, len(shop.rows()))


def test_a_dry_run_says_would(shop: Workshop, command: Command, target: str) -> None:
    filled(shop)
    ran = command("sync", target, shop.index, "--dry-run")
    assert "rows would be written" in ran.stderr and not Path(target.partition(":")[2]).exists()


def test_why_a_new_table_is_loaded_is_told(shop: Workshop, command: Command, target: str) -> None:
    filled(shop)
    command("sync", target, shop.index)
    shop.ingest(rebuild=True, dim=8)
    assert "another model, dimension or columns" in command("sync", target, shop.index).stderr


@pytest.mark.parametrize(
    ("typed", "kind", "problem"),
    [
        (("sync", "redis:x"), UsageError, "`redis:` is not a target"),
        (("sync", "sqlite:/nowhere/x.db"), TargetError, "`/nowhere` is not a folder"),
        (("sync", "sqlite:x.db", "--into", "no name"), UsageError, "not a name for a table"),
        (("changes", "--since", "7"), UsageError, "the changes since 7 are not all kept; kept are those since 1"),
        (("changes", "--format", "xml"), UsageError, "`--format xml` is not one of jsonl, parquet, es-bulk"),
    ],
)
def test_what_cannot_be_done_is_an_error_with_a_hint(
    shop: Workshop, command: Command, typed: tuple[str, ...], kind: type[Exception], problem: str
) -> None:
    filled(shop)
    ran = command(*typed, "--index", shop.index)
    assert isinstance(ran.exception, kind) and problem in str(ran.exception)
    assert ran.exception.hint and ran.stdout == ""  # type: ignore[attr-defined]


# ---- changes


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_changes_as_lines_are_deletes_then_rows_then_what_to_remember(shop: Workshop, command: Command) -> None:
    edited(shop)
    ran = command("changes", shop.index, "--since", "1")
    *said, last = lines(ran.stdout)
    named = changes(shop, 2)
    assert last == {"op": "done", "since": 1, "number": 2, "generation": 2}
    assert [line["op"] for line in said] == sorted(line["op"] for line in said)
    assert {line["chunk_id"] for line in said if line["op"] == "delete"} == named["removed"]
    written = [line for line in said if line["op"] == "upsert"]
    assert {line["chunk_id"] for line in written} == {row["chunk_id"] for row in shop.rows() if row["changed_in"] == 2}
    assert all(line.keys() - {"op"} == set(shop.table().column_names) and len(line["vector"]) == 16 for line in written)
    assert "next time: `--since 2`" in ran.stderr


def test_a_loader_that_takes_the_changes_one_after_the_other_holds_the_index(shop: Workshop, command: Command) -> None:
    held: dict[str, Any] = {}
    since = 0
    filled(shop)
    for night in range(3):
        for line in lines(command("changes", shop.index, "--since", since).stdout):
            if line["op"] == "delete":
                held.pop(line["chunk_id"], None)
            elif line["op"] == "upsert":
                held[line["chunk_id"]] = (line["path"], line["changed_in"], line["vector"])
            else:
                since = line["number"]
        assert held == {row["chunk_id"]: (row["path"], row["changed_in"], row["vector"]) for row in shop.rows()}
        shop.write(f"part-0/file-{2 * night}.txt", words(150, 200 + night))
        (shop.docs / f"part-1/file-{2 * night + 1}.txt").unlink()
        shop.ingest(max_gone_percent=100)


def test_changes_as_parquet_are_read_by_duckdb(shop: Workshop, command: Command, tmp_path: Path) -> None:
    edited(shop)
    file = tmp_path / "changes.parquet"
    file.write_bytes(command("changes", shop.index, "--since", "1", "--format", "parquet").stdout_bytes)
    query = f"select op, count(*), count(text), min(len(vector)) from '{file}' group by op order by op"
    new = sum(row["changed_in"] == 2 for row in shop.rows())
    assert duckdb.sql(query).fetchall() == [
        ("delete", len(changes(shop, 2)["removed"]), 0, None),
        ("upsert", new, new, 16),
    ]
    metadata = pq.read_schema(file).metadata
    assert json.loads(metadata[b"embedcli.changes"]) == {"since": 1, "number": 2, "generation": 2}


def test_changes_for_bulk_are_actions_and_documents(shop: Workshop, command: Command) -> None:
    edited(shop)
    said = lines(command("changes", shop.index, "--since", "1", "--format", "es-bulk").stdout)
    deletes = [line["delete"]["_id"] for line in said if "delete" in line]
    rest = [line for line in said if "delete" not in line]
    assert set(deletes) == changes(shop, 2)["removed"] and said[: len(deletes)] == [
        {"delete": {"_id": i}} for i in deletes
    ]
    assert [line["index"]["_id"] for line in rest[::2]] == [line["chunk_id"] for line in rest[1::2]]


def test_parquet_is_not_for_a_terminal(shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    from embedcli.cli import sync

    filled(shop)
    monkeypatch.setattr(sys, "stdout", Terminal())
    with pytest.raises(UsageError, match="not for a terminal"):
        sync.changes(str(shop.index), format="parquet")
