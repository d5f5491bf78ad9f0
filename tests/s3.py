"""A real S3 server, moto in a process of its own, and a proxy before it that does what networks and other stores do.

In: nothing, or rules for requests. Out: buckets by their URLs, and the environment that reaches them.
Not here: any expectation.
"""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

START_S = 300.0
NOT_PASSED = {"connection", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class S3:
    """`endpoint`: the server's URL."""

    endpoint: str

    def bucket(self) -> str:
        """The URL of a new, empty bucket."""
        name = f"b-{secrets.token_hex(8)}"
        connection = http.client.HTTPConnection(self.endpoint.removeprefix("http://"))
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
        connection.close()
        return f"s3://{name}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }  # fmt: skip


@contextmanager
def nobody_listens() -> Iterator[str]:
    """The URL of a port that refuses whoever connects, and that nobody else gets meanwhile."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{kept.getsockname()[1]}"


@contextmanager
def moto_server(folder: Path) -> Iterator[S3]:
    """The server is no child of this process, for other tests count those; it ends with the pipe that is its stdin. It
    is given a socket that listens already: a port that is only chosen may be somebody else's before it has started."""
    log = folder / "moto.log"
    lifeline, ours = os.pipe()
    try:
        with (
            os.fdopen(lifeline, "rb") as stdin, log.open("wb") as output,
            socket.create_server(("127.0.0.1", 0), backlog=128) as listening,
        ):  # fmt: skip
            address = f"127.0.0.1:{listening.getsockname()[1]}"
            command = [sys.executable, str(Path(__file__).with_name("moto_driver.py")), str(listening.fileno())]
            subprocess.run(
                command, stdin=stdin, stdout=output, stderr=output, check=True, pass_fds=[listening.fileno()]
            )
        _wait_until_it_answers(address, log)
        yield S3(f"http://{address}")
    finally:
        os.close(ours)


def _wait_until_it_answers(address: str, log: Path) -> None:
    connection = http.client.HTTPConnection(address, timeout=START_S)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except OSError as error:
        raise AssertionError(log.read_text()) from error
    finally:
        connection.close()


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def is_conditional(self) -> bool:
        return bool({"if-match", "if-none-match"} & {name.lower() for name in self.headers})


@dataclass
class Proxy:
    """Passes requests on. `before` may answer in place of the server: (status, body), or change nothing (None);
    `strip` names headers that are not passed on; `lose` says of which requests the answer is lost after the server has
    acted. `passed` counts what came through, `sent_bytes` and `got_bytes` the bodies."""

    server: S3
    before: Callable[[Request], tuple[int, bytes] | None] = lambda request: None
    strip: frozenset[str] = frozenset()
    lose: Callable[[Request], bool] = lambda request: False
    passed: list[Request] = field(default_factory=list)
    lost: int = 0
    sent_bytes: int = 0
    got_bytes: int = 0

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in self.strip}
        request = Request(handler.command, handler.path, headers, handler.rfile.read(length))
        answer = self.before(request)
        if answer is not None:
            _answer(handler, answer[0], {}, answer[1])
            return
        connection = http.client.HTTPConnection(self.server.endpoint.removeprefix("http://"))
        connection.request(request.method, request.path, request.body, request.headers)
        found = connection.getresponse()
        body = found.read()
        self.passed.append(request)
        self.sent_bytes += len(request.body)
        self.got_bytes += len(body)
        if self.lose(request):
            self.lost += 1
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            _answer(handler, found.status, dict(found.getheaders()), body)
        connection.close()


def _answer(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    handler.send_response_only(status)
    length = headers.get("Content-Length", headers.get("content-length"))
    for name, value in headers.items():
        if name.lower() not in NOT_PASSED:
            handler.send_header(name, value)
    handler.send_header("Content-Length", length if handler.command == "HEAD" and length else str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


@contextmanager
def proxied(proxy: Proxy) -> Iterator[S3]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            proxy.serve(self)

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield S3(f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
