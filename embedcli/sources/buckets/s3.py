"""A bucket of S3, or of a server that speaks its protocol, by its own two requests: list, and get a range.

In: a bucket's name, the environment (AWS_ENDPOINT_URL, AWS_REGION, what credentials.py reads). Out: pages and parts.
Keys are what the server says, byte by byte. obstore cannot name `a//b`, `/a` and `a/`: one such key ends its listing of
a whole bucket, or is taken for another key (https://github.com/apache/arrow-rs-object-store/issues/341).
Not here: HTTP (connection.py), the order of a walk (listing.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from embedcli.errors import BucketError
from embedcli.records import COLD_STORAGE, Beat, Stat
from embedcli.sources.buckets.connection import Answer, Connection
from embedcli.sources.buckets.contract import ENDPOINTS, Page, Part, no_beat, object_stat, tag_of
from embedcli.sources.buckets.credentials import Credentials, region_of
from embedcli.sources.buckets.side_by_side import SideBySide
from embedcli.sources.buckets.signing import path_of, query_of, signed
from embedcli.vault.buckets import EXPIRED, REFUSED

_TOKEN = re.compile(rb"<NextContinuationToken>([^<]*)</NextContinuationToken>")
_TRUNCATED = re.compile(rb"<IsTruncated>\s*true\s*<")
_COUNT = re.compile(rb"<KeyCount>\s*([0-9]+)\s*<")
_CONTENTS = re.compile(rb"<Contents>(.*?)</Contents>", re.DOTALL)
_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_SIZE = re.compile(rb"<Size>\s*([0-9]+)\s*</Size>")
_TIME = re.compile(rb"<LastModified>([^<]*)</LastModified>")
_ETAG = re.compile(rb"<ETag>([^<]*)</ETag>")
_COLD = re.compile(rb"<StorageClass>(?:GLACIER|DEEP_ARCHIVE)</StorageClass>")
_RESTORED = re.compile(rb"<RestoreExpiryDate>")
_REFERENCE = re.compile(rb"&(?:#([0-9]+)|#x([0-9a-fA-F]+)|(lt|gt|amp|quot|apos));")
_NAMED = {b"lt": b"<", b"gt": b">", b"amp": b"&", b"quot": b'"', b"apos": b"'"}
_CODE = re.compile(rb"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]*)</Message>")
_REGION = re.compile(rb"<Region>([^<]*)</Region>")
_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")
_REFUSED = (*REFUSED, "RequestTimeTooSkewed", "AuthFailure")


class S3:
    """One bucket; used by any number of threads."""

    def __init__(
        self, bucket: str, environment: Mapping[str, str] = os.environ, *, connection: Connection | None = None
    ) -> None:
        self._bucket = bucket
        self._credentials = Credentials(environment)
        self._region = region_of(environment)
        self._fixed = next((environment[name] for name in ENDPOINTS if environment.get(name)), "")
        self._connection = connection or Connection(self._endpoint())

    def _endpoint(self) -> str:
        suffix = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        return self._fixed or f"https://s3.{self._region}.{suffix}"

    def pages(self, prefix: str) -> Iterator[Page]:
        def ask(after: str, token: str) -> tuple[Page, str]:
            body = self._listed(prefix, after, token)
            following = _TOKEN.search(body)
            return page_in(body, tells_cold=self._tells_cold), _text(following[1]).decode() if following else ""

        return SideBySide(ask, prefix=prefix).pages()

    def _listed(self, prefix: str, after: str, token: str) -> bytes:
        asked = {"list-type": "2", "prefix": prefix}
        asked |= {"continuation-token": token} if token else {"start-after": after} if after else {}
        headers = {"x-amz-optional-object-attributes": "RestoreStatus"} if self._tells_cold else {}
        answer = self._ask(path_of(self._bucket), query_of(asked), headers)
        if answer.status != 200:
            raise self._error(answer, f"s3://{self._bucket}")
        if not _is_whole(answer.body):
            raise BucketError("io", f"`s3://{self._bucket}`: what the server answers is no whole listing")
        return answer.body

    @property
    def _tells_cold(self) -> bool:
        """Whether a listing says what is in cold storage and what was restored: other servers refuse to be asked."""
        return self._connection.host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

    def part(self, key: str, start: int, stop: int, *, etag: str | None = None, beat: Beat = no_beat) -> Part:
        headers = {"range": f"bytes={start}-{stop - 1}", **({"if-match": etag} if etag else {})}
        answer = self._ask(path_of(self._bucket, key), "", headers, beat=beat)
        if answer.status == 416 and not start:  # an empty object has no first byte
            answer = self._ask(path_of(self._bucket, key), "", {}, beat=beat)
        if answer.status not in (200, 206):
            raise self._error(answer, f"s3://{self._bucket}/{key}")
        found = _RANGE.match(answer.headers.get("content-range", ""))
        if found is None:  # a server that knows no ranges gives the whole object
            return Part(answer.body[start:stop], len(answer.body), *_version(answer))
        return Part(answer.body, int(found[3]), *_version(answer))

    def stat(self, key: str) -> Stat:
        answer = self._ask(path_of(self._bucket, key), "", {}, method="HEAD")
        if answer.status != 200:
            raise self._error(answer, f"s3://{self._bucket}/{key}")
        modified_s, etag = _version(answer)
        return object_stat(int(answer.headers.get("content-length", "0")), modified_s, tag_of(etag))

    def _ask(
        self, path: str, query: str, headers: Mapping[str, str], *, method: str = "GET", beat: Beat = no_beat
    ) -> Answer:
        path = self._connection.folder + path

        def sign() -> Mapping[str, str]:
            keys = self._credentials.now()
            if keys is None:
                return headers
            host, now = self._connection.host, datetime.now(UTC)
            return signed(method, host, path, query, keys=keys, region=self._region, now=now, more=headers)

        target = f"{path}?{query}" if query else path
        answer = self._connection.ask(target, sign, method=method, beat=beat)
        if self._is_elsewhere(answer):
            answer = self._connection.ask(target, sign, method=method, beat=beat)
        return answer

    def _is_elsewhere(self, answer: Answer) -> bool:
        """Whether the answer names another region than the one asked; that one is asked from now on."""
        named = _REGION.search(answer.body)
        region = answer.headers.get("x-amz-bucket-region") or (named[1].decode() if named else "")
        if answer.status not in (301, 307, 400) or region in ("", self._region):
            return False
        self._region = region
        if not self._fixed:
            self._connection = Connection(self._endpoint())
        return True

    def _error(self, answer: Answer, what: str) -> BucketError:
        """The error of an answer; to a HEAD there is no text."""
        code = _CODE.search(answer.body)
        name = code[1].decode() if code else ""
        said = _MESSAGE.search(answer.body)
        words = f"{answer.status} {name}".rstrip() + (f", {_text(said[1]).decode(errors='replace')}" if said else "")
        reason, why = _meaning(answer.status, name)
        return BucketError(reason, f"`{what}`: {why} ({words})")


def _meaning(status: int, code: str) -> tuple[str, str]:
    """The reason, and what it means for people."""
    if code == "InvalidObjectState":
        return COLD_STORAGE, "it lies in cold storage, and must be restored before it can be read"
    if code in EXPIRED:
        return "permission", "the credentials have expired"
    if code in _REFUSED:
        return "permission", "the credentials are refused"
    if status == 404:
        return "vanished", "there is no such bucket" if code == "NoSuchBucket" else "it is not there"
    if status in (401, 403):
        return "permission", "it may not be read with these credentials"
    if status == 412:
        return "changed_while_reading", "it changed while it was read"
    return "io", "the server is too busy" if status in (429, 503) else "the server refuses"


def _version(answer: Answer) -> tuple[int, str]:
    """When the object was written, and its ETag."""
    try:
        modified_s = int(parsedate_to_datetime(answer.headers["last-modified"]).timestamp())
    except (KeyError, ValueError):
        modified_s = 0
    return modified_s, answer.headers.get("etag", "")


def _is_whole(body: bytes) -> bool:
    """Whether an answer is a listing, and all of it: what is not in a listing is gone. A page of a portal that asks for
    a password is an answer too."""
    count = _COUNT.search(body)
    told = count is None or int(count[1]) == body.count(b"<Contents>")
    return (
        b"</ListBucketResult>" in body and told and (_TRUNCATED.search(body) is None or _TOKEN.search(body) is not None)
    )


def page_in(body: bytes, *, tells_cold: bool = False) -> Page:
    """The objects in an answer. Where every object has the four elements, all of one kind are found at once."""
    keys, sizes = _KEY.findall(body), _SIZE.findall(body)
    times, etags = _TIME.findall(body), _ETAG.findall(body)
    if not len(keys) == len(sizes) == len(times) == len(etags) == body.count(b"<Contents>"):
        keys, sizes, times, etags = _one_by_one(body)
    keys = [_text(key) if b"&" in key else key for key in keys]
    return Page(
        keys,
        list(map(int, sizes)),
        list(map(_seconds, times)),
        list(map(_tag, etags)),
        _cold_in(body) if tells_cold else set(),
    )


def _one_by_one(body: bytes) -> tuple[list[bytes], ...]:
    found = [
        (key[1], size[1] if size else b"0", time[1] if time else b"", etag[1] if etag else b"")
        for contents in _CONTENTS.findall(body)
        for key, size, time, etag in [[kind.search(contents) for kind in (_KEY, _SIZE, _TIME, _ETAG)]]
        if key is not None
    ]
    return tuple(map(list, zip(*found, strict=True))) if found else ([], [], [], [])


def _cold_in(body: bytes) -> set[bytes]:
    """The keys of objects in cold storage, but of those that somebody has restored."""
    if not _COLD.search(body):
        return set()
    return {
        _text(key[1])
        for contents in _CONTENTS.findall(body)
        if _COLD.search(contents) and not _RESTORED.search(contents) and (key := _KEY.search(contents))
    }


def _seconds(time: bytes) -> int:
    """`2026-11-29T16:00:00.000Z`; some servers give milliseconds, of which a GET knows nothing."""
    try:
        return int(datetime.fromisoformat(time.decode()).timestamp())
    except ValueError:
        return 0


def _tag(etag: bytes) -> int:
    return tag_of(_text(etag))


def _text(data: bytes) -> bytes:
    """The text of an element of XML, with its references replaced."""
    return _REFERENCE.sub(_referred, data) if b"&" in data else data


def _referred(found: re.Match[bytes]) -> bytes:
    if found[3]:
        return _NAMED[found[3]]
    return chr(int(found[1]) if found[1] else int(found[2], 16)).encode("utf-8", "surrogatepass")
