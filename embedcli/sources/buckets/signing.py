"""The signature of a request to S3: AWS Signature Version 4, in headers.

In: a request without a body, credentials. Out: the headers to send with it.
Not here: where credentials come from (credentials.py), sending (connection.py).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from urllib.parse import quote

NO_BODY = hashlib.sha256(b"").hexdigest()
_UNRESERVED = "-_.~"


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials: an access key, its secret, and the token of a session where they are for a time only."""

    access_key: str
    secret_key: str
    token: str = ""


def path_of(*names: str) -> str:
    """The path of a request. Every byte that is not a letter, a digit or one of `-_.~/` is encoded, and no `/` is
    added or taken away, so that it names the same key to the server and in the signature."""
    return "/" + "/".join(quote(name, safe=f"{_UNRESERVED}/") for name in names)


def query_of(parameters: Mapping[str, str]) -> str:
    """The query string of a request, in the order in which it is signed."""
    return "&".join(
        f"{quote(name, safe=_UNRESERVED)}={quote(value, safe=_UNRESERVED)}"
        for name, value in sorted(parameters.items())
    )


def signed(
    method: str, host: str, path: str, query: str, *, keys: Keys, region: str, now: datetime,
    more: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:  # fmt: skip
    """The headers with which a request is authentic, and those of `more`, whose names are in lower case: every one that
    begins with `x-amz-` must be signed."""
    time = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {**more, "host": host, "x-amz-content-sha256": NO_BODY, "x-amz-date": time}
    if keys.token:
        headers["x-amz-security-token"] = keys.token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = "\n".join((method, path, query, lines, names, NO_BODY))
    scope = f"{time[:8]}/{region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", time, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{keys.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    del headers["host"]  # the connection sends it
    return headers
