"""Check the filesystem of the index: whether a run can write there, and what its files need of a filesystem.

In: the folder of the index, which may not exist yet. Out: Lines. Files made to test the filesystem are removed again.
Not here: the machine and the model (machine.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from embedcli.errors import EmbedcliError, StorageError, storage_error
from embedcli.index import lock
from embedcli.index.generations import Index
from embedcli.index.mirror.place import open_index
from embedcli.paths import exists, is_folder
from embedcli.vault.disk import Disk
from embedcli.verbs.doctor.check import GIB, STORAGE, Line
from embedcli.verbs.rights import openness

if TYPE_CHECKING:
    from embedcli.index.manifest import Generation

LEAST_FREE_BYTES = 2 * GIB
SPACE = "free some space (`df -i` counts files too), or put the index elsewhere with `--index`"
LOCAL = "put the index on a local disk (ext4, xfs) with `--index`"


def storage(index: Path) -> Iterator[Line]:
    parent = next(folder for folder in (index, *index.parents) if exists(folder))
    if not is_folder(parent):
        yield Line("index", f"`{parent}` is a file", False, "name another folder with `--index`", STORAGE)
        return
    refused = _refused(index, parent)
    if refused is not None:
        yield Line("index", str(refused), False, SPACE if _is_full(refused) else refused.hint, STORAGE)
        return
    try:
        opened = open_index(index)
        opened.check()
    except EmbedcliError as error:
        yield Line("index", str(error), False, error.hint, error.exit_code)
        return
    free = shutil.disk_usage(parent).free
    enough = free >= LEAST_FREE_BYTES
    mend = "" if enough else "free some space, or put the index on another disk with `--index`"
    yield Line("index", f"{opened.shown}, {free / GIB:.1f} GiB free", enough, mend, 0 if enough else STORAGE)
    if lock.on_network(parent):
        yield Line("filesystem", "on the network: the lock of a run that died on another host lasts 10 minutes")
    try:
        with tempfile.TemporaryDirectory(prefix=".embedcli-doctor-", dir=parent) as folder:
            for what, attempt in _ATTEMPTS.items():
                yield _tried(what, Path(folder), attempt)
    except OSError as error:
        yield Line("folders", f"cannot be made in `{parent}`: {error.strerror}", False, SPACE, STORAGE)


def _refused(index: Path, existing: Path) -> StorageError | None:
    """The error of the first place in which a run has to write and cannot; `existing` is the index, or the folder in
    which it would be made. It is tried, as permissions alone do not tell."""
    of_index = Index(index, disk=Disk())
    folders = (existing, of_index.generations, of_index.staging, of_index.keys, of_index.changes, of_index.state)
    for place in (folder for folder in folders if is_folder(folder)):
        try:
            with tempfile.NamedTemporaryFile(prefix=".embedcli-doctor-", suffix=".tmp", dir=place):
                pass
        except OSError as error:
            refused = storage_error(error, place / "file")
            refused.__cause__ = error
            return refused
    try:
        os.close(os.open(index / "lock", os.O_RDWR))
    except FileNotFoundError:
        pass
    except OSError as error:
        return storage_error(error, index / "lock")
    return None


def rights(index: Index, current: Generation) -> Line:
    """Whether other users can read the text of sources here that they cannot read where it comes from."""
    told, mend = openness(index, current)
    return Line("rights", told or "the index is not more open than its sources", not told, mend)


def _tried(what: str, folder: Path, attempt: Callable[[Path], None]) -> Line:
    """Try one file operation. Only hard links are optional: without them shards are copied."""
    try:
        attempt(folder)
    except (OSError, EmbedcliError) as error:
        if what == "hard links":
            return Line(what, "not available: shards are copied from generation to generation")
        return Line(what, f"does not work here: {error}", False, SPACE if _is_full(error) else LOCAL, STORAGE)
    return Line(what, "work")


def _is_full(error: OSError | EmbedcliError) -> bool:
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def _flock(folder: Path) -> None:
    with (folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _hard_link(folder: Path) -> None:
    (folder / "file").write_bytes(b"")
    os.link(folder / "file", folder / "again")


def _symlink_swap(folder: Path) -> None:
    disk = Disk()
    for name in ("first", "second"):
        disk.point(folder / "current", name)
    if os.readlink(folder / "current") != "second":
        raise OSError("the link was not replaced")


def _fsync(folder: Path) -> None:
    disk = Disk()
    disk.write(folder / "durable", lambda sink: sink.write(b"x"))
    disk.fsync_folder(folder)


_ATTEMPTS: dict[str, Callable[[Path], None]] = {
    "locks": _flock,
    "hard links": _hard_link,
    "link swaps": _symlink_swap,
    "durable writes": _fsync,
}
