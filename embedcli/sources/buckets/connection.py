"""Requests to one HTTP server: kept connections, proxies, another try after what passes.

In: a request, and how it is signed. Out: the answer, whatever its status, or BucketError where there is none.
Not here: what is asked, and what an answer means (s3.py).
"""

from __future__ import annotations

import base64
import http.client
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from embedcli.errors import BucketError
from embedcli.records import Beat
from embedcli.sources.buckets.contract import no_beat

TRIES = 5
FIRST_PAUSE_S = 0.4
SILENT_S = 10.0
"""How long a server may say nothing. A reading process must give a sign of life every 20 s."""
BLOCK_BYTES = 1 << 20
PASSING = frozenset({429, 500, 502, 503, 504})

Sign = Callable[[], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` by their names in lower case; of one that comes again, the last."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """The way to one server. Each thread has a connection of its own."""

    def __init__(self, endpoint: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """`endpoint`: `https://host` or `http://host:port`, with a path where the server lies below one. Raises
        BucketError for anything else."""
        self._server = urlsplit(endpoint)
        if self._server.scheme not in ("http", "https") or not self._server.hostname:
            raise BucketError("io", f"AWS_ENDPOINT_URL must be like `http://host:9000`, not `{endpoint}`")
        self._sleep = sleep
        self._own = threading.local()

    @property
    def folder(self) -> str:
        """What stands before every path."""
        return self._server.path.rstrip("/")

    @property
    def host(self) -> str:
        """As it stands in the header `Host`."""
        name, port = self._server.hostname or "", self._server.port
        name = f"[{name}]" if ":" in name else name
        usual = 443 if self._server.scheme == "https" else 80
        return name if port in (None, usual) else f"{name}:{port}"

    def ask(self, target: str, sign: Sign, *, method: str = "GET", beat: Beat = no_beat) -> Answer:
        """The answer to a request, after at most TRIES. Raises BucketError (`io`) where no server answers."""
        for number in range(TRIES):
            if number:
                pause_s: float = FIRST_PAUSE_S * 2 ** (number - 1)
                self._sleep(pause_s * random.uniform(0.75, 1.25))
                beat(0)
            answer = self._once(method, target, sign(), beat)
            if isinstance(answer, Answer) and answer.status not in PASSING:
                return answer
        if isinstance(answer, Answer):
            return answer
        raise BucketError("io", f"`{self._server.scheme}://{self.host}` cannot be reached: {answer}")

    def _once(self, method: str, target: str, headers: Mapping[str, str], beat: Beat) -> Answer | str:
        """The answer, or why there is none. A kept connection may have been closed by the server: that is no try."""
        kept: _Kept | None = getattr(self._own, "kept", None)
        self._own.kept = None
        try:
            if kept is not None:
                with suppress(ConnectionError, http.client.HTTPException):
                    return self._exchange(kept, method, target, headers, beat)
            return self._exchange(_Kept(_connect(self._server)), method, target, headers, beat)
        except TimeoutError:
            return f"no answer within {SILENT_S:g} s"
        except (OSError, ValueError, http.client.HTTPException) as error:
            return str(getattr(error, "strerror", None) or error or type(error).__name__)

    def _exchange(self, kept: _Kept, method: str, target: str, headers: Mapping[str, str], beat: Beat) -> Answer:
        client = kept.client
        client.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"host": self.host, **headers}.items():
            client.putheader(name, value)
        client.endheaders()
        with client.getresponse() as response:
            body = bytearray()
            while block := response.read(BLOCK_BYTES):
                body += block
                beat(0)
            if response.length:
                raise http.client.IncompleteRead(bytes(body), response.length)
            found = {name.lower(): value for name, value in response.getheaders()}
        if not response.will_close:
            self._own.kept = kept
        return Answer(response.status, found, bytes(body))


class _Kept:
    """A connection that is closed as soon as nobody holds it: when its thread ends, or the bucket goes."""

    def __init__(self, client: http.client.HTTPConnection) -> None:
        self.client = client

    def __del__(self) -> None:
        self.client.close()


def _connect(server: SplitResult) -> http.client.HTTPConnection:
    """A connection; one with TLS by way of the proxy that HTTPS_PROXY and NO_PROXY say."""
    host = server.hostname or ""
    if server.scheme != "https":
        return http.client.HTTPConnection(host, server.port or 80, timeout=SILENT_S)
    proxy = "" if proxy_bypass(host) else getproxies().get("https", "")
    way = urlsplit(proxy if "://" in proxy else f"http://{proxy}") if proxy else server
    port = way.port or (80 if proxy else 443)
    context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)
    client = http.client.HTTPSConnection(way.hostname or "", port, timeout=SILENT_S, context=context)
    if proxy:
        client.set_tunnel(host, server.port or 443, headers=_proxy_headers(way))
    return client


def _proxy_headers(way: SplitResult) -> dict[str, str]:
    if way.username is None:
        return {}
    pair = f"{unquote(way.username)}:{unquote(way.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}
