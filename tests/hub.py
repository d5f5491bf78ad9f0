"""A folder -> a stand-in for the hub on the loopback, as much of it as a download asks for.

In: a model folder and the id it is served under. Out: an address for HF_ENDPOINT, a list of what was asked.
Faults are arguments: `cut_after_bytes` breaks the first connection for the weights, `weights_status` and
`model_status` refuse. It stops with its `with` block.
Not here: Xet, uploads, other kinds of repositories.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = hashlib.sha1(b"the only commit of the stand-in").hexdigest()


class Hub(ThreadingHTTPServer):
    """Serves one model at one commit; `asked` holds (method, path, Range header)."""

    daemon_threads = True

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        cut_after_bytes: int | None = None,
        weights_status: int = 200,
        model_status: tuple[int, str] = (200, ""),
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.name = name
        self.cut_after_bytes = cut_after_bytes
        self.weights_status = weights_status
        self.model_status = model_status
        self.asked: list[tuple[str, str, str]] = []

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self) -> list[str]:
        """The files whose content was asked for, in order."""
        return [path.rpartition(f"{COMMIT}/")[2] for method, path, _ in self.asked if _is_content(method, path)]

    def ranges(self) -> list[str]:
        """The Range headers of those requests that went on where another broke."""
        return [asked_range for _, _, asked_range in self.asked if asked_range]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is not worth a word."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub answers while the block runs."""
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def _is_content(method: str, path: str) -> bool:
    return method == "GET" and "/resolve/" in path


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the tests read `asked`."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path, self.headers.get("Range", "")))
        status, code = self.server.model_status
        name = re.escape(self.server.name)
        if status != 200:
            self._send(status, b"{}", {"X-Error-Code": code})
        elif re.fullmatch(f"/api/models/{name}(/revision/(main|{COMMIT}))?", path):
            self._send_json(self._info())
        elif re.fullmatch(f"/api/models/{name}/tree/{COMMIT}", path):
            self._send_json(self._tree())
        elif found := re.fullmatch(f"/{name}/resolve/(?:main|{COMMIT})/(.+)", path):
            self._send_file(self.server.folder / found[1])
        else:
            code = "RevisionNotFound" if path.startswith(f"/api/models/{self.server.name}/") else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": code})

    def _files(self) -> list[Path]:
        return sorted(file for file in self.server.folder.rglob("*") if file.is_file())

    def _info(self) -> object:
        files = [{"rfilename": self._relative(file), "size": file.stat().st_size} for file in self._files()]
        return {
            "_id": "1",
            "id": self.server.name,
            "modelId": self.server.name,
            "sha": COMMIT,
            "siblings": files,
        }

    def _tree(self) -> object:
        return [
            {"type": "file", "path": self._relative(file), "size": file.stat().st_size, "oid": _etag(file)}
            for file in self._files()
        ]

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.server.folder).as_posix()

    def _send_json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send_file(self, file: Path) -> None:
        weights = file.suffix == ".safetensors"
        if not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        elif weights and self.server.weights_status != 200:
            self._send(self.server.weights_status, b"", {})
        else:
            self._send_content(file, cut=weights and self.command == "GET")

    def _send_content(self, file: Path, *, cut: bool) -> None:
        content, status = file.read_bytes(), 200
        headers = {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": COMMIT}
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, size = int(wanted[1]), len(content)
            content, status = content[start:], 206
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        limit = None
        if cut:
            limit, self.server.cut_after_bytes = self.server.cut_after_bytes, None
        self._send(status, content, headers, limit=limit)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, limit: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:limit])
            self.close_connection = limit is not None


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
