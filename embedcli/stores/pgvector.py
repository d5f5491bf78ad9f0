"""PostgreSQL with pgvector, by psycopg.

In: a database. Out: a table NAME with the columns of the index, `meta` as jsonb and `vector` as vector(dim), and an
HNSW index for cosine: on the vectors up to 2,000 dimensions, on their halfvec up to 4,000, above that none. The
changes are one transaction: readers see the old generation or the new one. A load commits each batch to NAME__next
and goes on where it was killed; its swap is one transaction. The memory is the comment of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.errors import TargetError
from embedcli.stores import building
from embedcli.stores import rows as reading
from embedcli.stores.contract import Layout, Memory, batches, id_batches, versions_table
from embedcli.stores.target import Target, not_ours, target_errors

if TYPE_CHECKING:
    from psycopg import Connection

    from embedcli.report import Report

_BATCH = 8192
_BATCH_BYTES = 64 << 20
_IDS = 8192
_LOCK_WAIT_S = 5
_NEXT = "__next"
_MOST_DIMS, _MOST_HALF_DIMS = 2000, 4000
"""The most dimensions of an HNSW index on vector, and on halfvec."""
_TYPES = {"int32": "integer", "int64": "bigint", "string": "text"}


def connect(target: Target) -> PostgresStore:
    import pgvector  # noqa: F401 - a missing package is named before anything is done
    import psycopg

    with target_errors(target, psycopg.Error):
        connection = psycopg.connect(target.url, autocommit=True)
    try:
        with target_errors(target, psycopg.Error):
            _check_alone(connection, target)
            if _has_extension(connection):
                _register(connection)
    except BaseException:
        connection.close()
        raise
    return PostgresStore(target, connection, psycopg.Error)


def _check_alone(connection: Connection[Any], target: Target) -> None:
    """Take a lock that ends with the session. Raises TargetError where another sync keeps it: the server needs a moment
    to notice that a client was killed."""
    import psycopg

    connection.execute(f"set lock_timeout = '{_LOCK_WAIT_S}s'")
    try:
        connection.execute("select pg_advisory_lock(hashtext(%s))", (f"embedcli {target.table}",))
    except psycopg.errors.LockNotAvailable:
        raise TargetError(
            f"another sync is writing `{target.table}` of `{target.shown}`", "wait until it has ended"
        ) from None
    connection.execute("reset lock_timeout")


def _has_extension(connection: Connection[Any]) -> bool:
    return connection.execute("select 1 from pg_extension where extname = 'vector'").fetchone() is not None


def _register(connection: Connection[Any]) -> None:
    """Let numpy arrays be written as vectors."""
    import pgvector.psycopg

    pgvector.psycopg.register_vector(connection)


def _make_extension(connection: Connection[Any], target: Target) -> None:
    import psycopg

    try:
        connection.execute("create extension vector")
    except psycopg.Error as error:
        raise TargetError(
            f"`{target.shown}` has no extension `vector`, and it cannot be made: {target.without_secrets(str(error))}",
            "install pgvector on the server, then let its administrator type `create extension vector`",
        ) from None


class PostgresStore:
    """The table `target.table` and, while one is loaded, the one of that name with `__next`."""

    def __init__(self, target: Target, connection: Connection[Any], errors: type[Exception]) -> None:
        self._target = target
        self._connection = connection
        self._errors = errors

    def live(self) -> PostgresTable | None:
        table = self._open(self._target.table)
        if table is None and self._exists(self._target.table):
            raise not_ours(self._target)
        return table

    def unfinished(self) -> PostgresTable | None:
        return self._open(self._target.table + _NEXT)

    def _open(self, name: str) -> PostgresTable | None:
        with target_errors(self._target, self._errors):
            query = "select obj_description(to_regclass(quote_ident(%s)), 'pg_class')"
            row = self._connection.execute(query, (name,)).fetchone()
        memory = Memory.from_json(row[0]) if row else None
        return None if memory is None else PostgresTable(self._target, self._connection, self._errors, name, memory)

    def _exists(self, name: str) -> bool:
        with target_errors(self._target, self._errors):
            row = self._connection.execute("select to_regclass(quote_ident(%s)) is not null", (name,)).fetchone()
        return bool(row and row[0])

    def begin(self, layout: Layout, memory: Memory) -> PostgresTable:
        name = self._target.table + _NEXT
        if not _has_extension(self._connection):
            _make_extension(self._connection, self._target)
            _register(self._connection)
        if self._exists(name) and self._open(name) is None:
            raise not_ours(self._target)
        columns = ", ".join(f'"{field.name}" {_type(field, layout.dim)}' for field in layout.schema)
        table = PostgresTable(self._target, self._connection, self._errors, name, memory)
        with target_errors(self._target, self._errors), self._connection.transaction():
            self._connection.execute(f'drop table if exists "{name}"')
            self._connection.execute(f'create table "{name}" ({columns}, primary key (chunk_id))')
            table.remember(memory)
        return table

    def swap_in(self) -> None:
        """One transaction. Where a view or foreign key needs the old table, the server refuses, and it stays."""
        name = self._target.table
        with target_errors(self._target, self._errors), self._connection.transaction():
            self._connection.execute(f'drop table if exists "{name}"')
            self._connection.execute(f'alter table "{name}{_NEXT}" rename to "{name}"')

    def finish_swap(self) -> None:
        """A swap is one step: a kill leaves nothing of it to do."""

    def drop_unfinished(self) -> None:
        name = self._target.table + _NEXT
        if self._open(name) is not None:
            with target_errors(self._target, self._errors):
                self._connection.execute(f'drop table "{name}"')

    def close(self) -> None:
        self._connection.close()


class PostgresTable:
    def __init__(
        self, target: Target, connection: Connection[Any], errors: type[Exception], name: str, memory: Memory
    ) -> None:
        self._target = target
        self._connection = connection
        self._errors = errors
        self._name = name
        self.memory = memory

    def atomic(self) -> AbstractContextManager[object]:
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with target_errors(self._target, self._errors), self._connection.transaction():
            yield

    def upsert(self, rows: Iterable[pa.Table], *, fresh: bool) -> None:
        """Each batch is a transaction, or a part of the one that is open."""
        for batch in batches(rows, _BATCH, most_bytes=_BATCH_BYTES):
            with self._transaction():
                if not fresh:
                    self.delete(reading.ids_of(batch))
                self._copy(batch)

    def _copy(self, batch: pa.Table) -> None:
        names = ", ".join(f'"{name}"' for name in batch.column_names)
        types = [_type(field, 0).partition(" ")[0].partition("(")[0] for field in batch.schema]
        columns = [_values(batch, name) for name in batch.column_names]
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f'copy "{self._name}" ({names}) from stdin (format binary)') as copy,
        ):
            copy.set_types(types)
            for row in zip(*columns, strict=True):
                copy.write_row(row)

    def delete(self, ids: Sequence[str]) -> None:
        for part in id_batches(ids, _IDS):
            with self._transaction():
                self._connection.execute(f'delete from "{self._name}" where chunk_id = any(%s)', (part,))

    def versions(self) -> Iterator[pa.Table]:
        with target_errors(self._target, self._errors):
            found = self._connection.execute(f'select chunk_id, changed_in from "{self._name}"').fetchall()
        yield versions_table([row[0] for row in found], [row[1] for row in found])

    def count(self) -> int:
        with target_errors(self._target, self._errors):
            row = self._connection.execute(f'select count(*) from "{self._name}"').fetchone()
        return int(row[0]) if row else 0

    def settle(self, report: Report) -> None:
        """Make the HNSW index of a newly loaded table, which PostgreSQL keeps up to date, and `mark_visible`."""
        with target_errors(self._target, self._errors):
            row = self._connection.execute(
                "select a.atttypmod, exists (select from pg_index where indrelid = a.attrelid and not indisprimary)"
                " from pg_attribute a where a.attrelid = to_regclass(quote_ident(%s)) and a.attname = 'vector'",
                (self._name,),
            ).fetchone()
            dim, has_index = row or (0, True)
            if not has_index and (expression := _indexed(dim)):
                self._build(f'create index on "{self._name}" using hnsw ({expression})', report)
            if not self._in_transaction():  # so after a load; autovacuum looks after what the changes leave
                self.mark_visible()

    def _in_transaction(self) -> bool:
        from psycopg.pq import TransactionStatus

        return bool(self._connection.info.transaction_status != TransactionStatus.IDLE)

    def mark_visible(self) -> None:
        """Let the server note that every reader sees the rows, and what they are like. `count` then reads the index of
        the ids in place of the whole table: of a million rows in 0.1 s in place of 7 s. This takes 7 s itself, which
        the first count would."""
        self._connection.execute(f'vacuum (analyze) "{self._name}"')

    def _build(self, statement: str, report: Report) -> None:
        import psycopg

        url = self._target.url
        build = building.facts(self._connection, self.count(), url)
        with building.reported(
            self._connection, build, report, another=lambda: psycopg.connect(url, autocommit=True), errors=self._errors
        ):
            self._connection.execute(statement)

    def remember(self, memory: Memory) -> None:
        from psycopg import sql

        comment = sql.SQL("comment on table {} is {}").format(sql.Identifier(self._name), memory.to_json())
        with target_errors(self._target, self._errors):
            self._connection.execute(comment)
        self.memory = memory


def _indexed(dim: int) -> str:
    """What an HNSW index for cosine is made on; empty where pgvector has none for so many dimensions."""
    if dim <= _MOST_DIMS:
        return "vector vector_cosine_ops"
    return f"(vector::halfvec({dim})) halfvec_cosine_ops" if dim <= _MOST_HALF_DIMS else ""


def _type(field: pa.Field, dim: int) -> str:
    if field.name == "vector":
        return f"vector({dim}) not null"
    if field.name == "meta":
        return "jsonb"
    return "timestamptz" if pa.types.is_timestamp(field.type) else _TYPES[str(field.type)]


def _values(batch: pa.Table, name: str) -> Iterable[Any]:
    """The values of a column as psycopg takes them. PostgreSQL has no NUL in text: it is left out."""
    column = batch.column(name)
    if name == "vector":
        return list(reading.vectors(batch))
    if pa.types.is_string(column.type):
        column = pc.replace_substring(column, "\x00", "")
    values: list[Any] = column.to_pylist()
    if name == "meta":
        from psycopg.types.json import Jsonb

        return [None if value is None else Jsonb(_without_nul(value)) for value in values]
    return values


def _without_nul(text: str) -> Any:
    """Parsed JSON; jsonb has no NUL either."""
    import json

    return _clean(json.loads(text))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value
