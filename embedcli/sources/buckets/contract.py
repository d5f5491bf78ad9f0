"""What a bucket can do for its sources: list, and give the bytes of an object.

In: nothing. Out: the protocol and its small records; the errors are BucketError, with one of records.REASONS.
Not here: any bucket (s3.py, gs.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from embedcli.records import Beat, Stat, in_64_bits

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
"""Variables that say where the server is: the first one that is set counts."""


def no_beat(_: int) -> None:
    return


@dataclass(slots=True)
class Page:
    """Some objects: lists of one length. `tags` stand for their ETags, `cold` are those
    that cannot be read before somebody restores them."""

    keys: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    modified_s: list[int] = field(default_factory=list)
    tags: list[int] = field(default_factory=list)
    cold: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of an object, and what the object was when they were read; `size` is that of the whole object."""

    data: bytes
    size: int
    modified_s: int
    etag: str

    @property
    def stat(self) -> Stat:
        return object_stat(self.size, self.modified_s, tag_of(self.etag))


class Bucket(Protocol):
    """One bucket. Every method raises BucketError."""

    def pages(self, prefix: str) -> Iterator[Page]:
        """All objects whose keys begin with the prefix, once, in any order."""

    def part(self, key: str, start: int, stop: int, *, etag: str | None = None, beat: Beat = no_beat) -> Part:
        """The bytes from `start` to before `stop`, or to the end of the object where that comes sooner; with `etag`,
        of that version of the object alone: of another one it raises `changed_while_reading`."""

    def stat(self, key: str) -> Stat:
        """What is known of an object without reading it."""


def tag_of(etag: str | bytes) -> int:
    """64 bits of an ETag, 0 where there is none. Some servers leave out its quotes in a listing, and give them with the
    object."""
    data = (etag.encode() if isinstance(etag, str) else etag).strip(b'"')
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") if data else 0


def object_stat(size: int, modified_s: int, tag: int) -> Stat:
    """The Stat of an object: of its ETag in the place of the inode. Seconds, since that is all that a GET tells of the
    time. An object has no ctime; 0 would mean that its stat is not to be trusted."""
    return Stat(size, in_64_bits(modified_s * 1_000_000_000), 1, tag)
