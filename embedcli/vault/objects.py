"""A vault in a bucket, through obstore.

In: a store of obstore (buckets.py). Out: the calls of contract.py; a write whose answer was lost is settled by reading
the key: what we wrote there is ours.
Not here: opening the store, and its errors in words (buckets.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcli.errors import StorageError
from embedcli.vault.buckets import bucket_errors
from embedcli.vault.contract import Overtaken, Stored, Version

if TYPE_CHECKING:
    from obstore.store import ObjectStore

TRIES = 3
"""Of a write that the store neither did nor refused: the answer 409 to If-None-Match, or no answer."""


class ObjectVault:
    def __init__(self, store: ObjectStore, url: str) -> None:
        self.url = url
        self._store = store

    def put_new(self, key: str, content: bytes | Path) -> Version:
        return self._put(key, content, None)

    def swap(self, key: str, expected: Version | None, content: bytes) -> Version:
        return self._put(key, content, expected)

    def _put(self, key: str, content: bytes | Path, expected: Version | None) -> Version:
        """Whatever the store says, or where it says nothing, what the key holds then decides who won."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if expected is None else _condition(expected)
        lost: StorageError | None = None
        for _ in range(TRIES):
            try:
                with bucket_errors(self.url):
                    return _version(obstore.put(self._store, key, content, mode=mode))
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                pass
            except StorageError as error:
                lost = error
            found = self._found(key)
            if found is not None and found[0] == (content.read_bytes() if isinstance(content, Path) else content):
                return found[1]
            if (found and found[1]) != expected:
                raise Overtaken(key, self.url)
        raise lost or Overtaken(key, self.url)

    def _found(self, key: str) -> tuple[bytes, Version] | None:
        try:
            return self.read(key)
        except FileNotFoundError:
            return None

    def read(self, key: str) -> tuple[bytes, Version]:
        import obstore

        with bucket_errors(self.url):
            found = obstore.get(self._store, key)
            return bytes(found.bytes()), _version(found.meta)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        import obstore

        with bucket_errors(self.url):
            return bytes(obstore.get_range(self._store, key, start=start, end=stop))

    def stat(self, key: str) -> Stored:
        import obstore

        with bucket_errors(self.url):
            return _stored(obstore.head(self._store, key))

    def list(self, prefix: str = "") -> Iterator[Stored]:
        import obstore

        with bucket_errors(self.url):
            for part in obstore.list(self._store, prefix or None):
                yield from map(_stored, part)

    def remove(self, keys: Iterable[str]) -> None:
        import obstore

        left = list(keys)
        with suppress(FileNotFoundError), bucket_errors(self.url):
            obstore.delete(self._store, left)
            return
        for key in left:  # a store without a call for many has ended at the first that is not there
            with suppress(FileNotFoundError), bucket_errors(self.url):
                obstore.delete(self._store, key)


def _version(meta: Any) -> Version:
    return json.dumps([meta["e_tag"], meta["version"]])


def _condition(version: Version) -> dict[str, str]:
    """S3 compares the ETag, GCS the generation; obstore takes only what is there."""
    named = zip(("e_tag", "version"), json.loads(version), strict=True)
    return {name: value for name, value in named if value is not None}


def _stored(meta: Any) -> Stored:
    return Stored(meta["path"], meta["size"], meta["last_modified"].timestamp(), _version(meta))
