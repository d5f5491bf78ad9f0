"""A bucket by its URL, with the credentials of the environment; and what went wrong with it, in words.

In: `s3://bucket/prefix` or `gs://bucket/prefix`, the variables that the provider's own tools read (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS ...). Out: a store of obstore whose keys begin below the prefix; errors
as StorageError (exit 14).
Not here: what an index needs of a store (objects.py), listing and reading sources (sources/).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedcli.errors import StorageError, UsageError
from embedcli.urls import SCHEMES, is_url, parted

if TYPE_CHECKING:
    from obstore.store import ObjectStore

FILE = "file://"
"""The scheme of a vault in a folder."""
RETRIES = 8
"""With waits that grow from 0.1 s: a bucket that does not answer is given up after about half a minute."""
REQUEST_TIMEOUT = "300s"
"""For the whole of one request: the largest shard, 256 MiB, at 1 MB/s."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "RequestExpired")
REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken")
"""Codes of S3 for credentials."""


def has_scheme(text: str) -> bool:
    """Whether it is a URL of any kind and no path; `urls.is_url` is of buckets alone."""
    return _SCHEME.match(text) is not None


def split_url(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and prefix (without slashes around it). Raises UsageError where it is no URL of a bucket."""
    scheme, bucket, key = parted(url)
    if not is_url(url) or not bucket:
        known = " or ".join(f"`{scheme}BUCKET/PREFIX`" for scheme in SCHEMES)
        raise UsageError(f"`{url}` is not the URL of a bucket", f"write {known}")
    return scheme, bucket, key.strip("/")


def open_bucket(url: str, *, retries: int = RETRIES, environment: Mapping[str, str] = os.environ) -> ObjectStore:
    """The store behind `url`; nothing is asked of it yet. Raises UsageError, or StorageError without the extra `s3`."""
    scheme, bucket, prefix = split_url(url)
    try:
        from obstore import store
    except ImportError as error:
        raise StorageError(f"`{url}` needs the extra `s3`", "`pip install 'embedcli[s3]'`") from error
    options: dict[str, object] = {
        "prefix": prefix or None,
        "client_options": {"timeout": REQUEST_TIMEOUT, "allow_http": _is_plain(environment)},
        "retry_config": {"max_retries": retries},
    }
    kind = store.S3Store if scheme == "s3" else store.GCSStore
    with bucket_errors(url):
        return kind(bucket, **options)  # type: ignore[arg-type]


def _is_plain(environment: Mapping[str, str]) -> bool:
    """Whether the environment names an endpoint without TLS, as of MinIO in one's own network."""
    return environment.get("AWS_ENDPOINT_URL", environment.get("AWS_ENDPOINT", "")).startswith("http://")


@contextmanager
def bucket_errors(url: str) -> Iterator[None]:
    """Turn what obstore raises into a StorageError that says what is wrong and what to do.

    FileNotFoundError for a key that does not exist, and the two errors of conditional writes, pass as they are.
    """
    from obstore.exceptions import AlreadyExistsError, BaseError, NotModifiedError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError, NotModifiedError):
        raise
    except FileNotFoundError as error:
        if "NoSuchBucket" not in str(error):
            raise
        raise StorageError(*explain(error, url)) from error
    except BaseError as error:
        raise StorageError(*explain(error, url)) from error


def explain(error: Exception, url: str) -> tuple[str, str]:
    """What an error of obstore means, and what to do about it."""
    text = str(error).split("\n\nDebug source")[0]
    bucket = "/".join(url.split("/")[:3])
    for signs, message, hint in _MEANINGS:
        if any(sign in text for sign in signs):
            return message.format(bucket=bucket), hint
    return f"`{bucket}` refuses: {_short(text)}", "check the bucket with its provider's own tools"


_AGAIN = "run the same command again: finished documents are kept"
_MEANINGS = (
    (
        EXPIRED,
        "the credentials for `{bucket}` have expired",
        "get new ones, such as by `aws sso login`, export them, and run the same command again",
    ),
    (
        ("169.254.169.254", "CredentialsNotLoaded", "Missing credentials", "metadata.google.internal"),
        "there are no credentials for `{bucket}`",
        "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS for `gs://`",
    ),
    (
        (*REFUSED, "401 Unauthorized"),
        "`{bucket}` does not accept these credentials",
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and the clock of this machine",
    ),
    (("NoSuchBucket",), "there is no bucket `{bucket}`", "check its name and AWS_ENDPOINT_URL, or create it"),
    (
        ("AccessDenied", "403 Forbidden", "AllAccessDisabled"),
        "these credentials do not permit this in `{bucket}`",
        "an index needs s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject; to read it, the first two",
    ),
    (
        ("without LOCATION", "PermanentRedirect", "AuthorizationHeaderMalformed"),
        "`{bucket}` lies in another region",
        "export AWS_REGION with the region of the bucket",
    ),
    (("SlowDown", "503 Service", "429 Too Many"), "`{bucket}` is overloaded and asks to wait (503)", _AGAIN),
    (("500 Internal", "502 Bad", "504 Gateway"), "the server of `{bucket}` has an error of its own", _AGAIN),
    (
        ("HTTP error", "error sending request", "timed out"),
        "`{bucket}` cannot be reached",
        f"check the network and AWS_ENDPOINT_URL, then {_AGAIN}",
    ),
)
"""Signs in the text of an error, for obstore gives no codes; what it means; what to do. The first that fits counts."""


def _short(text: str) -> str:
    """The request and the beginning of its answer, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:300]} ..."
