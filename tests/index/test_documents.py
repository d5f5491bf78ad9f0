"""Tables of documents that may be larger than memory: what is asked of them costs what is asked for, not the table."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest

from embedcli.index import documents


def table_of(count: int, *, shards: int = 3, seed: int = 0) -> pa.Table:
    """Documents in the order of their names; their rows lie in any order, and every seventh has none."""
    numbers = np.random.default_rng(seed).permutation(count)
    has_rows = numbers % 7 > 0
    names = np.array([f"part-{number % shards:016x}" for number in numbers.tolist()], object)
    columns = {
        "root": "root", "path": pa.array([f"a#{number:09}" for number in range(count)]), "uri": "u", "size": 1,
        "shard": pa.array(np.where(has_rows, names, None), pa.string()),
        "first_row": pa.array(np.where(has_rows, numbers // shards, 0)), "rows": pa.array(has_rows.astype(np.int32)),
    }  # fmt: skip
    return documents.of_columns(count, columns)


def in_chunks(table: pa.Table, rows: int) -> pa.Table:
    copies = [table.slice(start, rows).combine_chunks() for start in range(0, table.num_rows, rows)]
    return pa.concat_tables(copies)


@contextmanager
def counted() -> Iterator[pa.MemoryPool]:
    """What Arrow allocates in this context."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(before)


@pytest.mark.parametrize("rows", [1, 7, 64, 1_000])
@pytest.mark.parametrize("numbers", [[], [0], [99, 0, 50, 50, 3], list(range(100)), list(range(99, -1, -1))])
def test_rows_are_taken_in_the_order_of_their_numbers(numbers: list[int], rows: int) -> None:
    table = table_of(100)
    found = documents.taken(in_chunks(table, rows), np.array(numbers, np.uint32))
    assert found.equals(table.take(pa.array(numbers, pa.int64())))


def test_a_row_is_taken_without_a_copy_of_the_table() -> None:
    table = in_chunks(table_of(20_000), 1_000)
    with counted() as pool:
        documents.taken(table, np.array([5, 19_000, 7]))
    assert table.nbytes > 2_000_000 and pool.max_memory() < 100_000


def test_documents_are_chosen_without_a_copy_where_all_are_wanted() -> None:
    table = in_chunks(table_of(20_000), 1_000)
    with counted() as pool:
        assert documents.chosen(table, np.ones(20_000, np.bool_)) is table
    assert not pool.max_memory()


@pytest.mark.parametrize("part_rows", [10, 1 << 14])
def test_documents_in_the_order_of_their_places(part_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PART_ROWS", part_rows)
    table = in_chunks(table_of(500), 100)
    found = documents.InPlaceOrder(table)
    rows = table.select(["shard", "first_row"]).to_pylist()
    first_seen = list(dict.fromkeys(row["shard"] for row in rows if row["shard"]))
    assert found.names == first_seen
    lie = [first_seen.index(row["shard"]) if row["shard"] else -1 for row in rows]
    assert found.order.tolist() == sorted(range(500), key=lambda number: (lie[number], rows[number]["first_row"]))
    by_shard = {name: [rows[number]["shard"] for number in numbers] for name, numbers in found}
    assert by_shard == {name: [name] * sum(row["shard"] == name for row in rows) for name in first_seen}


def test_without_a_document_no_shard_has_any() -> None:
    found = documents.InPlaceOrder(documents.empty())
    assert list(found) == [] and found.order.size == 0


def test_the_order_of_places_takes_few_bytes_a_document() -> None:
    table = table_of(200_000)
    tracemalloc.start()
    with counted() as pool:
        found = documents.InPlaceOrder(table)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.order.size == 200_000
    assert held < 5 * 200_000 and most < 24 * 200_000 and pool.max_memory() < 1_000_000
