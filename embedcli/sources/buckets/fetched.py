"""An object's bytes, as a file that is open; its digest; what is known of it.

In: a URL. Out: a file in memory, a large one on disk without a name, so that no kill leaves it behind. All of it is of
one version of the object: of every part but the first the ETag is demanded that the first one had.
Not here: requests (s3.py), reading the file (reading/).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from embedcli.errors import BucketError, storage_errors
from embedcli.records import Beat, Stat
from embedcli.sources.buckets.contract import Part, no_beat
from embedcli.sources.buckets.open import bucket_of

PART_BYTES = 8 << 20
MEMORY_BYTES = 64 << 20


def fetched(url: str, listed: Stat | None, *, folder: Path, beat: Beat) -> tuple[BinaryIO, Stat]:
    """An object, and its stat. One that has changed since it was `listed` is what it is now, like a file that changes
    between the walk and its reading. An empty one is not asked for. Raises BucketError, and StorageError where the disk
    with `folder` is full."""
    if listed is not None and not listed.size:
        return io.BytesIO(), listed
    file = tempfile.SpooledTemporaryFile(MEMORY_BYTES, dir=str(folder))  # noqa: SIM115
    try:
        for part in parts(url, beat):
            with storage_errors(folder):
                file.write(part.data)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return cast(BinaryIO, file), part.stat


def parts(url: str, beat: Beat = no_beat) -> Iterator[Part]:
    """The parts of an object, at least one. Raises BucketError, `changed_while_reading` too."""
    bucket, key = bucket_of(url)
    part = bucket.part(key, 0, PART_BYTES, beat=beat)
    size, etag, read = part.size, part.etag, len(part.data)
    yield part
    while read < size:
        beat(0)
        part = bucket.part(key, read, min(read + PART_BYTES, size), etag=etag, beat=beat)
        if not part.data:
            raise BucketError("io", f"`{url}`: the server gave {read:,} of {size:,} bytes")
        read += len(part.data)
        yield part


def object_digest(url: str) -> str:
    """The sha256 of an object. Raises BucketError."""
    state = hashlib.sha256()
    for part in parts(url):
        state.update(part.data)
    return state.hexdigest()


def object_text(url: str) -> bytes | None:
    """The bytes of a small object; None where there is none. Raises BucketError."""
    try:
        return b"".join(part.data for part in parts(url))
    except BucketError as error:
        if error.reason == "vanished":
            return None
        raise


def stat_of_object(url: str) -> Stat:
    """Raises BucketError."""
    bucket, key = bucket_of(url)
    return bucket.stat(key)
