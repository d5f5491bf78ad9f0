"""What an index needs of storage that several machines share: seven calls.

In: keys (`vectors/part-1.parquet`), bytes or files. Out: objects that are whole or absent, each with a version that
changes whenever its content is written.
Invariant: of two writers that swap a key from the same version, or put it for the first time, one wins and the other
gets Overtaken, also where the answer to the winner was lost.
Not here: how a vault keeps its objects (folder.py, objects.py), which keys make an index (index/mirror/).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from embedcli.errors import Locked, StorageError

Version = str
"""Opaque: what `swap` compares."""

IMPOSSIBLE: Version = '["\\"00000000000000000000000000000000\\"", null]'
"""A version that no object has."""


class Overtaken(Locked):
    """Another writer has put this key first (exit 11)."""

    def __init__(self, key: str, url: str) -> None:
        super().__init__(f"another run has written `{key}` in `{url}` meanwhile", "run the same command again")


@dataclass(frozen=True, slots=True)
class Stored:
    """One object. `modified`: seconds since 1970, by the clock of the vault."""

    key: str
    size_bytes: int
    modified: float
    version: Version


class Vault(Protocol):
    """All calls may be made by several threads. They raise StorageError where the vault cannot be reached or refuses,
    FileNotFoundError where there is no object of that key."""

    url: str

    def put_new(self, key: str, content: bytes | Path) -> Version:
        """Store an object, or a file as one; durable on return. Raises Overtaken where the key has other content."""

    def read(self, key: str) -> tuple[bytes, Version]: ...

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`, which may lie behind the end."""

    def stat(self, key: str) -> Stored: ...

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """The objects below `prefix`, a name or several with `/` between them, in any order; asked for as they are
        taken."""

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; what does not exist is no error."""

    def swap(self, key: str, expected: Version | None, content: bytes) -> Version:
        """Replace the object if it still has that version (None: if there is none). Raises Overtaken."""


def check_conditions(vault: Vault) -> None:
    """Raise StorageError where the store ignores conditions, for two runs could then overwrite each other.

    Nothing is left behind: a store that heeds them refuses the first write, and a probe that was written goes again.
    """
    key = f"probe-{secrets.token_hex(8)}"
    try:
        heeded = _refuses(vault, key, IMPOSSIBLE)
        if heeded:
            vault.put_new(key, b"first")
            heeded = _refuses(vault, key, None)
    finally:
        vault.remove([key])
    if not heeded:
        raise StorageError(
            f"`{vault.url}` does not heed conditional writes (If-Match, If-None-Match), so two runs could overwrite"
            " each other: nothing was written",
            "put the index into a store that has them, such as S3, GCS, R2 or MinIO of 2024, or into a folder",
        )


def _refuses(vault: Vault, key: str, expected: Version | None) -> bool:
    try:
        vault.swap(key, expected, b"second")
    except Overtaken:
        return True
    return False
