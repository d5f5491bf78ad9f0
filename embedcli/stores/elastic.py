"""Elasticsearch and OpenSearch, by their official clients.

In: a URL (`user:password` in it, or an API key in ELASTIC_API_KEY). Out: an alias NAME, which points to the index
NAME-a or NAME-b, so that a load swaps in by one change of the alias. Rows go through `_bulk`, with the chunk id as
`_id`; the memory is the mapping's `_meta`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from embedcli.errors import TargetError
from embedcli.stores.aliased import AliasedStore, Collection, Errors
from embedcli.stores.contract import Layout, Memory, batches, id_batches, versions_table
from embedcli.stores.formats import documents
from embedcli.stores.target import Target, target_error, target_errors

if TYPE_CHECKING:
    from embedcli.report import Report

_KEY = "embedcli"
_BATCH = 500
_IDS = 5000
_PAGE = 5000
_TIMEOUT_S = 120
_LONGEST_KEYWORD = 8191
"""Lucene refuses keywords over 32,766 bytes: longer values stay in the document, but cannot be filtered by."""


def connect(target: Target) -> ElasticStore:
    client: Any
    errors: Errors
    login = (target.user, target.password) if target.user and target.password else None
    if target.kind == "opensearch":
        import opensearchpy

        errors = (opensearchpy.OpenSearchException,)
        client = opensearchpy.OpenSearch(target.bare_url, http_auth=login, timeout=_TIMEOUT_S)
    else:
        import elastic_transport
        import elasticsearch

        errors = (elasticsearch.ApiError, elastic_transport.TransportError, ValueError)
        key = None if login else target.key
        client = elasticsearch.Elasticsearch(target.bare_url, basic_auth=login, api_key=key, request_timeout=_TIMEOUT_S)
    with target_errors(target, *errors):
        client.info()  # a server that cannot be reached, or refuses, is known now
    return ElasticStore(target, client, errors)


class ElasticStore(AliasedStore["ElasticTable"]):
    def __init__(self, target: Target, client: Any, errors: Errors) -> None:
        alias = target.table.lower()  # an index has no capitals
        super().__init__(target, client, errors, alias=alias, names=(f"{alias}-a", f"{alias}-b"))

    def _live_name(self) -> str | None:
        if not self._client.indices.exists_alias(name=self._alias):
            return None
        return str(next(iter(self._client.indices.get_alias(name=self._alias))))

    def _is_taken(self, name: str) -> bool:
        return bool(self._client.indices.exists(index=name))

    def _open(self, name: str) -> ElasticTable | None:
        with target_errors(self._target, *self._errors):
            if not self._is_taken(name):
                return None
            mapping = self._client.indices.get_mapping(index=name)[name]["mappings"]
        memory = Memory.from_json(mapping.get("_meta", {}).get(_KEY))
        return None if memory is None else ElasticTable(self._target, self._client, self._errors, name, memory)

    def _make(self, name: str, layout: Layout, memory: Memory) -> ElasticTable:
        mappings = {"_meta": {_KEY: memory.to_json()}, **_mappings(layout, self._target.kind)}
        settings = {"index": {"knn": True}} if self._target.kind == "opensearch" else {}
        self._client.indices.create(index=name, body={"mappings": mappings, "settings": settings})
        return ElasticTable(self._target, self._client, self._errors, name, memory)

    def _drop(self, name: str) -> None:
        self._client.indices.delete(index=name)

    def _point_alias(self, old: str | None, new: str) -> None:
        actions: list[dict[str, Any]] = [{"add": {"index": new, "alias": self._alias}}]
        if old is not None:
            actions.append({"remove_index": {"index": old}})
        self._client.indices.update_aliases(body={"actions": actions})

    def close(self) -> None:
        self._client.close()


def _mappings(layout: Layout, kind: str) -> dict[str, Any]:
    """Strict: a column that is not named here is an error, not a guess."""
    properties: dict[str, Any] = {}
    for field in layout.schema:
        if pa.types.is_timestamp(field.type):
            properties[field.name] = {"type": "date"}
        elif pa.types.is_integer(field.type):
            properties[field.name] = {"type": "integer" if str(field.type) == "int32" else "long"}
        else:
            properties[field.name] = {"type": "keyword", "ignore_above": _LONGEST_KEYWORD}
    properties["text"] = {"type": "text"}
    for name in ("title", "section"):
        properties[name] = {"type": "text", "fields": {"keyword": properties[name]}}
    if kind == "opensearch":
        method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
        properties["meta"] = {"type": "flat_object"}
        properties["vector"] = {"type": "knn_vector", "dimension": layout.dim, "method": method}
    else:
        properties["meta"] = {"type": "flattened", "ignore_above": _LONGEST_KEYWORD}
        properties["vector"] = {"type": "dense_vector", "dims": layout.dim, "index": True, "similarity": "cosine"}
    return {"dynamic": "strict", "properties": properties}


class ElasticTable(Collection):
    def upsert(self, rows: Iterable[pa.Table], *, fresh: bool) -> None:
        """`index` replaces a document of a known id whole."""
        for batch in batches(rows, _BATCH):
            lines: list[dict[str, Any]] = []
            for document in documents(batch):
                lines += [{"index": {"_id": document["chunk_id"]}}, document]
            self._bulk(lines)

    def delete(self, ids: Sequence[str]) -> None:
        for part in id_batches(ids, _IDS):
            self._bulk([{"delete": {"_id": chunk_id}} for chunk_id in part])

    def _bulk(self, lines: list[dict[str, Any]]) -> None:
        """Raises TargetError for the first action that was refused; a delete of what is not there is no refusal."""
        with target_errors(self._target, *self._errors):
            answer = self._client.bulk(index=self.name, body=lines)
        for item in answer["items"] if answer["errors"] else ():
            for action, result in item.items():
                if result.get("status", 200) >= 400 and not (action == "delete" and result["status"] == 404):
                    said = json.dumps(result.get("error", result), ensure_ascii=False)
                    raise target_error(self._target, TargetError(f"row `{result.get('_id')}` was refused: {said}"))

    def versions(self) -> Iterator[pa.Table]:
        """By scrolling: search results are bounded, scrolls are not."""
        self._refresh()
        with target_errors(self._target, *self._errors):
            query = {"query": {"match_all": {}}, "_source": ["changed_in"], "size": _PAGE, "sort": ["_doc"]}
            page = self._client.search(index=self.name, scroll="5m", body=query)
            while hits := page["hits"]["hits"]:
                yield versions_table([hit["_id"] for hit in hits], [hit["_source"]["changed_in"] for hit in hits])
                page = self._client.scroll(body={"scroll_id": page["_scroll_id"], "scroll": "5m"})
            self._client.clear_scroll(body={"scroll_id": [page["_scroll_id"]]})

    def count(self) -> int:
        self._refresh()
        with target_errors(self._target, *self._errors):
            return int(self._client.count(index=self.name)["count"])

    def _refresh(self) -> None:
        with target_errors(self._target, *self._errors):
            self._client.indices.refresh(index=self.name)

    def settle(self, report: Report) -> None:
        """Let searches see what was written; it is indexed as it is written."""
        self._refresh()

    def _keep(self, memory: Memory) -> None:
        self._client.indices.put_mapping(index=self.name, body={"_meta": {_KEY: memory.to_json()}})
