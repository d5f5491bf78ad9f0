"""Milvus, Lite or a server, by pymilvus.

In: a file or a URL (a token or `user:password` in the URL, or in MILVUS_TOKEN). Out: an alias NAME, which points to the
collection _NAME_a or _NAME_b, so that a load swaps in by one change of the alias; no table has a name that begins so.
`meta` is JSON, in which a whole number of more than 64 bits is text; text is VARCHAR, of at most 65,535 bytes: what is
longer is cut. The memory is a property of the collection, and so is the table that it is for.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from embedcli.errors import TargetError
from embedcli.paths import exists
from embedcli.stores import rows as reading
from embedcli.stores.aliased import AliasedStore, Collection, Errors
from embedcli.stores.contract import Layout, Memory, batches, id_batches, versions_table
from embedcli.stores.target import Target, target_errors

if TYPE_CHECKING:
    from pathlib import Path

    from pymilvus import MilvusClient

    from embedcli.report import Report

_TIMEOUT_S = 60
_BATCH = 1024
_IDS = 1024
_KEY = "embedcli.memory"
_TABLE = "embedcli.table"
LEAST_VERSION = (2, 5)
"""The first server that has columns without values."""
MOST_BYTES = 65_535
"""The longest text of a server, in bytes; Lite counts letters."""


def connect(target: Target) -> MilvusStore:
    from pymilvus import MilvusClient

    for name in ("pymilvus", "milvus_lite"):  # they log what they raise, with all arguments
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if target.path is not None:
        import milvus_lite  # noqa: F401 - a missing package is named before anything is done
    with target_errors(target, *_errors()):
        if target.path is not None:
            return MilvusStore(target, MilvusClient(str(target.path)))
        words = [word for word in (target.user, target.password) if word]
        token = ":".join(words) or target.key or ""
        return MilvusStore(target, MilvusClient(target.bare_url, token=token, timeout=_TIMEOUT_S))


def _errors() -> Errors:
    from pymilvus import MilvusException

    return (MilvusException, ValueError, RuntimeError, OSError)


class MilvusStore(AliasedStore["MilvusTable"]):
    _client: MilvusClient

    def __init__(self, target: Target, client: MilvusClient) -> None:
        super().__init__(
            target, client, _errors(), alias=target.table, names=(f"_{target.table}_a", f"_{target.table}_b")
        )

    def _live_name(self) -> str | None:
        for name in self._client.list_collections():
            if self._alias in self._client.list_aliases(name).get("aliases", []):
                return str(name)
        return None

    def _is_taken(self, name: str) -> bool:
        """Also true of an alias, which is not opened."""
        return bool(self._client.has_collection(name))

    def _open(self, name: str) -> MilvusTable | None:
        """None also for a collection that is for another table."""
        with target_errors(self._target, *self._errors):
            if name not in self._client.list_collections():  # not an alias
                return None
            properties = self._client.describe_collection(name).get("properties") or {}
            memory = Memory.from_json(properties.get(_KEY))
            if memory is None or properties.get(_TABLE, self._target.table) != self._target.table:
                return None  # (older versions did not write the table)
            if self._client.list_indexes(name):
                self._client.load_collection(name)  # a kill, or somebody, may have left it unloaded
        return MilvusTable(self._target, self._client, self._errors, name, memory)

    def unfinished(self) -> MilvusTable | None:
        """A collection that was killed before it got its index holds nothing yet, and is made again."""
        name = self._other_name()
        with target_errors(self._target, *self._errors):
            if name not in self._client.list_collections() or not self._client.list_indexes(name):
                return None
        return self._open(name)

    def _make(self, name: str, layout: Layout, memory: Memory) -> MilvusTable:
        self._check_version()
        if self._target.path is not None:
            _remove_torn(self._target.path / "collections" / name)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
        self._client.create_collection(
            name,
            schema=_schema(self._client, layout),
            index_params=index,
            properties={_KEY: memory.to_json(), _TABLE: self._target.table},
        )
        return MilvusTable(self._target, self._client, self._errors, name, memory)

    def _check_version(self) -> None:
        """Raise TargetError for a server that cannot hold rows of ours: it takes the table, and refuses the rows."""
        if self._target.path is not None:
            return
        version = str(self._client.get_server_version())
        numbers = re.match(r"v?(\d+)\.(\d+)", version)
        if numbers and (int(numbers[1]), int(numbers[2])) < LEAST_VERSION:
            raise TargetError(
                f"`{self._target.shown}` is Milvus {version}, in which every column needs a value",
                "upgrade the server to Milvus 2.5 or newer",
            )

    def _drop(self, name: str) -> None:
        self._client.drop_collection(name)

    def _point_alias(self, old: str | None, new: str) -> None:
        if old is None:
            self._client.create_alias(new, self._alias)
            return
        self._client.alter_alias(new, self._alias)
        self._drop(old)

    def close(self) -> None:
        """Also stop the server of a file, which the client leaves running, and which locks the file."""
        self._client.close()
        if self._target.path is not None:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(str(self._target.path))


def _remove_torn(folder: Path) -> None:
    """Remove the folder of a collection that Milvus Lite does not list, if there is one.

    It makes the folder before the schema in it, and may remove the schema before the rest: after a kill in between it
    knows no such collection, and refuses for ever to make one. Raises OSError.
    """
    if exists(folder) and not exists(folder / "schema.json"):
        shutil.rmtree(folder)


def _schema(client: MilvusClient, layout: Layout) -> Any:
    from pymilvus import DataType

    kinds = {"int32": DataType.INT32, "int64": DataType.INT64}
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for field in layout.schema:
        if field.name == "chunk_id":
            schema.add_field(field.name, DataType.VARCHAR, is_primary=True, max_length=32)
        elif field.name == "vector":
            schema.add_field(field.name, DataType.FLOAT_VECTOR, dim=layout.dim)
        elif field.name == "meta":
            schema.add_field(field.name, DataType.JSON, nullable=True)
        elif pa.types.is_integer(field.type):
            schema.add_field(field.name, kinds[str(field.type)], nullable=True)
        else:
            schema.add_field(field.name, DataType.VARCHAR, max_length=MOST_BYTES, nullable=True)
    return schema


class MilvusTable(Collection):
    _client: MilvusClient

    def upsert(self, rows: Iterable[pa.Table], *, fresh: bool) -> None:
        with target_errors(self._target, *self._errors):
            write = self._client.insert if fresh else self._client.upsert
            for batch in batches(rows, _BATCH):
                vectors = reading.vectors(batch)
                data = [
                    {**_taken(row), "vector": vector} for row, vector in zip(reading.plain(batch), vectors, strict=True)
                ]
                write(self.name, data)

    def delete(self, ids: Sequence[str]) -> None:
        with target_errors(self._target, *self._errors):
            for part in id_batches(ids, _IDS):
                self._client.delete(self.name, ids=part)

    def versions(self) -> Iterator[pa.Table]:
        with target_errors(self._target, *self._errors):
            pages = self._client.query_iterator(
                self.name, batch_size=_IDS, output_fields=["chunk_id", "changed_in"], consistency_level="Strong"
            )
            while page := pages.next():
                yield versions_table([row["chunk_id"] for row in page], [row["changed_in"] for row in page])
            pages.close()

    def count(self) -> int:
        with target_errors(self._target, *self._errors):
            found = self._client.query(self.name, filter="", output_fields=["count(*)"], consistency_level="Strong")
        return int(found[0]["count(*)"])

    def settle(self, report: Report) -> None:
        """Seal what was written, so that it is on disk and indexed."""
        with target_errors(self._target, *self._errors):
            self._client.flush(self.name)

    def _keep(self, memory: Memory) -> None:
        self._client.alter_collection_properties(self.name, {_KEY: memory.to_json(), _TABLE: self._target.table})


def _taken(row: dict[str, Any]) -> dict[str, Any]:
    """The row with texts and numbers that Milvus takes."""
    return {name: _short(value) if isinstance(value, str) else _in_64_bits(value) for name, value in row.items()}


def _in_64_bits(value: Any) -> Any:
    """A value of JSON; the client refuses longer numbers, so their digits are kept as text."""
    if isinstance(value, dict):
        return {name: _in_64_bits(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_in_64_bits(part) for part in value]
    return str(value) if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64 else value


def _short(text: str) -> str:
    """At most MOST_BYTES; a letter is not cut in two."""
    if len(text) * 4 <= MOST_BYTES:
        return text
    return text.encode()[:MOST_BYTES].decode(errors="ignore")
