"""`unlock`: clear a lock that a dead host left on a network filesystem.

In: an index. Out: an empty lock file, or Locked while the run that holds the lock is alive.
Not here: how a run takes over such a lock by itself (index/lock.py), the text on the screen (cli/upkeep.py).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from embedcli.errors import Locked, storage_errors
from embedcli.index import lock
from embedcli.index.generations import Index, current_of
from embedcli.index.lock import Holder, read_holder
from embedcli.paths import exists
from embedcli.report import Say


def unlock(index: Index, *, warn: Say, sleep: Callable[[float], None] = time.sleep) -> Holder | None:
    """Clear a lock, or a lease, that a dead host left; returns who held it, None where nobody did.

    Raises Locked while a process of this host holds the lock, or another host still writes to it.
    """
    term = index.disk.release(warn, sleep)
    return _unlock(index, warn, sleep) if term is None else Holder(term.host, term.pid, term.since, None)


def _unlock(index: Index, warn: Say, sleep: Callable[[float], None]) -> Holder | None:
    path = index.folder / "lock"
    if not exists(path) or not path.read_bytes().strip():
        current_of(index)
        return None
    holder = read_holder(index.folder) or Holder("unknown", 0, "unknown", None)  # the lock file is damaged
    with storage_errors(path), path.open("r+b") as file:
        if _lives(path, file.fileno(), holder, warn, sleep):
            raise Locked(
                f"index `{index.shown}` is locked by a run that is alive: pid {holder.pid} on `{holder.host}`"
                f" since {holder.since}",
                f"stop the run on `{holder.host}` with `kill {holder.pid}`: finished documents are kept",
            )
        file.truncate(0)
        os.fsync(file.fileno())
    return holder


def _lives(path: Path, file: int, holder: Holder, warn: Say, sleep: Callable[[float], None]) -> bool:
    try:
        ours = lock.take_flock(file, path) and holder.host == socket.gethostname()
    except BlockingIOError:
        return True
    if ours:
        return False
    warn(f"waiting {1.5 * lock.BEAT_S:.0f} s to see whether the run on `{holder.host}` is alive")
    return lock.moves(path, sleep)
