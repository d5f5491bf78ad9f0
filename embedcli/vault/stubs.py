"""Files of a working copy whose content lies in a vault until somebody reads it.

In: a path, and what belongs there. Out: a stub, a sparse file of the true size that says where its content is; and the
path of a file whose content is there, fetched and checked first if it was a stub.
Invariant: the content is filled into the same file, so that every hard link to it has it; the header that makes it a
stub is overwritten last, so a fetch that is killed, or made by two processes at once, is only made again.
Not here: which files are stubs (index/mirror/).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from embedcli.errors import storage_errors
from embedcli.vault.contract import Vault
from embedcli.vault.opened import open_vault

MAGIC = b"embedcli stub\n"
HEADER_BYTES = 4096
PIECE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Stub:
    """`size_bytes`: None where it is not known before the content is read. `sha256`: None where nobody knows it."""

    url: str
    key: str
    size_bytes: int | None
    sha256: str | None = None


def make_stub(path: Path, stub: Stub) -> None:
    """Put a stub under a new name. What is smaller than a stub is fetched at once. Raises OSError, StorageError."""
    header = MAGIC + json.dumps(asdict(stub)).encode()
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(header.ljust(HEADER_BYTES))
        file.truncate(max(HEADER_BYTES, stub.size_bytes or 0))
    if stub.size_bytes is not None and stub.size_bytes < HEADER_BYTES:
        fetched(temporary)
    temporary.rename(path)


def is_stub(path: Path) -> bool:
    """Whether the content is still in the vault alone; not where there is no file."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except FileNotFoundError:
        return False


def fetched(path: Path, *, piece_bytes: int = PIECE_BYTES) -> Path:
    """The same path, its content fetched first if it is a stub.

    Raises OSError where the file, or its object in the vault, is missing or damaged; StorageError where the vault
    cannot be reached or this disk is full.
    """
    stub = _read(path)
    if stub is not None:
        _fill(path, stub, _pieces(open_vault(stub.url), stub, piece_bytes))
    return path


def _read(path: Path) -> Stub | None:
    while True:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        if not header.startswith(MAGIC):
            return None
        with suppress(ValueError):  # another process is just replacing the header
            return Stub(**json.loads(header.removeprefix(MAGIC)))


def _fill(path: Path, stub: Stub, pieces: Iterator[bytes]) -> None:
    state = hashlib.sha256()
    head = b""
    at = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for piece in pieces:
            state.update(piece)
            in_head = max(0, min(len(piece), HEADER_BYTES - at))
            head += piece[:in_head]
            _put(descriptor, path, memoryview(piece)[in_head:], at + in_head)
            at += len(piece)
        if stub.sha256 not in (None, state.hexdigest()) or stub.size_bytes not in (None, at):
            raise OSError(errno.EIO, f"`{stub.key}` in `{stub.url}` is damaged")
        with storage_errors(path):
            os.fsync(descriptor)  # the rest is on the disk before the header can be
        _put(descriptor, path, memoryview(head), 0)
        with storage_errors(path):
            os.ftruncate(descriptor, at)
    finally:
        os.close(descriptor)


def _put(descriptor: int, path: Path, data: memoryview, at: int) -> None:
    with storage_errors(path):
        while data:
            written = os.pwrite(descriptor, data, at)
            data, at = data[written:], at + written


def _pieces(vault: Vault, stub: Stub, piece_bytes: int) -> Iterator[bytes]:
    if stub.size_bytes is None:
        yield vault.read(stub.key)[0]
        return
    for start in range(0, stub.size_bytes, piece_bytes):
        yield vault.read_range(stub.key, start, min(start + piece_bytes, stub.size_bytes))
