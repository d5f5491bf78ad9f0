"""Lists and ranges of a real server; what each refusal means; which of them pass."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from embedcli.errors import BucketError
from embedcli.records import REASONS
from embedcli.sources.buckets import connection
from embedcli.sources.buckets.connection import Connection
from embedcli.sources.buckets.contract import object_stat
from embedcli.sources.buckets.fetched import stat_of_object
from embedcli.sources.buckets.s3 import S3, page_in
from tests.buckets import Refusal, S3Bucket, bucket, error_body, writer  # noqa: F401

ODD = [
    "a",
    "A",
    "a//b",
    "/a",
    "//a",
    "a/",
    "a b",
    "a+b",
    "a#b",
    "a?b&c=d",
    "a%20b",
    "a%FF",
    "é日",
    "a<b>&\"'",
    "..",
    ".",
]
ODD += ["a/./b", "a/../b", "tab\there", "x\\y", "*", "~user", "a;b,c=d:e@f$g!h'(i)"]


def client(bucket: S3Bucket) -> S3:  # noqa: F811
    """One that does not wait before it tries again."""
    return S3(bucket.name, connection=Connection(bucket.front.address, sleep=lambda _: None))


def keys(bucket: S3Bucket, prefix: str = "") -> list[str]:  # noqa: F811
    return [key.decode() for page in client(bucket).pages(prefix) for key in page.keys]


def test_odd_keys_are_listed_and_read_as_they_are(bucket: S3Bucket) -> None:  # noqa: F811
    for key in ODD:
        bucket.put(key, f"this is {key}")
    assert keys(bucket) == sorted(ODD, key=lambda key: key.encode())
    (page,) = client(bucket).pages("")
    listed = dict(zip(page.keys, map(object_stat, page.sizes, page.modified_s, page.tags), strict=True))
    for key in ODD:
        part = client(bucket).part(key, 0, 1 << 20)
        assert part.data.decode() == f"this is {key}"
        assert client(bucket).stat(key) == part.stat == listed[key.encode()]


def test_a_listing_goes_on_past_a_page_and_keeps_to_its_prefix(bucket: S3Bucket) -> None:  # noqa: F811
    for number in range(1_003):
        bucket.put(f"docs/{number:04d}", b"")
    bucket.put("docs2/x", b"")
    assert keys(bucket, "docs/") == [f"docs/{number:04d}" for number in range(1_003)]
    assert len(bucket.front.listings()) == 2


def test_a_part_is_of_the_version_that_was_named(bucket: S3Bucket) -> None:  # noqa: F811
    bucket.put("a", "0123456789")
    first = client(bucket).part("a", 0, 4)
    assert (first.data, first.size) == (b"0123", 10)
    assert client(bucket).part("a", 4, 99, etag=first.etag).data == b"456789"
    bucket.put("a", "9876543210")
    with pytest.raises(BucketError, match="changed while it was read") as raised:
        client(bucket).part("a", 4, 10, etag=first.etag)
    assert raised.value.reason == "changed_while_reading"
    bucket.put("empty", b"")
    assert client(bucket).part("empty", 0, 4).data == b""


REFUSALS = [
    (404, "NoSuchBucket", "vanished", "there is no such bucket"),
    (404, "NoSuchKey", "vanished", "it is not there"),
    (403, "AccessDenied", "permission", "may not be read"),
    (403, "InvalidAccessKeyId", "permission", "credentials are refused"),
    (403, "SignatureDoesNotMatch", "permission", "credentials are refused"),
    (400, "ExpiredToken", "permission", "credentials have expired"),
    (403, "InvalidObjectState", "cold_storage", "must be restored"),
    (503, "SlowDown", "io", "too busy"),
    (500, "InternalError", "io", "the server refuses"),
    (418, "", "io", "418"),
]


@pytest.mark.parametrize(("status", "code", "reason", "words"), REFUSALS)
def test_a_refusal_has_a_reason_and_words(
    bucket: S3Bucket,  # noqa: F811
    status: int,
    code: str,
    reason: str,
    words: str,
) -> None:
    bucket.front.instead = lambda method, path: (status, error_body(code) if code else b"")
    with pytest.raises(BucketError, match=words) as raised:
        list(client(bucket).pages(""))
    assert raised.value.reason == reason and reason in REASONS
    assert bucket.url in str(raised.value) and (not code or code in str(raised.value))


def test_what_passes_is_tried_again_and_what_does_not_is_not(bucket: S3Bucket) -> None:  # noqa: F811
    bucket.put("a", "text")
    left = [2]

    def busy(method: str, path: str) -> Refusal:
        left[0] -= 1
        return (503, error_body("SlowDown")) if left[0] >= 0 else None

    bucket.front.instead = busy
    assert keys(bucket) == ["a"] and len(bucket.front.asked) == 3
    bucket.front.instead = lambda method, path: (403, error_body("AccessDenied"))
    with pytest.raises(BucketError):
        keys(bucket)
    assert len(bucket.front.asked) == 4


def test_the_pauses_grow_and_end(bucket: S3Bucket) -> None:  # noqa: F811
    pauses: list[float] = []
    beats: list[int] = []
    slow = S3(bucket.name, connection=Connection(bucket.front.address, sleep=pauses.append))
    bucket.front.instead = lambda method, path: (503, b"")
    with pytest.raises(BucketError):
        slow.part("a", 0, 1, beat=beats.append)
    assert len(pauses) == len(beats) == connection.TRIES - 1 and pauses == sorted(pauses) and sum(pauses) < 10


def test_a_server_that_is_not_there_is_named(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.0)
    with pytest.raises(BucketError, match="`http://127.0.0.1:9` cannot be reached: Connection refused") as raised:
        stat_of_object(f"{bucket.url}/a")
    assert raised.value.reason == "io"


def test_a_server_that_says_nothing_is_given_up(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(connection, "SILENT_S", 0.2)
    monkeypatch.setattr(connection, "TRIES", 2)
    given_up = threading.Event()
    bucket.front.before = lambda method, path: given_up.wait(60)
    with pytest.raises(BucketError, match="no answer within 0.2 s"):
        list(client(bucket).pages(""))
    given_up.set()


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(bucket: S3Bucket) -> None:  # noqa: F811
    bucket.put("a", "text")
    kept = client(bucket)
    assert kept.part("a", 0, 9).data == b"text"
    kept._connection._own.kept.client.sock.close()
    assert kept.part("a", 0, 9).data == b"text"


def test_the_region_that_the_answer_names_is_asked(bucket: S3Bucket) -> None:  # noqa: F811
    bucket.put("a", "text")
    signed_for: list[str] = []
    other = client(bucket)

    def elsewhere(method: str, path: str) -> Refusal:
        signed_for.append(other._region)
        body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>"
        return (400, body) if len(signed_for) == 1 else None

    bucket.front.instead = elsewhere
    assert other.part("a", 0, 9).data == b"text" and signed_for == ["us-east-1", "eu-west-3"]


def contents(*elements: str) -> Iterator[bytes]:
    yield b"<ListBucketResult>"
    yield from (f"<Contents>{element}</Contents>".encode() for element in elements)
    yield b"</ListBucketResult>"


def test_a_page_of_another_server_may_lack_elements_and_have_them_in_another_order() -> None:
    sound = "<ETag>&quot;1&quot;</ETag><Size>3</Size><Key>a&amp;&#x62;</Key><LastModified>1970-01-01T00:00:09.5Z"
    page = page_in(b"".join(contents(f"{sound}</LastModified>", "<Key>c</Key>")))
    assert (page.keys, page.sizes, page.modified_s) == ([b"a&b", b"c"], [3, 0], [9, 0])
    assert page_in(b"".join(contents())).keys == []


def test_what_lies_in_cold_storage_is_known_from_the_listing() -> None:
    def one(key: str, kind: str, more: str = "") -> str:
        rest = '<LastModified>1970-01-01T00:00:09.000Z</LastModified><ETag>"1"</ETag><Size>3</Size>'
        return f"<Key>{key}</Key>{rest}<StorageClass>{kind}</StorageClass>{more}"

    restored = "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress><RestoreExpiryDate>2026-12-01T00:00:00Z"
    page = page_in(
        b"".join(
            contents(
                one("a", "STANDARD"), one("b", "GLACIER"), one("c", "DEEP_ARCHIVE"), one("d", "GLACIER_IR"),
                one("e", "GLACIER", f"{restored}</RestoreExpiryDate></RestoreStatus>"),
                one("f", "GLACIER", "<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>"),
            )
        ),
        tells_cold=True,
    )  # fmt: skip
    assert page.cold == {b"b", b"c", b"f"}


def test_a_body_that_breaks_off_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server of its own, which says 10 bytes and sends 4, then all."""
    listener = socket.create_server(("127.0.0.1", 0))
    head = b"HTTP/1.1 206 x\r\ncontent-length: 10\r\ncontent-range: bytes 0-9/10\r\netag: 1\r\n\r\n"

    def serve() -> None:
        for data in (b"0123", b"0123456789"):
            client, _ = listener.accept()
            with client:
                client.recv(1 << 16)
                client.sendall(head + data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(name, value)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert S3("b", connection=Connection(address, sleep=lambda _: None)).part("a", 0, 10).data == b"0123456789"
    finally:
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    "body",
    [
        b"<html><title>Sign in</title></html>",
        b"",
        b"<ListBucketResult><KeyCount>2</KeyCount><Contents><Key>a</Key></Contents></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key></Contents></ListBucketResult>",
        b"<ListBucketResult><Contents><Key>a</Key></Contents>",
    ],
)
def test_what_is_no_whole_listing_is_none(bucket: S3Bucket, body: bytes) -> None:  # noqa: F811
    """Or all the rest would be gone."""
    bucket.front.instead = lambda method, path: (200, body)
    with pytest.raises(BucketError, match="no whole listing"):
        list(client(bucket).pages(""))


def test_only_the_provider_itself_is_asked_what_was_restored(bucket: S3Bucket) -> None:  # noqa: F811
    """Other servers answer a header that they do not know with 501."""
    assert S3("b", {})._tells_cold and S3("b", {"AWS_REGION": "cn-north-1"})._tells_cold
    assert not client(bucket)._tells_cold
