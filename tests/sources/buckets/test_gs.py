"""The way by obstore, over its store in memory: Google's own server was not met."""

from __future__ import annotations

import sys

import pytest

from embedcli.errors import BucketError

obstore = pytest.importorskip("obstore")

from obstore.store import MemoryStore  # noqa: E402

from embedcli.sources.buckets import open as module  # noqa: E402
from embedcli.sources.buckets.fetched import stat_of_object  # noqa: E402
from embedcli.sources.buckets.gs import StoreBucket  # noqa: E402
from embedcli.sources.buckets.listing import Listing  # noqa: E402


def filled(*keys: str) -> StoreBucket:
    store = MemoryStore()
    for key in keys:
        obstore.put(store, key, key.encode())
    return StoreBucket(store, "gs://b")


def test_a_listing_has_the_order_of_the_walk_and_the_stats_of_what_is_read() -> None:
    bucket = filled("docs/a-b/x", "docs/a/b", "docs/é #%20", "docs2/x")
    found = list(Listing(bucket.pages("docs/"), prefix="docs/"))
    assert [one.path for one in found] == ["a/b", "a-b/x", "é #%20"]
    assert [one.stat for one in found] == [bucket.stat(f"docs/{one.path}") for one in found]
    assert bucket.part("docs/a/b", 2, 5).data == b"cs/" and bucket.part("docs/a/b", 2, 99).size == 8


def test_another_version_is_refused_and_what_is_not_there_has_vanished() -> None:
    bucket = filled("a")
    etag = bucket.part("a", 0, 1).etag
    obstore.put(bucket._store, "a", b"other")
    for ask, reason in (
        (lambda: bucket.part("a", 0, 1, etag=etag), "changed_while_reading"), (lambda: bucket.stat("b"), "vanished")
    ):  # fmt: skip
        with pytest.raises(BucketError) as raised:
            ask()
        assert raised.value.reason == reason


def test_without_the_extra_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    module._opened.cache_clear()
    with pytest.raises(BucketError, match=r"needs the extra `s3`.*pip install"):
        stat_of_object("gs://bucket/a")
