"""SQLite with sqlite-vec, by apsw.

In: a database file. Out: a table NAME with a row a chunk, and a vec0 table NAME_vectors with the vectors, both under
the same `id`. vec0 tables take no NULL and no REPLACE and cannot be renamed, so the columns are in a table of their
own, and a load is one transaction: drop, create, fill, remember.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from embedcli.errors import TargetError
from embedcli.paths import exists, is_folder
from embedcli.stores import rows as reading
from embedcli.stores.contract import VERSIONS, Layout, Memory, batches, id_batches, versions_table
from embedcli.stores.target import Target, not_ours, target_errors

if TYPE_CHECKING:
    from apsw import Connection

    from embedcli.report import Report

_BATCH = 2048
_BATCH_BYTES = 64 << 20
_BUSY_MS = 60_000


def connect(target: Target) -> SqliteStore:
    import apsw
    import sqlite_vec

    assert target.path is not None
    if not is_folder(target.path.parent):
        raise TargetError(f"`{target.path.parent}` is not a folder", "make it first")
    is_new = not exists(target.path)
    with target_errors(target, apsw.Error):
        connection = apsw.Connection(str(target.path))
        connection.set_busy_timeout(_BUSY_MS)
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.enable_load_extension(False)
        connection.execute("select count(*) from sqlite_schema").fetchall()  # refuses what is no database
    return SqliteStore(target, connection, apsw.Error, is_new=is_new)


class SqliteStore:
    """One pair of tables in a database file; `errors` is the client's base exception."""

    def __init__(self, target: Target, connection: Connection, errors: type[Exception], *, is_new: bool) -> None:
        self._target = target
        self._connection = connection
        self._errors = errors
        self._is_new = is_new

    def live(self) -> SqliteTable | None:
        memory = self._checked()
        return None if memory is None else SqliteTable(self._target, self._connection, self._errors, memory)

    def _checked(self) -> Memory | None:
        """What is remembered of the table; None where there is none. Raises TargetError where a name of the pair, in
        any case of its letters, is that of something else: both names are dropped by a load."""
        name = self._target.table
        with target_errors(self._target, self._errors):
            found = dict(self._connection.execute("select name, coalesce(sql, '') from sqlite_schema"))
            memory = self._remembered() if "embedcli_sync" in found else None
            columns = {row[1] for row in self._connection.execute(f'pragma table_info("{name}")')}
        pair = {name, f"{name}_vectors"}
        folded = {one.casefold() for one in pair}
        taken = {one for one in found if one.casefold() in folded}
        others = taken - pair or (f"{name}_vectors" in taken and "using vec0(" not in found[f"{name}_vectors"])
        if others or (taken and memory is None):
            raise not_ours(self._target)
        if name not in found:
            return None
        if not columns.issuperset(VERSIONS.names):  # it may be in the place of one of ours
            raise not_ours(self._target)
        return memory

    def _remembered(self) -> Memory | None:
        row = self._connection.execute("select state from embedcli_sync where name = ?", (self._target.table,))
        found = row.fetchone()
        return Memory.from_json(found[0]) if found else None

    def unfinished(self) -> None:
        """A load is one transaction: nothing is left of an interrupted one."""

    def finish_swap(self) -> None:
        """A swap is one step: a kill leaves nothing of it to do."""

    def drop_unfinished(self) -> None:
        """Nothing is left of an interrupted load."""

    def begin(self, layout: Layout, memory: Memory) -> SqliteTable:
        name = self._target.table
        with target_errors(self._target, self._errors):
            self._connection.execute("begin immediate")
            self._checked()
            self._connection.execute("create table if not exists embedcli_sync (name text primary key, state text)")
            for table in (name, f"{name}_vectors"):
                self._connection.execute(f'drop table if exists "{table}"')
            columns = ", ".join(
                f'"{field.name}" {_type(field.type)}{" unique not null" if field.name == "chunk_id" else ""}'
                for field in layout.schema
                if field.name != "vector"
            )
            self._connection.execute(f'create table "{name}" (id integer primary key, {columns})')
            self._connection.execute(
                f'create virtual table "{name}_vectors" using'
                f" vec0(id integer primary key, vector float[{layout.dim}] distance_metric=cosine)"
            )
        return SqliteTable(self._target, self._connection, self._errors, memory)

    def swap_in(self) -> None:
        with target_errors(self._target, self._errors):
            self._connection.execute("commit")

    def close(self) -> None:
        """A transaction that was not committed is rolled back; a new file that holds nothing is removed again."""
        self._connection.close()
        path = self._target.path
        if self._is_new and path is not None and exists(path) and not path.stat().st_size:
            path.unlink()


