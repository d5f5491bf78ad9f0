"""Everything that can go wrong for a user, as one tree; each branch is one exit code.

In: a message (what, then the thing in backticks) and a hint (a command or flag that works). Out: exceptions that
survive pickling, since they cross processes: the fields are `args`, the text is made in `__str__`.
Not here: printing and the mapping to the process's exit status (cli/).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar


class EmbedcliError(Exception):
    """An error with an exit code and a hint; the base of the tree, itself never raised."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)

    @property
    def hint(self) -> str:
        """A command or flag to type next; empty where there is none."""
        return str(self.args[1])

    def __str__(self) -> str:
        return str(self.args[0])


class UsageError(EmbedcliError):
    """Flags or settings that cannot be meant."""

    exit_code = 2


class NoIndex(EmbedcliError):
    """The folder is not an index, or there is none where one is needed."""

    exit_code = 10


class Locked(EmbedcliError):
    """Another run holds the index."""

    exit_code = 11


class Mismatch(EmbedcliError):
    """Settings that contradict those the index was built with."""

    exit_code = 12


class EngineError(EmbedcliError):
    """The engine or its model cannot start, or cannot go on."""

    exit_code = 13


class EngineDied(EngineError):
    """The engine is gone or answers no more; a new one may be started."""


class EngineOutOfMemory(EngineDied):
    """The engine ran out of device memory; a new one may be started with smaller batches."""


class ModelUnavailable(EngineError):
    """The model cannot be had, is incomplete, or is not one that embeds."""


class StorageError(EmbedcliError):
    """The disk is full, read-only, forbidden or lacks what an index needs."""

    exit_code = 14


class DamagedShard(StorageError):
    """A published shard that cannot be read; `name` is the shard's. Its documents are to be read again."""

    def __init__(self, name: str, detail: str) -> None:
        Exception.__init__(self, name, detail)

    @property
    def name(self) -> str:
        return str(self.args[0])

    @property
    def hint(self) -> str:
        return "`embedcli verify` tells what else is damaged; check the disk"

    def __str__(self) -> str:
        return f"shard `{self.name}` is damaged: {self.args[1]}"


class InputError(EmbedcliError):
    """No sources, none readable, a root that does not exist, or too many gone."""

    exit_code = 15


class Stopped(EmbedcliError):
    """The user asked to stop; all that was finished is checkpointed."""

    def __init__(self, signal_number: int) -> None:
        Exception.__init__(self, signal_number)

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """128 + the signal's number: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + int(self.args[0])

    @property
    def hint(self) -> str:
        return "run the same command again: it goes on where it stopped"

    def __str__(self) -> str:
        return "stopped; what was finished is saved"


class UnreadableSource(Exception):
    """One source cannot become a document. `reason` is one of records.REASONS; `detail` is for the log."""

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


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def storage_error(error: OSError, path: Path) -> StorageError:
    """What an OSError at `path` is to the user."""
    hints = {
        errno.ENOSPC: "free some space, then run the same command again: what was finished is kept",
        errno.EDQUOT: "raise the quota, then run the same command again: what was finished is kept",
        errno.EROFS: "the filesystem is read-only; put the index elsewhere with `--index`",
        errno.EACCES: f"give this user the right to write there, e.g. `chown -R $USER {path.parent}`",
    }
    hint = hints.get(error.errno or 0, "run the same command again; if it fails again, check the disk")
    return StorageError(f"cannot write `{path}`: {error.strerror or error}", hint)
