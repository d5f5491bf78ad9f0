"""Qdrant, local or a server, by qdrant-client.

In: a folder or a URL (an API key as the URL's password, or in QDRANT_API_KEY). Out: an alias NAME, which points to
the collection NAME.a or NAME.b, so that a load swaps in by one change of the alias. A point has the chunk id (as a
UUID) and the columns as payload. The memory is in the collection's metadata, which servers have since 1.16.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from embedcli.errors import TargetError
from embedcli.stores import rows as reading
from embedcli.stores.aliased import AliasedStore, Collection, Errors
from embedcli.stores.contract import Layout, Memory, batches, id_batches, versions_table
from embedcli.stores.target import Target, target_errors

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from embedcli.report import Report

_TIMEOUT_S = 60
_BATCH = 512
_IDS = 4096
_KEY = "embedcli"
LOCAL_ROWS = 20_000
"""Its client warns of a local collection with more: each search compares every vector, in Python."""


def connect(target: Target) -> QdrantStore:
    from qdrant_client import QdrantClient

    with target_errors(target, *_errors()):
        if target.path is not None:
            return QdrantStore(target, QdrantClient(path=str(target.path)))
        key = target.password or target.key
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a key over http, which is what the user has typed
            client = QdrantClient(url=target.bare_url, api_key=key, timeout=_TIMEOUT_S, check_compatibility=False)
        client.get_aliases()  # a server that cannot be reached, or refuses the key, is known now
        return QdrantStore(target, client)


def _errors() -> Errors:
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    return (ApiException, QdrantException, ValueError, RuntimeError, OSError)


class QdrantStore(AliasedStore["QdrantTable"]):
    _client: QdrantClient

    def __init__(self, target: Target, client: QdrantClient) -> None:
        super().__init__(
            target, client, _errors(), alias=target.table, names=(f"{target.table}.a", f"{target.table}.b")
        )

    def _live_name(self) -> str | None:
        aliases = {item.alias_name: item.collection_name for item in self._client.get_aliases().aliases}
        return aliases.get(self._alias)

    def _is_taken(self, name: str) -> bool:
        return bool(self._client.collection_exists(name))

    def _open(self, name: str) -> QdrantTable | None:
        with target_errors(self._target, *self._errors):
            if not self._is_taken(name):
                return None
            metadata = self._client.get_collection(name).config.metadata or {}
        memory = Memory.from_json(metadata.get(_KEY))
        return None if memory is None else QdrantTable(self._target, self._client, self._errors, name, memory)

    def _make(self, name: str, layout: Layout, memory: Memory) -> QdrantTable:
        from qdrant_client import models

        self._client.create_collection(
            name,
            vectors_config=models.VectorParams(size=layout.dim, distance=models.Distance.COSINE),
            metadata={_KEY: memory.to_json()},
        )
        table = self._open(name)
        if table is None:
            raise TargetError(
                f"`{self._target.shown}` keeps no metadata of collections, where the generation is remembered",
                "upgrade the server to Qdrant 1.16 or newer",
            )
        return table

    def _drop(self, name: str) -> None:
        self._client.delete_collection(name)

    def _point_alias(self, old: str | None, new: str) -> None:
        from qdrant_client import models

        create = models.CreateAlias(collection_name=new, alias_name=self._alias)
        delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self._alias))
        operations = [*([delete] if old else []), models.CreateAliasOperation(create_alias=create)]
        self._client.update_collection_aliases(operations)
        if old:
            self._drop(old)

    def close(self) -> None:
        self._client.close()


class QdrantTable(Collection):
    _client: QdrantClient

    def upsert(self, rows: Iterable[pa.Table], *, fresh: bool) -> None:
        """Qdrant replaces a point of a known id whole, payload and all."""
        from qdrant_client import models

        with target_errors(self._target, *self._errors):
            for batch in batches(rows, _BATCH):
                points = models.Batch(
                    ids=reading.ids_of(batch), vectors=reading.vectors(batch).tolist(), payloads=reading.plain(batch)
                )
                self._client.upsert(self.name, points=points, wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        from qdrant_client import models

        with target_errors(self._target, *self._errors):
            for part in id_batches(ids, _IDS):
                self._client.delete(self.name, points_selector=models.PointIdsList(points=part), wait=True)

    def versions(self) -> Iterator[pa.Table]:
        offset: Any = None
        while True:
            with target_errors(self._target, *self._errors):
                points, offset = self._client.scroll(
                    self.name, limit=_IDS, offset=offset, with_payload=["changed_in"], with_vectors=False
                )
            ids = [str(point.id).replace("-", "") for point in points]  # ids come back as UUIDs, with dashes
            yield versions_table(ids, [(point.payload or {}).get("changed_in", -1) for point in points])
            if offset is None:
                return

    def count(self) -> int:
        with target_errors(self._target, *self._errors):
            return int(self._client.count(self.name, exact=True).count)

    def settle(self, report: Report) -> None:
        """Qdrant indexes by itself, and each write has waited until it was done: only say where that will be slow."""
        if self._target.path is not None and self.count() > LOCAL_ROWS:
            report.line(f"Qdrant in a folder is slow with more than {LOCAL_ROWS:,} rows; its server is made for them")

    def _keep(self, memory: Memory) -> None:
        self._client.update_collection(self.name, metadata={_KEY: memory.to_json()})
