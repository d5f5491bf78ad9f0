"""A table in a file without a name: the same rows, and nothing left in the folder."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from embedcli.errors import StorageError
from embedcli.index.tables import spilled as spilling
from embedcli.index.tables.spilled import spilled

SCHEMA = pa.schema([("number", pa.int64()), ("name", pa.string()), ("missing", pa.list_(pa.int32()))])


def part(first: int, count: int) -> pa.Table:
    numbers = list(range(first, first + count))
    names = [None if n % 7 == 0 else f"name {n}" for n in numbers]
    return pa.table([numbers, names, [[n] * (n % 3) for n in numbers]], schema=SCHEMA)


@pytest.mark.parametrize("at_most", [0, 10, 99, 100, 1000])
def test_the_rows_are_the_same_in_memory_and_in_a_file(
    at_most: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spilling, "IN_MEMORY_ROWS", at_most)
    table = spilled((part(n, 20) for n in range(0, 100, 20)), SCHEMA, tmp_path)
    assert table.equals(part(0, 100)) and list(tmp_path.iterdir()) == []
    assert at_most >= 100 or all(column.num_chunks == 1 for column in table.columns)
    assert spilled([], SCHEMA, tmp_path).equals(SCHEMA.empty_table())


def test_a_large_table_takes_no_memory_of_arrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spilling, "IN_MEMORY_ROWS", 1_000)
    before = pa.total_allocated_bytes()
    table = spilled((part(n, 1_000) for n in range(0, 50_000, 1_000)), SCHEMA, tmp_path)
    assert table.num_rows == 50_000 and table.nbytes > 1_000_000
    assert pa.total_allocated_bytes() - before < 100_000


def test_a_folder_that_is_not_there_is_a_storage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spilling, "IN_MEMORY_ROWS", 0)
    with pytest.raises(StorageError):
        spilled([part(0, 5)], SCHEMA, tmp_path / "nowhere")
