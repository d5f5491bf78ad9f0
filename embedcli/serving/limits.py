"""How much a request may bring.

In: a request that is still arriving. Out: its body as JSON, or a Problem that names the limit and its flag.
Not here: how many tokens may wait (batcher.py), how long a text may be (served.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from embedcli.errors import UsageError
from embedcli.serving.answers import ClientLeft, Problem, wrong

READ_ON = 4
"""How many times the limit is read and thrown away, so that a client that only sends at first sees the answer."""


@dataclass(frozen=True)
class Limits:
    """`body_bytes` and `texts` of one request; `queue_tokens` that may wait, of all of them; `requests` at once."""

    body_bytes: int = 16 << 20
    texts: int = 2048
    queue_tokens: int = 1 << 20
    requests: int = 1024

    def __post_init__(self) -> None:
        for flag, value in (
            ("--max-body", self.body_bytes),
            ("--max-texts", self.texts),
            ("--max-queue", self.queue_tokens),
        ):
            if value < 1:
                raise UsageError(f"`{flag}` must be at least 1", "leave the flag out for the default")


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """The body, an object. Raises Problem, ClientLeft."""
    try:
        body = orjson.loads(await _read(request, limits.body_bytes))
    except ValueError as error:
        raise wrong(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise wrong("the body must be a JSON object")
    return body


async def _read(request: Request, most_bytes: int) -> bytes:
    kept, size = bytearray(), 0
    try:
        async for part in request.stream():
            size += len(part)
            if size <= most_bytes:
                kept += part
            elif size > READ_ON * most_bytes:
                break
    except ClientDisconnect:
        raise ClientLeft from None
    if size > most_bytes:
        raise Problem(413, f"the body has more than {most_bytes:,} bytes (`--max-body`)", code="body_too_large")
    return bytes(kept)