class SqliteTable:
    def __init__(self, target: Target, connection: Connection, errors: type[Exception], memory: Memory) -> None:
        self._target = target
        self._connection = connection
        self._errors = errors
        self.memory = memory
        self._name = f'"{target.table}"'
        self._vectors = f'"{target.table}_vectors"'

    def atomic(self) -> AbstractContextManager[object]:
        return self._connection

    def upsert(self, rows: Iterable[pa.Table], *, fresh: bool) -> None:
        with target_errors(self._target, self._errors):
            for batch in batches(rows, _BATCH, most_bytes=_BATCH_BYTES):
                if not fresh:
                    self.delete(reading.ids_of(batch))
                self._insert(batch)

    def _insert(self, batch: pa.Table) -> None:
        columns = [name for name in batch.column_names if name != "vector"]
        names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
        values = [_values(batch, name) for name in columns]
        first = 1 + (self._one(f"select max(id) from {self._name}") or 0)
        ids = range(first, first + batch.num_rows)
        self._connection.executemany(
            f"insert into {self._name} (id, {names}) values (?, {marks})", zip(ids, *values, strict=True)
        )
        vectors = (vector.tobytes() for vector in reading.vectors(batch))
        self._connection.executemany(
            f"insert into {self._vectors} (id, vector) values (?, ?)", zip(ids, vectors, strict=True)
        )

    def delete(self, ids: Sequence[str]) -> None:
        with target_errors(self._target, self._errors):
            for part in id_batches(ids, _BATCH):
                marks = ", ".join("?" * len(part))
                self._connection.execute(
                    f"delete from {self._vectors} where id in"
                    f" (select id from {self._name} where chunk_id in ({marks}))", part
                )  # fmt: skip
                self._connection.execute(f"delete from {self._name} where chunk_id in ({marks})", part)

    def versions(self) -> Iterator[pa.Table]:
        with target_errors(self._target, self._errors):
            query = f"select chunk_id, changed_in from {self._name}"
            found: list[Any] = self._connection.execute(query).fetchall()
        yield versions_table([row[0] for row in found], [row[1] for row in found])

    def count(self) -> int:
        with target_errors(self._target, self._errors):
            vectors = int(self._one(f"select count(*) from {self._vectors}"))
            rows = int(self._one(f"select count(*) from {self._name}"))
        return rows if rows == vectors else -1

    def settle(self, report: Report) -> None:
        """SQLite keeps the index of ids itself, and sqlite-vec compares every vector."""

    def remember(self, memory: Memory) -> None:
        with target_errors(self._target, self._errors):
            self._connection.execute(
                "insert into embedcli_sync values (?, ?) on conflict (name) do update set state = excluded.state",
                (self._target.table, memory.to_json()),
            )
        self.memory = memory

    def _one(self, query: str) -> Any:
        row = self._connection.execute(query).fetchone()
        return row[0] if row else None


def _type(kind: pa.DataType) -> str:
    return "integer" if pa.types.is_integer(kind) else "text"


def _values(batch: pa.Table, name: str) -> list[Any]:
    values: list[Any] = batch.column(name).to_pylist()
    if pa.types.is_timestamp(batch.schema.field(name).type):
        return [value.isoformat() if value is not None else None for value in values]
    return values
