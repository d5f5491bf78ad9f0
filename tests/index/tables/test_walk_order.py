"""Sorted tables side by side: merged they are what sorting all rows at once gives, however small the windows are."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from embedcli.index import documents
from embedcli.index.documents import DocumentRow
from embedcli.index.tables import walk_order
from embedcli.index.tables.walk_order import WalkOrder, places_of_roots

ROOTS = ["second", "first", "third"]
NAMES = ["a", "a/b", "a b", "a.jsonl", "a.jsonl#1", "a.jsonl#10", "a.jsonl#9", "a.jsonl.gz", "a/b/c", "a-b", "ä", "z/a"]


def table(keys: list[tuple[str, str]]) -> pa.Table:
    rows = [DocumentRow(root, path, path, 1, 1, 1, 1, "indexed", None, "r") for root, path in keys]
    return documents.from_rows(rows)


def every_key() -> list[tuple[str, str]]:
    return [(root, f"{name}{end}") for root in (*ROOTS, "of no root") for name in NAMES for end in ("", "~", "/x")]


@pytest.mark.parametrize("window", [1, 2, 7, 1000])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_merged_tables_are_in_the_order_of_one_sort(window: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_order, "WINDOW_ROWS", window)
    generator = random.Random(window * count)
    keys = every_key()
    generator.shuffle(keys)
    order = WalkOrder(ROOTS)
    parts = [order.sorted(table(keys[number::count])) for number in range(count)]
    merged = list(order.merged([*parts, table([])]))
    assert documents.keys(pa.concat_tables(merged)) == documents.keys(order.sorted(table(keys)))
    assert max(part.num_rows for part in merged) <= max(3 * window, 2 * count)


def test_each_window_holds_the_rows_of_one_range_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_order, "WINDOW_ROWS", 6)
    order, keys = WalkOrder(ROOTS), every_key()
    one, other = order.sorted(table(keys)), order.sorted(table(keys[::3]))
    last: walk_order.Key = (-1, "")
    for (a, b), (c, d) in order.windows([one, other]):
        inside = [order.key(one, row) for row in range(a, b)] + [order.key(other, row) for row in range(c, d)]
        assert all(key > last for key in inside)
        last = max(inside, default=last)
    assert (b, d) == (one.num_rows, other.num_rows)


def test_each_root_of_a_sorted_table_has_its_range_of_rows() -> None:
    sorted_table = WalkOrder(ROOTS).sorted(table([(root, name) for root in ROOTS[::-1] for name in NAMES]))
    pieces = pa.concat_tables([sorted_table.slice(0, 5), sorted_table.slice(5)])  # a root in two chunks
    count = len(NAMES)
    assert places_of_roots(pieces) == [(root, n * count, (n + 1) * count) for n, root in enumerate(ROOTS)]
    assert places_of_roots(table([])) == []
