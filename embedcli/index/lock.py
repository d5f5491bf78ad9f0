"""One writer at a time: flock, and on network filesystems also a nonce that the holder rewrites every 30 seconds.

In: the index folder. Out: an acquired lock, or Locked (exit 11), which names the holder's host, pid and start. On a
local filesystem flock alone decides, whatever the file says: a dead process or container leaves nothing to clean up.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from embedcli.errors import Locked, StorageError, storage_error, storage_errors
from embedcli.fields import Fields
from embedcli.vault.disk import Disk, open_file

BEAT_S = 30.0
STALE_S = 600.0
WRITTEN_BYTES = 512
UNREADABLE = "unreadable"
MOST_PID = (1 << 31) - 1
_NETWORK = (
    "nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "afs", "gpfs", "beegfs", "orangefs", "virtiofs",
    "fuse.",  # sshfs, s3fs, rclone, ceph-fuse, juicefs ...: the storage behind FUSE may be shared between hosts
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
    """Lock the open file `path`; False where the filesystem has no flock.

    Raises BlockingIOError when another process holds the lock, StorageError when the file cannot be locked.
    """
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
    """Whether the holder of the lock still writes to the lock file `path`; waits for one and a half beats."""
    before = path.read_bytes()
    sleep(1.5 * BEAT_S)
    return path.read_bytes() != before


class Lock:
    """Holds the lock of an index as a context manager. `clock` and `sleep` are seams.

    Whether another host's nonce stood still for 10 minutes is measured on the clock of this host.
    """

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
            self._file = open_file(self._path, os.O_RDWR | os.O_CREAT)
        try:
            self._flock = take_flock(self._file, self._path)
            if not self._flock:
                self._network = True
                self._warn(f"`{self._path.parent}` is on a filesystem without flock: watching its lock file instead")
            if self._network:
                self._outwait_foreign()
        except BaseException as error:
            holder = self._read()
            os.close(self._file)
            if isinstance(error, BlockingIOError):
                raise self._locked(holder) from None
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
            self._beating.join()  # a late beat would write into another file that got this descriptor's number
        if self.held():
            os.ftruncate(self._file, 0)
        os.close(self._file)

    def held(self) -> bool:
        """Whether the lock file still names us as the holder; checked again just before a publish."""
        written = str(self._read().get("nonce", self._nonce))
        return written.split(":")[0] == self._nonce.split(":")[0]

    def _outwait_foreign(self) -> None:
        """Wait until another host's nonce stood still for ten minutes: its run is dead. Raises Locked when it changes.

        A nonce of this host needs no waiting where flock was acquired: the process that wrote it is gone.
        """
        first = self._read()
        if not first or (self._flock and first.get("host") == socket.gethostname()):
            return
        since = self._clock()
        self._warn(f"a run on `{first.get('host')}` has locked the index: waiting up to 10 minutes to see if it lives")
        while self._clock() - since < STALE_S:
            self._sleep(BEAT_S / 3)
            now = self._read()
            if not now:
                return
            if now.get("nonce") not in (first.get("nonce"), UNREADABLE):
                raise self._locked(now)
        self._warn(f"took over the lock of a run on `{first.get('host')}`: it gave no sign of life for 10 minutes")

    def _keep_beating(self) -> None:
        while not self._released.wait(BEAT_S):
            if not self.held():
                return
            with suppress(StorageError):  # the next beat may succeed; `held` is checked again before each publish
                self._beat()

    def _beat(self) -> None:
        owner, _, count = (self._nonce or f"{secrets.token_hex(8)}:0").partition(":")
        self._nonce = f"{owner}:{int(count) + 1}"
        data = {"host": socket.gethostname(), "pid": os.getpid(), "since": self._since, "nonce": self._nonce}
        with storage_errors(self._path):  # one write of constant length: no reader sees half a line or an empty file
            os.pwrite(self._file, json.dumps(data).encode().ljust(WRITTEN_BYTES), 0)
            os.fsync(self._file)

    def _read(self) -> dict[str, Any]:
        """What the holder wrote; empty only when the lock was released."""
        try:
            written = self._path.read_bytes()
            data = json.loads(written) if written.strip() else {}
        except (OSError, ValueError, RecursionError):
            return {"host": "unknown", "nonce": UNREADABLE}
        return data if isinstance(data, dict) else {"host": "unknown", "nonce": UNREADABLE}

    def _locked(self, holder: dict[str, Any]) -> Locked:
        pid, host, since = (holder.get(name, "unknown") for name in ("pid", "host", "since"))
        return Locked(
            f"index `{self._path.parent}` is locked by another run: pid {pid} on `{host}` since {since}",
            "wait for it to end, then run the same command again",
        )


@dataclass(frozen=True)
class Hold:
    """The right to write to an index: over the processes of this machine and, for one in a vault, over all machines."""

    lock: Lock
    is_leased: Callable[[], bool]

    def held(self) -> bool:
        """Whether it is still ours; asked again just before a publish. Raises StorageError."""
        return self.lock.held() and self.is_leased()


@contextmanager
def hold(folder: Path, disk: Disk, warn: Callable[[str], None]) -> Iterator[Hold]:
    """Raises Locked (exit 11) while another run has the index, StorageError."""
    with Lock(folder, network=on_network(folder), warn=warn) as lock, disk.leased(warn) as is_leased:
        yield Hold(lock, is_leased)


def no_hold(folder: Path, warn: Callable[[str], None]) -> Hold:
    """Of who never publishes: a publish under it is refused."""
    return Hold(Lock(folder, network=False, warn=warn), lambda: False)


def published_elsewhere(index: str) -> Locked:
    """The error of a run that would publish after another one; `index` is what a person calls it."""
    return Locked(
        f"another run has published in index `{index}` meanwhile; this one changed nothing",
        "run the same command again",
    )


@dataclass(frozen=True)
class Holder:
    """The process that the lock file names. `alive`: whether it runs on this host; None for a process of another."""

    host: str
    pid: int
    since: str
    alive: bool | None


def read_holder(folder: Path, *, locks: Path = Path("/proc/locks")) -> Holder | None:
    """The holder named in the lock file of the index `folder`; None where nobody is named.

    This only reads the file: to try flock, even for a moment, would be to take the lock from a run that starts.
    """
    path = folder / "lock"
    try:
        fields, inode = Fields(json.loads(path.read_bytes())), path.stat().st_ino
        host, pid, since = fields.text("host"), fields.whole("pid", least=1, most=MOST_PID), fields.text("since")
    except (OSError, ValueError, RecursionError):
        return None
    return Holder(host, pid, since, _holds(pid, inode, locks) if host == socket.gethostname() else None)


def holder_of(folder: Path, disk: Disk) -> Holder | None:
    """Who writes to the index: a process that its lock file names, or one on another machine that has its lease."""
    found = read_holder(folder)
    term = disk.leaseholder() if found is None or found.alive is False else None
    return found if term is None else Holder(term.host, term.pid, term.since, None)


def _holds(pid: int, inode: int, locks: Path) -> bool:
    """Whether process `pid` runs on this host and holds the lock: another process may have got its number.

    `/proc/locks` is compared by inode only, as its device differs from the file's own on btrfs and overlays.
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
