"""In front of every request: who asks, under which name, and how many are being answered.

In: a request. Out: the application's answer, or 401, 403 or 429; a line of figures for each.
Not here: limits of a single request (limits.py).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedcli.serving.answers import Problem, problem_answer
from embedcli.serving.metrics import Figures
from embedcli.serving.server import is_local
from embedcli.serving.service import Access

OPEN_PATHS = frozenset({"/health"})
KEY_WANTED = {"WWW-Authenticate": 'Basic realm="embedcli: any name, the API key as the password", charset="UTF-8"'}
"""A browser asks for the key by itself."""

ENDED = Problem(503, "this server has ended", code="ended", retry_after_s=10)


class Guard:
    def __init__(
        self, app: ASGIApp, *, access: Access, figures: Figures, paths: Collection[str], most_requests: int
    ) -> None:
        self._app = app
        self._access = access
        self._figures = figures
        self._paths = paths
        self._most_requests = most_requests
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started_s, status, begun = time.monotonic(), 500, False

        async def noting(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
            await send(message)

        self._requests += 1
        try:
            problem = self._problem(scope)
            answer = self._app if problem is None else problem_answer(problem)
            await answer(scope, receive, noting)
        except asyncio.CancelledError:
            # the server ends, and has waited long enough; uvicorn would log it as a bug
            if not begun:
                await problem_answer(ENDED)(scope, receive, noting)
        finally:
            self._requests -= 1
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._figures.note(path, status, time.monotonic() - started_s)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        if not self._access.any_host and not is_local(_name(headers.get("host", ""))):
            return Problem(403, "this server is for programs of this machine: ask it as `localhost` or `127.0.0.1`")
        if scope["path"] in OPEN_PATHS:
            return None
        if self._access.api_key is not None and not _has_key(headers.get("authorization", ""), self._access.api_key):
            return Problem(401, "the API key is missing or wrong", code="invalid_api_key", headers=KEY_WANTED)
        if self._requests > self._most_requests:
            return Problem(429, f"{self._most_requests:,} requests are being answered", code="too_many_requests",
                           retry_after_s=1)  # fmt: skip
        return None


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def _has_key(header: str, api_key: str) -> bool:
    kind, _, value = header.partition(" ")
    if kind.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif kind.lower() != "bearer":
        return False
    value = value.strip()
    # the server reads headers as latin-1, and clients send UTF-8
    sent = (value.encode(), value.encode("latin-1", "replace"))
    return any([hmac.compare_digest(one, api_key.encode()) for one in sent])
