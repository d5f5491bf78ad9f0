"""What every store promises, and what a target remembers of the index that it holds.

A store has one live table under the name that its users query, and at most one that is being loaded beside it. The
memory is written after the data it speaks of: whatever is killed, a memory never claims more than the table holds.
Not here: in which order the calls are made (follow.py), the stores.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from embedcli.columns import row_schema

if TYPE_CHECKING:
    from embedcli.report import Report

VERSIONS = pa.schema([("chunk_id", pa.string()), ("changed_in", pa.int64())])
"""A row of a table as far as it is compared: the same id and the same `changed_in` are the same row, as long as both
come from one index."""
FORMAT = 1
"""Raised when a store keeps the same rows in another way: tables of another format are replaced."""

REQUEST_BYTES = 4 << 20
"""Servers bound a request (Qdrant 32 MB, Milvus 64 MB), and as JSON a vector is five times as long as in Arrow."""


@dataclass(frozen=True)
class Layout:
    """What a table is made for: the dimensions, and a digest of model, columns and format. Tables of another layout are
    replaced, never changed."""

    dim: int
    digest: str

    @property
    def schema(self) -> pa.Schema:
        """The columns of a row, `vector` the last one."""
        return row_schema(self.dim)


@dataclass(frozen=True)
class Memory:
    """What a target remembers: which index it holds, and how far it has followed it.

    `origin` is the first change list of the index, `applied` the last one that the table holds whole, `until` the last
    one of which it may hold rows, written before the first of them (both None where an older version wrote the list).
    `finished` is False while the table is being loaded. `generation` and `number` (of the list) are for messages.
    """

    index: str
    origin: str | None
    until: str | None
    layout: str
    applied: str | None = None
    finished: bool = False
    generation: int = 0
    number: int = 0

    def to_json(self) -> str:
        return json.dumps({"embedcli": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, text: object) -> Memory | None:
        """None for what is no memory of this tool."""
        try:
            data = json.loads(str(text))
            data.pop("embedcli")
            names = {field.name for field in dataclasses.fields(cls)}
            return cls(**{name: value for name, value in data.items() if name in names})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


class Table(Protocol):
    """A table, collection or index of a store, with one row a chunk. Every method may raise TargetError."""

    @property
    def memory(self) -> Memory:
        """What the table remembers, as it was when it was opened or last written."""

    def atomic(self) -> AbstractContextManager[object]:
        """Readers see all of what is written inside or nothing, where the store can do that; else nothing happens."""

    def upsert(self, rows: Iterable[pa.Table], *, fresh: bool) -> None:
        """Write rows of the layout's schema, in batches, a whole row in the place of one with its id. `fresh`: none of
        their ids is in the table."""

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows; ids that are not there are no error."""

    def versions(self) -> Iterator[pa.Table]:
        """The ids and versions (VERSIONS) of all rows."""

    def count(self) -> int:
        """How many rows there are, those just written included."""

    def settle(self, report: Report) -> None:
        """Make what was written durable and quick to search, by an index where the store needs one; `report` shows
        what takes long."""

    def remember(self, memory: Memory) -> None:
        """Replace the memory."""


class Store(Protocol):
    """The place of one table in a store, under its name. Every method may raise TargetError."""

    def live(self) -> Table | None:
        """The table that users query. Raises TargetError where the name is taken by a table without a memory."""

    def unfinished(self) -> Table | None:
        """The table whose loading was interrupted, where the store can continue it."""

    def begin(self, layout: Layout, memory: Memory) -> Table:
        """An empty table beside the live one; an unfinished one is dropped."""

    def swap_in(self) -> None:
        """Put the loaded table in the place of the live one, which is dropped, in one step where the store can."""

    def finish_swap(self) -> None:
        """Do what a kill in `swap_in` left to do; until then `live` is the loaded table."""

    def drop_unfinished(self) -> None:
        """Remove what interrupted loadings left."""

    def close(self) -> None:
        """Let go of the store; twice is no error."""


def batches(rows: Iterable[pa.Table], size: int, *, most_bytes: int = REQUEST_BYTES) -> Iterator[pa.Table]:
    """The same rows in tables of at most `size` rows and `most_bytes` in Arrow, none of them empty; a single row may be
    larger."""
    for table in rows:
        for start in range(0, table.num_rows, size):
            yield from _halved(table.slice(start, size), most_bytes)


def _halved(table: pa.Table, most_bytes: int) -> Iterator[pa.Table]:
    if table.num_rows == 1 or table.nbytes <= most_bytes:
        yield table
        return
    middle = table.num_rows // 2
    yield from _halved(table.slice(0, middle), most_bytes)
    yield from _halved(table.slice(middle), most_bytes)


def id_batches(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


def versions_table(ids: Sequence[str], changed_in: Sequence[int]) -> pa.Table:
    return pa.table([pa.array(ids, pa.string()), pa.array(changed_in, pa.int64())], schema=VERSIONS)
