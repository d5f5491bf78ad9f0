"""Answers as bytes, and every error in the form of OpenAI's API.

In: values, or a Problem. Out: Starlette responses. 429 and 503 say when to come again.
Not here: what is wrong (whoever raises the Problem).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

JSON = "application/json"
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
"""What OpenAI calls each status; every other one is a `server_error`."""

CLIENT_LEFT = 499


class Problem(Exception):
    """Why a request gets no answer. `code` is for programs, `param` the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


def wrong(message: str, param: str | None = None, code: str | None = None) -> Problem:
    """A 400: the request itself is wrong."""
    return Problem(400, message, param=param, code=code)


def json_answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(dumped(content), status, headers, JSON)


def dumped(content: Any) -> bytes:
    """As JSON; floats of numpy with the fewest digits that give the same float32."""
    try:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # a whole number of more than 64 bits, as `meta` may have
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def problem_answer(problem: Problem) -> Response:
    error = {
        "message": problem.message,
        "type": KINDS.get(problem.status, "server_error"),
        "param": problem.param,
        "code": problem.code,
    }
    return json_answer({"error": error}, problem.status, problem.headers)
