"""All errors that a user can meet, as one tree of exceptions; each branch has one exit code.

In: a message (what is wrong, with names in backticks) and a hint (a command or flag that works). Out: exceptions that
survive pickling, since they cross processes: the fields are `args`, the text is made in `__str__`.
Not here: printing and the mapping to the process's exit status (cli/).
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from embedcli.rights import rights_hint


def quoted(path: str | Path) -> str:
    """A path in a hint, as a shell takes it."""
    return shlex.quote(str(path))


class EmbedcliError(Exception):
    """An error with an exit code and a hint: the base class, never raised itself."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)

    @property
    def hint(self) -> str:
        """What to type or do next; empty where nothing helps."""
        return str(self.args[1])

    def __str__(self) -> str:
        return str(self.args[0])


class UsageError(EmbedcliError):
    """Flags or settings that are invalid or contradict each other."""

    exit_code = 2


class NoIndex(EmbedcliError):
    """The folder is not an index, or an index is needed where there is none."""

    exit_code = 10


class Locked(EmbedcliError):
    """Another run has locked the index."""

    exit_code = 11


class Mismatch(EmbedcliError):
    """Settings that contradict those the index was built with."""

    exit_code = 12


class EngineError(EmbedcliError):
    """The engine or its model cannot start, or cannot continue."""

    exit_code = 13


class EngineDied(EngineError):
    """The engine has died or does not answer; a new one may be started."""


class EngineOutOfMemory(EngineDied):
    """The engine ran out of device memory; a new one may be started with smaller batches."""


class ModelUnavailable(EngineError):
    """The model cannot be found or downloaded, is incomplete, or is not an embedding model."""


class StorageError(EmbedcliError):
    """The disk is full, read-only, not permitted, has damaged a file, or lacks a feature that an index needs."""

    exit_code = 14


class DamagedIndex(StorageError):
    """A file of the index is missing or is not as it was written."""


class DamagedShard(DamagedIndex):
    """The published shard `name` cannot be read; the next run must read its documents again."""

    def __init__(self, name: str, detail: str) -> None:
        Exception.__init__(self, name, detail)

    @property
    def name(self) -> str:
        return str(self.args[0])

    @property
    def hint(self) -> str:
        return "`embedcli verify` lists all damage; check the disk"

    def __str__(self) -> str:
        return f"shard `{self.name}` is damaged: {self.args[1]}"


class InputError(EmbedcliError):
    """There are no sources, none is readable, a root does not exist, or too many sources are gone."""

    exit_code = 15


class TargetError(EmbedcliError):
    """A vector database cannot be reached, refuses, lacks its client, or holds something that must not be replaced."""

    exit_code = 16


class Stopped(EmbedcliError):
    """A signal stopped the command."""

    says: ClassVar[str] = "stopped"
    advice: ClassVar[str] = ""

    def __init__(self, signal_number: int) -> None:
        Exception.__init__(self, signal_number)

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """128 + the signal's number: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + int(self.args[0])

    @property
    def hint(self) -> str:
        return self.advice

    def __str__(self) -> str:
        return self.says


class RunStopped(Stopped):
    """A signal stopped a run; finished documents are checkpointed."""

    says = "stopped; finished documents are saved"
    advice = "run the same command again: it continues where it stopped"


class OutputStopped(Stopped):
    """A signal stopped a command that writes rows to stdout, between two rows."""

    says = "stopped; the output ends early, after a whole row"


class Unembedded(EmbedcliError):
    """Texts that have no vector; the output is complete, with null in their places."""

    exit_code = 3


class UnreadableSource(Exception):
    """A source cannot be read as a document. `reason` is one of records.REASONS; `detail` is for the log."""

    def __init__(self, reason: str, detail: str = "", sha256: str | None = None) -> None:
        """`sha256`: the digest of the file, where it could be read that far."""
        super().__init__(reason, detail, sha256)

    @property
    def sha256(self) -> str | None:
        return None if self.args[2] is None else str(self.args[2])

    @property
    def reason(self) -> str:
        return str(self.args[0])

    @property
    def detail(self) -> str:
        return str(self.args[1])

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class BucketError(OSError):
    """A bucket, or an object in it, cannot be read. `reason` is one of records.REASONS; the text says why, for people.

    An OSError, since to whoever reads it an object is a file.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(errno.EIO, text)
        self.reason = reason

    def __reduce__(self) -> tuple[type[BucketError], tuple[str, str]]:
        return BucketError, (self.reason, self.text)

    @property
    def text(self) -> str:
        return str(self.strerror)

    def __str__(self) -> str:
        return self.text


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


_NOT_OURS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT,
    errno.ENOTCONN, errno.ENODEV, errno.ENXIO,
}  # fmt: skip
"""What a disk, a file server and the owner of a file answer, whatever the program does."""


def disk_error(error: OSError) -> StorageError | None:
    """The StorageError for an OSError that says which file it is about and is no bug; None for any other."""
    if not isinstance(error.filename, str | bytes) or error.errno not in _NOT_OURS:
        return None
    found = storage_error(error, Path(os.fsdecode(error.filename)), cannot="read or write")
    found.__cause__ = error
    return found


def storage_error(error: OSError, path: Path, *, cannot: str = "write") -> StorageError:
    """The StorageError for an OSError at `path`, with a hint for the commonest causes."""
    hints = {
        errno.ENOSPC: "free some space, then run the same command again: finished documents are kept",
        errno.EDQUOT: "raise the quota, then run the same command again: finished documents are kept",
        errno.EROFS: (
            "the filesystem is read-only; mount it so that it can be written, or copy the index elsewhere with `cp -a`"
            " and name the copy"
        ),
    }
    if error.errno == errno.EACCES:
        hint = rights_hint(path)
    else:
        hint = hints.get(error.errno or 0, "run the same command again; if it fails again, check the disk")
    return StorageError(f"cannot {cannot} `{path}`: {error.strerror or error}", hint)
