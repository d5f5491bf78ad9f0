"""LanceDB: a folder or a bucket.

In: a database. Out: a table NAME with the columns of the index as they are. A load is one overwrite, which is atomic in
Lance; OSS LanceDB cannot rename tables. The memories are in a table `embedcli_sync`, one row a name. A memory counts
only for the load whose number is also in the table's schema: a kill between an overwrite and its memory leaves rows
that the memory does not speak of.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from embedcli.errors import EmbedcliError, TargetError
from embedcli.stores.contract import VERSIONS, Layout, Memory, batches, id_batches
from embedcli.stores.target import Target, not_ours, target_errors

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.table import Table as LanceTable

    from embedcli.report import Report

_ERRORS = (RuntimeError, ValueError, OSError, pa.ArrowException)
_MEMORIES = pa.schema([("name", pa.string()), ("state", pa.string())])
_LOAD = b"embedcli.load"
_LOADING = b"embedcli.memory"
_BATCH = 8192
_BATCH_BYTES = 64 << 20
_IDS = 2000
INDEX_FROM_ROWS = 100_000
"""Below, every vector is compared; above, an IVF_FLAT index is made, whose distances are those of a comparison with
every vector: 1 - cosine (those of the indexes with quantisation are twice that)."""


def connect(target: Target) -> LanceStore:
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of every table that does not exist yet
    import lancedb

    with target_errors(target, *_ERRORS):
        return LanceStore(target, lancedb.connect(target.url))


class LanceStore:
    def __init__(self, target: Target, database: DBConnection) -> None:
        self._target = target
        self._database = database

    def live(self) -> LanceRows | None:
        with target_errors(self._target, *_ERRORS):
            memory, load = _read_memory(self._database, self._target.table)
            table = _open(self._database, self._target.table)
            if table is not None and memory is not None:
                memory = _of_the_rows(table, memory, load)
        if table is None:
            return None
        if memory is None or not {*VERSIONS.names, "vector"}.issubset(
            table.schema.names
        ):  # in the place of one of ours
            raise not_ours(self._target)
        return LanceRows(self._target, self._database, table, memory)

    def unfinished(self) -> None:
        """A load is one overwrite: nothing is left of an interrupted one."""

    def finish_swap(self) -> None:
        """A swap is one step: a kill leaves nothing of it to do."""

    def drop_unfinished(self) -> None:
        """Nothing is left of an interrupted load."""

    def begin(self, layout: Layout, memory: Memory) -> LanceRows:
        """The old table, and what is remembered of it, stay until the rows are written."""
        with target_errors(self._target, *_ERRORS):
            is_new = _open(self._database, self._target.table) is None
            if is_new or _read_memory(self._database, self._target.table)[0] is None:
                _write_memory(self._database, self._target.table, memory)
        return LanceRows(self._target, self._database, None, memory, layout)

    def swap_in(self) -> None:
        """The overwrite has put the new table in the place of the old one."""

    def close(self) -> None:
        """A LanceDB connection has nothing to close."""


class LanceRows:
    """The table; without one yet (`table` None), the one that the first `upsert` makes."""

    def __init__(
        self,
        target: Target,
        database: DBConnection,
        table: LanceTable | None,
        memory: Memory,
        layout: Layout | None = None,
    ) -> None:
        self._target = target
        self._database = database
        self._table = table
        self._layout = layout
        self._load = secrets.token_hex(8) if table is None else _load_of(table)
        self.memory = memory

    def atomic(self) -> AbstractContextManager[object]:
        return nullcontext()

    def upsert(self, rows: Iterable[pa.Table], *, fresh: bool) -> None:
        if self._table is None:
            assert self._layout is not None
            self._table = self._overwrite(rows, self._layout.schema.with_metadata(self._loading()))
            return
        with target_errors(self._target, *_ERRORS):
            for batch in batches(rows, _BATCH, most_bytes=_BATCH_BYTES):
                merge = self._table.merge_insert("chunk_id")
                merge.when_matched_update_all().when_not_matched_insert_all().execute(batch)

    def _loading(self) -> dict[bytes, bytes]:
        return {_LOAD: self._load.encode(), _LOADING: self.memory.to_json().encode()}

    def _overwrite(self, rows: Iterable[pa.Table], schema: pa.Schema) -> LanceTable:
        """Raises what reading the rows raises, which Lance would report as an error of its own."""
        failed: list[EmbedcliError] = []

        def parts() -> Iterator[pa.RecordBatch]:
            try:
                for table in rows:
                    yield from table.cast(schema).to_batches()
            except EmbedcliError as error:
                failed.append(error)
                raise

        reader = pa.RecordBatchReader.from_batches(schema, parts())
        try:
            with target_errors(self._target, *_ERRORS):
                return self._database.create_table(self._target.table, data=reader, mode="overwrite")
        except TargetError:
            if failed:
                raise failed[0] from None
            raise

    def delete(self, ids: Sequence[str]) -> None:
        with target_errors(self._target, *_ERRORS):
            for part in id_batches(ids, _IDS):
                names = ", ".join(f"'{chunk_id}'" for chunk_id in part)
                self._opened.delete(f"chunk_id in ({names})")

    def versions(self) -> Iterator[pa.Table]:
        if self._table is None:
            return
        with target_errors(self._target, *_ERRORS):
            yield self._table.search().select(VERSIONS.names).to_arrow().cast(VERSIONS)

    def count(self) -> int:
        with target_errors(self._target, *_ERRORS):
            return int(self._opened.count_rows())

    def settle(self, report: Report) -> None:
        """Take what was written into the index of vectors, or make one where there are enough rows."""
        with target_errors(self._target, *_ERRORS):
            has_index = any("vector" in index.columns for index in self._opened.list_indices())
            if has_index:
                self._opened.optimize()
            elif self._opened.count_rows() >= INDEX_FROM_ROWS:
                from lancedb.index import IvfFlat

                self._opened.create_index("vector", config=IvfFlat(distance_type="cosine"))

    def remember(self, memory: Memory) -> None:
        with target_errors(self._target, *_ERRORS):
            _write_memory(self._database, self._target.table, memory, self._load)
        self.memory = memory

    @property
    def _opened(self) -> Any:
        assert self._table is not None
        return self._table


def _open(database: DBConnection, name: str) -> LanceTable | None:
    try:
        return database.open_table(name)
    except _ERRORS as error:
        if "not found" in str(error):  # a ValueError in some versions, a RuntimeError in others
            return None
        raise


def _load_of(table: LanceTable) -> str:
    """The number of the load that wrote the rows; empty for a table of an older version."""
    return str((table.schema.metadata or {}).get(_LOAD, b"").decode())


def _of_the_rows(table: LanceTable, memory: Memory, load: str) -> Memory:
    """The memory, which is of this load; where another one wrote the rows, what that one began with."""
    if load == _load_of(table):
        return memory
    return Memory.from_json((table.schema.metadata or {}).get(_LOADING, b"").decode()) or memory


def _read_memory(database: DBConnection, name: str) -> tuple[Memory | None, str]:
    """What is remembered, and for which load."""
    table = _open(database, "embedcli_sync")
    rows = table.search().where(f"name = '{name}'").to_list() if table is not None else []
    memory = Memory.from_json(rows[0]["state"]) if rows else None
    return memory, str(json.loads(rows[0]["state"]).get("load", "")) if memory is not None else ""


def _write_memory(database: DBConnection, name: str, memory: Memory, load: str = "") -> None:
    table = _open(database, "embedcli_sync")
    if table is None:
        table = database.create_table("embedcli_sync", schema=_MEMORIES, mode="create", exist_ok=True)
    state = json.dumps({**json.loads(memory.to_json()), "load": load})
    rows = pa.table([[name], [state]], schema=_MEMORIES)
    table.merge_insert("name").when_matched_update_all().when_not_matched_insert_all().execute(rows)
