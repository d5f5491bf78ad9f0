"""Chroma, embedded or a server, by chromadb.

In: a folder or a URL (a token as the URL's password, or in CHROMA_API_KEY). Out: a collection NAME whose records have
the chunk id, the text as document, and the columns as metadata; a load fills NAME-next, which is renamed. Metadata
takes no null, and a record that is written again keeps old metadata: a changed record is deleted first. Of `meta`,
the JSON is kept as text, and each plain value also as `meta.KEY`, so that it can be filtered by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa

from embedcli.stores import rows as reading
from embedcli.stores.contract import Layout, Memory, batches, id_batches, versions_table
from embedcli.stores.target import Target, not_ours, target_errors

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

    from embedcli.report import Report

_KEY = "embedcli"
_NEXT = "-next"
_PAGE = 5000


def connect(target: Target) -> ChromaStore:
    import chromadb
    from chromadb.config import Settings

    settings = Settings(anonymized_telemetry=False)
    with target_errors(target, *_errors()):
        if target.path is not None:
            return ChromaStore(target, chromadb.PersistentClient(str(target.path), settings=settings))
        parts = urlsplit(target.bare_url)
        key = target.password or target.key
        client = chromadb.HttpClient(
            host=parts.hostname or "localhost",
            port=parts.port or (443 if parts.scheme == "https" else 8000),
            ssl=parts.scheme == "https",
            headers={"x-chroma-token": key} if key else {},
            settings=settings,
        )
        return ChromaStore(target, client)


def _errors() -> tuple[type[Exception], ...]:
    import httpx
    from chromadb.errors import ChromaError, InternalError

    return (ChromaError, InternalError, httpx.HTTPError, ValueError, RuntimeError, OSError)


class ChromaStore:
    def __init__(self, target: Target, client: ClientAPI) -> None:
        self._target = target
        self._client = client
        self._errors = _errors()

    def live(self) -> ChromaTable | None:
        """The collection; if a kill came between dropping the old one and renaming the new one, the new one."""
        name = self._target.table
        if (following := self._dropped_for()) is not None:
            return following
        table = self._open(name)
        if table is None and self._exists(name):
            raise not_ours(self._target)
        return table

    def _dropped_for(self) -> ChromaTable | None:
        """The loaded collection for which the old one was dropped, and which was not renamed yet."""
        following = self._open(self._target.table + _NEXT)
        unnamed = following is not None and following.memory.finished and not self._exists(self._target.table)
        return following if unnamed else None

    def finish_swap(self) -> None:
        if self._dropped_for() is not None:
            self.swap_in()

    def unfinished(self) -> ChromaTable | None:
        return self._open(self._target.table + _NEXT)

    def _exists(self, name: str) -> bool:
        from chromadb.errors import NotFoundError

        with target_errors(self._target, *self._errors):
            try:
                self._client.get_collection(name, embedding_function=None)
            except NotFoundError:
                return False
        return True

    def _open(self, name: str) -> ChromaTable | None:
        if not self._exists(name):
            return None
        with target_errors(self._target, *self._errors):
            collection = self._client.get_collection(name, embedding_function=None)
            most = min(self._client.get_max_batch_size(), _PAGE)
        memory = Memory.from_json((collection.metadata or {}).get(_KEY))
        return None if memory is None else ChromaTable(self._target, collection, memory, most)

    def begin(self, layout: Layout, memory: Memory) -> ChromaTable:
        name = self._target.table + _NEXT
        if self._exists(name):
            if self._open(name) is None:
                raise not_ours(self._target)
            self.drop_unfinished()
        with target_errors(self._target, *self._errors):
            self._client.create_collection(
                name,
                embedding_function=None,
                configuration={"hnsw": {"space": "cosine"}},
                metadata={_KEY: memory.to_json()},
            )
        table = self._open(name)
        assert table is not None
        return table

    def swap_in(self) -> None:
        """Two steps, with no collection of the name in between."""
        name = self._target.table
        exists = self._exists(name)
        with target_errors(self._target, *self._errors):
            if exists:
                self._client.delete_collection(name)
            self._client.get_collection(name + _NEXT, embedding_function=None).modify(name=name)

    def drop_unfinished(self) -> None:
        if self.unfinished() is not None:
            with target_errors(self._target, *self._errors):
                self._client.delete_collection(self._target.table + _NEXT)

    def close(self) -> None:
        """Let go of the files of an embedded Chroma."""
        if self._target.path is not None:
            self._client.close()


class ChromaTable:
    def __init__(self, target: Target, collection: Any, memory: Memory, most: int) -> None:
        self._target = target
        self._collection = collection
        self._errors = _errors()
        self._most = most
        self.memory = memory

    def atomic(self) -> AbstractContextManager[object]:
        return nullcontext()

    def upsert(self, rows: Iterable[pa.Table], *, fresh: bool) -> None:
        with target_errors(self._target, *self._errors):
            for batch in batches(rows, self._most):
                ids = reading.ids_of(batch)
                if not fresh:
                    self._collection.delete(ids=ids)
                self._collection.upsert(
                    ids=ids,
                    embeddings=reading.vectors(batch),
                    documents=[text or "" for text in batch.column("text").to_pylist()],
                    metadatas=[_metadata(row) for row in reading.plain(batch)],
                )

    def delete(self, ids: Sequence[str]) -> None:
        with target_errors(self._target, *self._errors):
            for part in id_batches(ids, self._most):
                self._collection.delete(ids=part)

    def versions(self) -> Iterator[pa.Table]:
        offset = 0
        while True:
            with target_errors(self._target, *self._errors):
                page = self._collection.get(include=["metadatas"], limit=_PAGE, offset=offset)
            if not page["ids"]:
                return
            yield versions_table(page["ids"], [int((row or {}).get("changed_in", -1)) for row in page["metadatas"]])
            offset += len(page["ids"])

    def count(self) -> int:
        with target_errors(self._target, *self._errors):
            return int(self._collection.count())

    def settle(self, report: Report) -> None:
        """Chroma indexes by itself."""

    def remember(self, memory: Memory) -> None:
        with target_errors(self._target, *self._errors):
            self._collection.modify(metadata={_KEY: memory.to_json()})
        self.memory = memory


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    """The columns but id and text, without nulls."""
    meta = row["meta"]
    plain = {name: value for name, value in row.items() if name not in ("chunk_id", "text", "meta")}
    if meta is not None:
        plain["meta"] = json.dumps(meta, ensure_ascii=False)
    if isinstance(meta, dict):
        plain |= {f"meta.{key}": value for key, value in meta.items() if isinstance(value, str | int | float)}
    return {name: value for name, value in plain.items() if value is not None}
