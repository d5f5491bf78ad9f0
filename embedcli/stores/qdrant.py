"""Qdrant, local or a server, by qdrant-client.

In: a folder or a URL (an API key as the URL's password, or in QDRANT_API_KEY). Out: an alias NAME, which points to
the collection NAME.a or NAME.b, so that a load swaps in by one change of the alias. A point has the chunk id (as a
UUID) and the columns as payload. The memory is in the collection's metadata, which servers have since 1.16.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from embedcli.errors import TargetError
from embedcli.stores import rows as reading
from embedcli.stores.contract import Layout, Memory, batches, id_batches, versions_table
from embedcli.stores.target import Target, not_ours, target_errors

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

_TIMEOUT_S = 60
_BATCH = 512
_IDS = 4096
_KEY = "embedcli"


def connect(target: Target) -> QdrantStore:
    from qdrant_client import QdrantClient

    with target_errors(target, *_errors()):
        if target.path is not None:
            return QdrantStore(target, QdrantClient(path=str(target.path)))
        key = target.password or os.environ.get("QDRANT_API_KEY")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a key over http, which is what the user has typed
            client = QdrantClient(url=target.bare_url, api_key=key, timeout=_TIMEOUT_S, check_compatibility=False)
        client.get_aliases()  # a server that cannot be reached, or refuses the key, is known now
        return QdrantStore(target, client)


def _errors() -> tuple[type[Exception], ...]:
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    return (ApiException, QdrantException, ValueError, RuntimeError, OSError)


class QdrantStore:
    def __init__(self, target: Target, client: QdrantClient) -> None:
        self._target = target
        self._client = client
        self._errors = _errors()

    def live(self) -> QdrantTable | None:
        with target_errors(self._target, *self._errors):
            name = self._live_name()
            if name is None and self._client.collection_exists(self._target.table):
                raise not_ours(self._target)
        if name is None:
            return None
        table = self._open(name)
        if table is None:
            raise not_ours(self._target)
        return table

    def _live_name(self) -> str | None:
        """The collection behind the alias."""
        aliases = {item.alias_name: item.collection_name for item in self._client.get_aliases().aliases}
        return aliases.get(self._target.table)

    def _other_name(self) -> str:
        """The collection that is loaded while the other one is live."""
        names = [f"{self._target.table}.a", f"{self._target.table}.b"]
        return names[1] if self._live_name() == names[0] else names[0]

    def _open(self, name: str) -> QdrantTable | None:
        """None where there is no such collection, or where it has no memory."""
        with target_errors(self._target, *self._errors):
            if not self._client.collection_exists(name):
                return None
            metadata = self._client.get_collection(name).config.metadata or {}
        memory = Memory.from_json(metadata.get(_KEY))
        return None if memory is None else QdrantTable(self._target, self._client, name, memory)

    def unfinished(self) -> QdrantTable | None:
        with target_errors(self._target, *self._errors):
            name = self._other_name()
        return self._open(name)

    def begin(self, layout: Layout, memory: Memory) -> QdrantTable:
        from qdrant_client import models

        with target_errors(self._target, *self._errors):
            name = self._other_name()
            if self._client.collection_exists(name):
                if self._open(name) is None:
                    raise not_ours(self._target)
                self._client.delete_collection(name)
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

    def swap_in(self) -> None:
        from qdrant_client import models

        alias = self._target.table
        with target_errors(self._target, *self._errors):
            old, new = self._live_name(), self._other_name()
            create = models.CreateAlias(collection_name=new, alias_name=alias)
            delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
            operations = [*([delete] if old else []), models.CreateAliasOperation(create_alias=create)]
            self._client.update_collection_aliases(operations)
            if old:
                self._client.delete_collection(old)

    def finish_swap(self) -> None:
        """A swap is one step: a kill leaves nothing of it to do."""

    def drop_unfinished(self) -> None:
        table = self.unfinished()
        if table is not None:
            with target_errors(self._target, *self._errors):
                self._client.delete_collection(table.name)

    def close(self) -> None:
        self._client.close()


class QdrantTable:
    def __init__(self, target: Target, client: QdrantClient, name: str, memory: Memory) -> None:
        self.name = name
        self.memory = memory
        self._target = target
        self._client = client
        self._errors = _errors()

    def atomic(self) -> AbstractContextManager[object]:
        return nullcontext()

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

    def settle(self) -> None:
        """Qdrant indexes by itself, and each write has waited until it was done."""

    def remember(self, memory: Memory) -> None:
        with target_errors(self._target, *self._errors):
            self._client.update_collection(self.name, metadata={_KEY: memory.to_json()})
        self.memory = memory
