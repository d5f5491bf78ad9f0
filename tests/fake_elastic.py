"""A recorder on the loopback that answers as much of Elasticsearch's and OpenSearch's HTTP interface as `sync` uses.

In: requests of the official clients. Out: `requests`, byte for byte; `indices` and `aliases`, kept in memory by the
documented rules of `_bulk`, `_aliases` and `_mapping`. No search, no analysis: it is no server, and stands for none.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit


@dataclass
class Request:
    """`headers` by their names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeIndex:
    mappings: dict[str, Any]
    settings: dict[str, Any]
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)


class FakeElastic:
    """`refuse`: a status for every request; `refuse_ids`: documents that `_bulk` refuses."""

    def __init__(self, *, product: bool = True) -> None:
        self.product = product
        self.requests: list[Request] = []
        self.indices: dict[str, FakeIndex] = {}
        self.aliases: dict[str, str] = {}
        self.refuse = 0
        self.refuse_ids: set[str] = set()
        self._pages: dict[str, list[list[Any]]] = {}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                owner.requests.append(Request(self.command, self.path, headers, body))
                status, data = owner.handle(self.command, urlsplit(self.path).path, body)
                said = json.dumps(data).encode()
                self.send_response(status)
                if owner.product:
                    self.send_header("X-Elastic-Product", "Elasticsearch")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(said)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def bulks(self) -> list[Request]:
        return [request for request in self.requests if request.path.endswith("/_bulk")]

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if self.refuse:
            return self.refuse, {"error": {"type": "security_exception", "reason": "refused"}, "status": self.refuse}
        parts = path.strip("/").split("/")
        if parts == [""]:
            return 200, {"version": {"number": "9.1.0" if self.product else "3.0.0"}, "tagline": "You Know, for Search"}
        if parts[0] == "_aliases":
            return self._change_aliases(json.loads(body)["actions"])
        if parts[0] == "_alias":
            found = self.aliases.get(parts[1])
            return (200, {found: {"aliases": {parts[1]: {}}}}) if found else (404, {"error": "missing", "status": 404})
        if parts[:2] == ["_search", "scroll"]:
            return 200, {} if method == "DELETE" else self._page(json.loads(body)["scroll_id"])
        if len(parts) == 1:
            return self._whole_index(method, parts[0], body)
        index = self.indices.get(self.aliases.get(parts[0], parts[0]))
        return (
            (404, {"error": "no such index", "status": 404}) if index is None else self._of(index, parts, method, body)
        )

    def _whole_index(self, method: str, name: str, body: bytes) -> tuple[int, Any]:
        if method == "PUT":
            data = json.loads(body)
            if name in self.indices or name in self.aliases:
                return 400, {"error": {"type": "resource_already_exists_exception"}, "status": 400}
            self.indices[name] = FakeIndex(data["mappings"], data["settings"])
        elif self.aliases.get(name, name) not in self.indices:
            return 404, {"error": "no such index", "status": 404}
        elif method == "DELETE":
            del self.indices[name]
            self.aliases = {alias: index for alias, index in self.aliases.items() if index != name}
        return 200, {"acknowledged": True}

    def _of(self, index: FakeIndex, parts: list[str], method: str, body: bytes) -> tuple[int, Any]:
        if parts[1] == "_mapping":
            if method == "PUT":
                index.mappings |= json.loads(body)
                return 200, {"acknowledged": True}
            return 200, {parts[0]: {"mappings": index.mappings}}
        if parts[1] == "_bulk":
            return 200, self._bulk(index, body)
        if parts[1] == "_count":
            return 200, {"count": len(index.documents)}
        if parts[1] == "_search":
            return 200, self._search(index, json.loads(body))
        return 200, {"_shards": {}}

    def _change_aliases(self, actions: list[dict[str, dict[str, str]]]) -> tuple[int, Any]:
        for action in actions:
            for verb, given in action.items():
                if verb == "add":
                    self.aliases[given["alias"]] = given["index"]
                else:
                    assert verb == "remove_index"
                    del self.indices[given["index"]]
        return 200, {"acknowledged": True}

    def _bulk(self, index: FakeIndex, body: bytes) -> dict[str, Any]:
        assert body.endswith(b"\n"), "the last line of a bulk body ends in a newline, too"
        items, lines = [], iter(body.splitlines())
        for line in lines:
            ((action, given),) = json.loads(line).items()
            document = json.loads(next(lines)) if action == "index" else None
            items.append({action: {"_id": given["_id"], **self._act(index, action, given["_id"], document)}})
        errors = any(next(iter(item.values()))["status"] >= 400 for item in items)
        return {"errors": errors, "items": items}

    def _act(self, index: FakeIndex, action: str, chunk_id: str, document: Any) -> dict[str, Any]:
        if chunk_id in self.refuse_ids:
            return {"status": 400, "error": {"type": "document_parsing_exception", "reason": "no"}}
        if action == "delete":
            return {"status": 200 if index.documents.pop(chunk_id, None) else 404}
        unknown = document.keys() - index.mappings["properties"].keys()
        if unknown:
            return {"status": 400, "error": {"type": "strict_dynamic_mapping_exception", "reason": sorted(unknown)}}
        index.documents[chunk_id] = document
        return {"status": 201}

    def _search(self, index: FakeIndex, query: dict[str, Any]) -> dict[str, Any]:
        columns = query["_source"]
        hits = [
            {"_id": chunk_id, "_source": {name: document[name] for name in columns}}
            for chunk_id, document in index.documents.items()
        ]
        size = min(query["size"], 7)  # several pages
        scroll = f"scroll-{len(self._pages)}"
        self._pages[scroll] = [hits[start : start + size] for start in range(0, len(hits), size)]
        return self._page(scroll)

    def _page(self, scroll: str) -> dict[str, Any]:
        left = self._pages[scroll]
        return {"_scroll_id": scroll, "hits": {"hits": left.pop(0) if left else []}}
