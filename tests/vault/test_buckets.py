"""Whatever is wrong with a bucket is said in words, with what to type next, and is exit 14."""

from __future__ import annotations

import sys

import pytest

from embedcli.errors import StorageError, UsageError
from embedcli.vault.buckets import bucket_errors, open_bucket, split_url
from tests.s3 import S3, Proxy, nobody_listens, proxied


def refused(url: str) -> StorageError:
    import obstore

    with pytest.raises(StorageError) as raised, bucket_errors(url):
        obstore.put(open_bucket(url, retries=1), "k", b"x")
    assert raised.value.exit_code == 14 and raised.value.hint and "\n" not in str(raised.value)
    return raised.value


def test_a_bucket_that_does_not_exist_is_named(s3: S3) -> None:
    assert str(refused("s3://nowhere/a/b")) == "there is no bucket `s3://nowhere`"


def test_a_server_that_cannot_be_reached_is_told_from_one_that_refuses(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody_listens() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        error = refused("s3://bucket")
    assert str(error) == "`s3://bucket` cannot be reached" and "AWS_ENDPOINT_URL" in error.hint


@pytest.mark.parametrize(
    ("status", "code", "told", "hint"),
    [
        (400, "ExpiredToken", "the credentials for `s3://bucket` have expired", "export them"),
        (403, "InvalidAccessKeyId", "`s3://bucket` does not accept these credentials", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "`s3://bucket` does not accept these credentials", "clock"),
        (403, "AccessDenied", "these credentials do not permit this in `s3://bucket`", "s3:PutObject"),
        (301, "PermanentRedirect", "`s3://bucket` lies in another region", "AWS_REGION"),
        (503, "SlowDown", "`s3://bucket` is overloaded and asks to wait (503)", "the same command again"),
        (500, "InternalError", "the server of `s3://bucket` has an error of its own", "the same command again"),
        (418, "Teapot", "`s3://bucket` refuses: ", "provider's own tools"),
    ],
)  # fmt: skip
def test_what_a_server_answers_is_said_in_words(
    s3: S3, monkeypatch: pytest.MonkeyPatch, status: int, code: str, told: str, hint: str
) -> None:
    body = f"<Error><Code>{code}</Code></Error>".encode()
    with proxied(Proxy(s3, before=lambda _: (status, body))) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        error = refused("s3://bucket")
    assert str(error).startswith(told) and hint in error.hint


def test_a_key_that_does_not_exist_is_no_error_of_the_bucket(s3: S3) -> None:
    import obstore

    url = s3.bucket()
    with pytest.raises(FileNotFoundError), bucket_errors(url):
        obstore.get(open_bucket(url), "k")


def test_what_is_no_url_of_a_bucket_is_refused() -> None:
    assert split_url("s3://bucket/a/b/") == ("s3", "bucket", "a/b") and split_url("gs://b") == ("gs", "b", "")
    for url in ("http://x/y", "s3://", "s3:///x", "docs/"):
        with pytest.raises(UsageError) as raised:
            open_bucket(url)
        assert raised.value.exit_code == 2


def test_without_the_extra_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StorageError) as raised:
        open_bucket("s3://bucket")
    assert "embedcli[s3]" in raised.value.hint
