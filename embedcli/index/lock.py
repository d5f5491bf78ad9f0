"""One writer at a time: flock, and where that cannot be trusted a nonce that its holder keeps changing.

In: the index folder. Out: a held lock, or Locked (exit 11) naming host, pid and since when. A lock obtained on a
local filesystem is ours whatever is written in it: a dead process or container leaves nothing to clean up.
Not here: what the lock protects.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from embedcli.errors import Locked, StorageError, storage_error, storage_errors

BEAT_S = 30.0
STALE_S = 600.0
WRITTEN_BYTES = 512
UNREADABLE = "unreadable"
_NETWORK = (
    "nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "afs", "gpfs", "beegfs", "orangefs", "virtiofs",
    "fuse.",  # sshfs, s3fs, rclone, ceph-fuse, juicefs ...: what lies behind cannot be seen
)  # fmt: skip
_NO_FLOCK = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def on_network(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether `folder` lies on a filesystem whose flock may not reach other hosts."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return False
    place = os.path.realpath(folder)
    best = ("", "")
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ")
        inside = point == "/" or f"{place}/".startswith(f"{point}/")
        if inside and len(point) >= len(best[0]):
            best = (point, after.split()[0])
    return best[1].startswith(_NETWORK)


def take_flock(file: int, path: Path) -> bool:
    """Lock the open file `path`; False where the filesystem knows no flock. Raises BlockingIOError, StorageError."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        raise storage_error(error, path) from error
    return True


def moves(path: Path, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Whether its holder writes on the lock file `path`; takes a beat and a half."""
    before = path.read_bytes()
    sleep(1.5 * BEAT_S)
    return path.read_bytes() != before


class Lock:
    """A context manager. `clock` and `sleep` are seams; the 10 minutes of a foreign nonce are of our own clock."""

    def __init__(
        self,
        index: Path,
        *,
        network: bool,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = index / "lock"
        self._network = network
        self._warn = warn
        self._clock = clock
        self._sleep = sleep
        self._nonce = ""
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._released = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> Self:
        with storage_errors(self._path):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._flock = take_flock(self._file, self._path)
            if not self._flock:
                self._network = True
                self._warn(f"`{self._path.parent}` lies on a filesystem without flock: watching its lock file instead")
            if self._network:
                self._outwait_foreign()
        except BaseException as error:
            held = self._read()
            os.close(self._file)
            if isinstance(error, BlockingIOError):
                raise self._locked(held) from None
            raise
        self._beat()
        if self._network:
            self._beating = threading.Thread(target=self._keep_beating, daemon=True)
            self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        if self._beating is not None:
            self._beating.join()  # else its last beat might go to whatever file has this number by then
        if self.held():
            os.ftruncate(self._file, 0)
        os.close(self._file)

    def held(self) -> bool:
        """Whether the lock file still speaks of us; asked again just before a publish."""
        written = str(self._read().get("nonce", self._nonce))
        return written.split(":")[0] == self._nonce.split(":")[0]

    def _outwait_foreign(self) -> None:
        """Another host's nonce that moves is a run; one that stands still for ten minutes is a dead one's.

        This host's own is a dead one's at once, where its flock could be taken.
        """
        first = self._read()
        if not first or (self._flock and first.get("host") == socket.gethostname()):
            return
        since = self._clock()
        self._warn(f"the lock is of a run on `{first.get('host')}`: waiting whether it moves, 10 minutes at most")
        while self._clock() - since < STALE_S:
            self._sleep(BEAT_S / 3)
            now = self._read()
            if not now:
                return
            if now.get("nonce") not in (first.get("nonce"), UNREADABLE):
                raise self._locked(now)
        self._warn(f"took over the lock of a run on `{first.get('host')}` that has not moved for 10 minutes")

    def _keep_beating(self) -> None:
        while not self._released.wait(BEAT_S):
            if not self.held():
                return
            with suppress(StorageError):  # the next beat may do; before a publish it is looked whether one was missed
                self._beat()

    def _beat(self) -> None:
        owner, _, count = (self._nonce or f"{secrets.token_hex(8)}:0").partition(":")
        self._nonce = f"{owner}:{int(count) + 1}"
        data = {"host": socket.gethostname(), "pid": os.getpid(), "since": self._since, "nonce": self._nonce}
        with storage_errors(self._path):  # one write of one length: nobody ever reads half of it, or nothing
            os.pwrite(self._file, json.dumps(data).encode().ljust(WRITTEN_BYTES), 0)
            os.fsync(self._file)

    def _read(self) -> dict[str, Any]:
        """What the holder wrote; empty only when it was released."""
        try:
            written = self._path.read_bytes()
            data = json.loads(written) if written.strip() else {}
        except (OSError, ValueError):
            return {"host": "unknown", "nonce": UNREADABLE}
        return data if isinstance(data, dict) else {"host": "unknown", "nonce": UNREADABLE}

    def _locked(self, held: dict[str, Any]) -> Locked:
        who = (
            f"pid {held.get('pid', 'unknown')} on `{held.get('host', 'unknown')}` since {held.get('since', 'unknown')}"
        )
        return Locked(
            f"index `{self._path.parent}` is held by another run: {who}",
            "wait for it to end, then run the same command again",
        )


@dataclass(frozen=True)
class Holder:
    """What the lock file says. `alive`: whether that process runs on this host; None when it is another host's."""

    host: str
    pid: int
    since: str
    alive: bool | None


def read_holder(folder: Path, *, locks: Path = Path("/proc/locks")) -> Holder | None:
    """The holder written in the lock file of the index `folder`; None where there is none.

    This only reads: trying the lock, even for a moment, would be taking it.
    """
    path = folder / "lock"
    try:
        data, inode = json.loads(path.read_bytes()), path.stat().st_ino
        host, pid, since = str(data["host"]), int(data["pid"]), str(data["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Holder(host, pid, since, _holds(pid, inode, locks) if host == socket.gethostname() else None)


def _holds(pid: int, inode: int, locks: Path) -> bool:
    """Whether a process of that number is here and, where the system tells, holds that lock: numbers are used again.

    The inode says enough: the device that is told differs from the file's own on btrfs and overlays.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        lines = [line.split() for line in locks.read_text().splitlines()]
    except OSError:
        return True
    return any(line[4] == str(pid) and line[5].endswith(f":{inode}") for line in lines if len(line) > 5)
