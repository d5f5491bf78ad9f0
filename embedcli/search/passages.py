"""Rows of a view -> what is shown of them.

In: row numbers. Out: their columns but the vector, in the same order.
Not here: which rows (searcher.py), marking words and folding lines (cli/texts/search.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedcli.columns import READ_SCHEMA
from embedcli.index.shards import read_row
from embedcli.search.scan import Rows
from embedcli.search.view import View

SHOWN = tuple(name for name in READ_SCHEMA.names if name != "chunk_digest")


def passages(view: View, rows: Rows) -> list[Mapping[str, Any]]:
    """The columns of each row as Python values. Raises DamagedShard."""
    found: list[Mapping[str, Any]] = [{}] * rows.size
    for number, inside, places in view.vectors.by_shard(rows):
        for place, row in zip(places.tolist(), inside.tolist(), strict=True):
            (found[place],) = read_row(view.shards[number].path, row, SHOWN).to_pylist()
    return found
