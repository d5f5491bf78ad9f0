"""A bucket by way of obstore: Google Cloud Storage, which signs otherwise than S3.

In: a bucket's name, the environment of the provider's own tools. Out: pages and parts. A key that obstore cannot name,
such as `a//b`, ends its listing: Google gives the same bucket out as `s3://` too (AWS_ENDPOINT_URL, with HMAC keys).
Not here: opening a store, and what its errors mean (vault/buckets.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedcli.errors import BucketError, EmbedcliError
from embedcli.records import Beat, Stat
from embedcli.sources.buckets.contract import Page, Part, no_beat, object_stat, tag_of
from embedcli.vault.buckets import explain, open_bucket

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ObjectStore

LISTED_AT_ONCE = 1_000
AGAIN_AS_S3 = "export AWS_ENDPOINT_URL=https://storage.googleapis.com with HMAC keys, and name it `s3://`"


def google_bucket(bucket: str) -> StoreBucket:
    """Raises BucketError without the extra `s3`."""
    url = f"gs://{bucket}"
    try:
        return StoreBucket(open_bucket(url), url)
    except EmbedcliError as error:
        raise BucketError("permission", f"{error}; {error.hint}") from error


class StoreBucket:
    """A store of obstore as a Bucket."""

    def __init__(self, store: ObjectStore, url: str) -> None:
        self._store = store
        self._url = url

    def pages(self, prefix: str) -> Iterator[Page]:
        """obstore lists whole folders; of these, what begins with the prefix."""
        import obstore

        folder = prefix.rpartition("/")[0]
        with _bucket_errors(self._url):
            for metas in obstore.list(self._store, folder or None, chunk_size=LISTED_AT_ONCE):
                yield _page([meta for meta in metas if meta["path"].startswith(prefix)])

    def part(self, key: str, start: int, stop: int, *, etag: str | None = None, beat: Beat = no_beat) -> Part:
        import obstore

        options: GetOptions = {"range": (start, stop)}
        if etag is not None:
            options["if_match"] = etag
        with _bucket_errors(f"{self._url}/{key}"):
            answer = obstore.get(self._store, key, options=options)
            meta = answer.meta
            data = bytes(answer.bytes())
        beat(0)
        return Part(data, meta["size"], int(meta["last_modified"].timestamp()), meta["e_tag"] or "")

    def stat(self, key: str) -> Stat:
        import obstore

        with _bucket_errors(f"{self._url}/{key}"):
            return _stat(obstore.head(self._store, key))


def _page(metas: list[ObjectMeta]) -> Page:
    return Page(
        keys=[meta["path"].encode() for meta in metas],
        sizes=[meta["size"] for meta in metas],
        modified_s=[int(meta["last_modified"].timestamp()) for meta in metas],
        tags=[tag_of(meta["e_tag"] or "") for meta in metas],
    )


def _stat(meta: ObjectMeta) -> Stat:
    return object_stat(meta["size"], int(meta["last_modified"].timestamp()), tag_of(meta["e_tag"] or ""))


@contextmanager
def _bucket_errors(url: str) -> Iterator[None]:
    """What obstore raises, as BucketError."""
    from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

    try:
        yield
    except FileNotFoundError as error:
        raise BucketError("vanished", explain(error, url)[0]) from error
    except PreconditionError as error:
        raise BucketError("changed_while_reading", f"`{url}`: it changed while it was read") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise BucketError("permission", explain(error, url)[0]) from error
    except BaseError as error:
        if "empty path segment" in str(error):
            raise BucketError(
                "io", f"`{url}` has a key with `//` in it, which cannot be read so: {AGAIN_AS_S3}"
            ) from error
        raise BucketError("io", explain(error, url)[0]) from error
