"""`sync`: make a vector database hold the current generation of an index.

In: an index and a target. Out: a Synced; the target remembers the generation that it holds. The index is only read,
but for a lock file in `state/` that keeps a second sync to the same table away.
Not here: what is written to the target (stores/follow.py), the flags (cli/sync.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from embedcli.errors import DamagedShard, Locked, StorageError, storage_error
from embedcli.index.change_lists import Trail, trail
from embedcli.index.generations import Index
from embedcli.paths import exists
from embedcli.report import Report
from embedcli.stores import follow
from embedcli.stores.follow import Outcome, Source
from embedcli.stores.open import opened
from embedcli.stores.target import Target


@dataclass(frozen=True)
class Synced:
    """What a sync did, or with `dry_run` would do: `did` is `loaded`, `followed` or `unchanged`."""

    index: str
    target: str
    table: str
    generation: int
    number: int
    dry_run: bool
    did: str
    why: str
    upserts: int
    deletes: int
    rows: int
    elapsed_s: float


def sync(index: Index, target: Target, *, replace: bool = False, dry_run: bool = False, report: Report) -> Synced:
    """Raises NoIndex, Locked, TargetError, StorageError; run again, it goes on."""
    started = time.monotonic()
    found = trail(index)
    with _alone(index, target):
        try:
            outcome = _outcome(Source(index.shown, found), target, replace, dry_run, report)
        except DamagedShard as error:
            raise _replaced(index, found) or error from error
    return Synced(
        index=index.shown,
        target=target.shown,
        table=target.table,
        generation=found.generation.number,
        number=found.newest.number,
        dry_run=dry_run,
        did=outcome.did,
        why=outcome.why,
        upserts=outcome.upserts,
        deletes=outcome.deletes,
        rows=outcome.rows,
        elapsed_s=round(time.monotonic() - started, 3),
    )


def _outcome(source: Source, target: Target, replace: bool, dry_run: bool, report: Report) -> Outcome:
    if dry_run and target.path is not None and not exists(target.path):  # opening it would make it
        return Outcome("loaded", source.rows, 0, source.rows)
    with opened(target) as store:
        return follow.sync(store, source, replace=replace, dry_run=dry_run, report=report)


@contextmanager
def _alone(index: Index, target: Target) -> Iterator[None]:
    """Hold a lock file for this target. Raises Locked, StorageError."""
    name = hashlib.sha256(f"{target.shown} {target.table}".encode()).hexdigest()[:16]
    path = index.state / f"sync-{name}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except (PermissionError, FileNotFoundError) as error:
        raise StorageError(f"cannot write `{path}`: {error.strerror}", "sync as the user who owns the index") from error
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Locked(
            f"another sync is writing `{target.table}` of `{target.shown}`", "wait until it has ended"
        ) from None
    finally:
        os.close(descriptor)


def _replaced(index: Index, found: Trail) -> StorageError | None:
    """The error of a sync that took longer than the index keeps a generation which is no longer current."""
    if index.has(found.generation.number):
        return None
    return StorageError(
        f"generation {found.generation.number} was replaced and removed before all of it was read",
        "run the same command again: it goes on with the current generation",
    )
