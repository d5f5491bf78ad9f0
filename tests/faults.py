"""Test doubles of the file operations and the clock, each with one fault, about ten lines each.

In: when to fail. Out: disks that are full, torn, dying or lack links; a process that is killed at a named operation;
readers that are slow or die.
Not here: any expectation; engines with faults (fake_engines.py).
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from embedcli.config import mirrored_url
from embedcli.errors import UnreadableSource, storage_errors
from embedcli.index.mirror.mirror import Mirror
from embedcli.reading.rows import Beat, Reading, ReadingWork
from embedcli.records import REASONS, Source
from embedcli.vault.disk import Disk, Written
from embedcli.vault.opened import open_vault

_NAMES = (
    (re.compile(r"part-[0-9a-f]{16}"), "part"),
    (re.compile(r"writer-[\w-]+"), "writer"),
    (re.compile(r"loose-[0-9a-f]+"), "loose"),
    (re.compile(r"\.[0-9a-f]{8}\.building"), ".building"),
)
_RUN = re.compile(r"\d{6}(-[0-9a-f]+)?(?=\b|\.)")


def kind(path: Path) -> str:
    """The name of a file with its folder, without numbers and ids: `N.tmp/manifest.json`, `staging/N`."""
    name = "/".join(path.parts[-2:])
    for pattern, word in _NAMES:
        name = pattern.sub(word, name)
    return _RUN.sub("N", name)


class Watching(Disk):
    """The real disk, which calls `at` before each operation."""

    def at(self, name: str) -> None:
        """Called before each operation, and at each named step of the write order."""

    def step(self, name: str) -> None:
        self.at(f"step {kind(Path(name))}")

    def rename(self, old: Path, new: Path) -> None:
        self.at(f"rename {kind(new)}")
        super().rename(old, new)

    def append(self, path: Path, data: bytes) -> None:
        self.at(f"append {kind(path)}")
        super().append(path, data)

    def carry(self, old: Path, new: Path) -> None:
        self.at(f"carry {kind(new)}")
        super().carry(old, new)

    def point(self, link: Path, target: str) -> None:
        self.at(f"point {link.name}")
        super().point(link, target)

    def remove(self, path: Path) -> None:
        self.at(f"remove {kind(path)}")
        super().remove(path)


class Recording(Watching):
    """Remembers the operations."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def at(self, name: str) -> None:
        self.done.append(name)


class KillAt(Watching):
    """Sends SIGKILL to this process before the n-th operation called `name`; without a name, before the n-th of all.
    `once`: a file that the process makes which comes there first; no other one is killed then."""

    def __init__(self, name: str | None = None, n: int = 1, *, once: Path | None = None) -> None:
        self.name = name
        self.left = n
        self.once = once

    def at(self, name: str) -> None:
        self.left -= self.name in (None, name)
        if not self.left:
            self.left = -1
            if is_first(self.once):
                os.kill(os.getpid(), signal.SIGKILL)


class StopAt(Watching):
    """Suspends this process before the n-th operation called `name`; whoever sends SIGCONT lets it go on. The signal is
    for this thread: of one for the process another thread may take notice, and this one runs on for a moment. `once` is
    as of KillAt."""

    def __init__(self, name: str, n: int = 1, *, once: Path | None = None) -> None:
        self.name = name
        self.left = n
        self.once = once

    def at(self, name: str) -> None:
        self.left -= name == self.name
        if not self.left:
            self.left = -1
            if is_first(self.once):
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def is_first(once: Path | None) -> bool:
    """Whether no other process has made this file. Without a file each one is the first."""
    if once is None:
        return True
    try:
        once.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def disk_of_a_run(folder: Path, kill: Sequence[Any] | None) -> Watching:
    """The disk of a run that is killed at an operation, or that remembers them. Where the index is the mirror of a
    vault, a dead run is known for one after half a second."""
    return faulty(folder, KillAt(*kill) if kill else Recording())


LEASE_S = 0.5


def faulty(folder: Path, fault: Watching) -> Watching:
    """The same fault on the disk of an index in that folder, which may be the mirror of a vault."""
    url = mirrored_url(folder)
    if url is None:
        return fault

    class OfMirror(type(fault), Mirror):  # type: ignore[misc]
        """The operations of a mirror, with this fault."""

    disk: Watching = OfMirror.__new__(OfMirror)
    Mirror.__init__(disk, folder, open_vault(url), lease_s=LEASE_S)  # type: ignore[arg-type]
    vars(disk).update(vars(fault))
    return disk


class KilledAt(Disk):
    """Raises KeyboardInterrupt at the n-th step called `name`: the run ends as if killed, and the test continues."""

    def __init__(self, name: str, n: int = 1) -> None:
        self.name = name
        self.left = n

    def step(self, name: str) -> None:
        self.left -= name == self.name
        if not self.left:
            raise KeyboardInterrupt


class FailAfter(Disk):
    """Every fsync and rename after the n-th is an I/O error."""

    def __init__(self, n: int) -> None:
        self.left = n

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def fsync(self, descriptor: int) -> None:
        self._count()
        super().fsync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        self._count()
        super().rename(old, new)


class FailsFrom(Disk):
    """Every fsync and rename after the named step is an I/O error; with an empty name, from the start."""

    def __init__(self, step: str) -> None:
        self.from_step = step
        self.failing = not step

    def step(self, name: str) -> None:
        self.failing = self.failing or name == self.from_step
        super().step(name)

    def _fail(self) -> None:
        if self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def fsync(self, descriptor: int) -> None:
        self._fail()
        super().fsync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        self._fail()
        super().rename(old, new)


class _Limited:
    """A sink that writes only the bytes `take` allows and raises the error for the rest."""

    closed = False

    def __init__(self, sink: BinaryIO, take: Callable[[bytes], int], error: int) -> None:
        self._sink = sink
        self._take = take
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def write(self, data: bytes) -> int:
        taken = self._take(data)
        self._sink.write(bytes(data)[:taken])
        if taken < len(data):
            raise OSError(self._error, os.strerror(self._error))
        return taken


class TornWrite(Disk):
    """The first `times` writes of files whose kind contains `what` fail half-way with an I/O error."""

    def __init__(self, what: str, times: int = 1) -> None:
        self.what = what
        self.left = times

    def write(self, path: Path, fill: Callable[[BinaryIO], object]) -> Written:
        return super().write(path, lambda sink: fill(self._sink(path, sink)))

    def _sink(self, path: Path, sink: BinaryIO) -> Any:
        if self.what not in kind(path) or self.left <= 0:
            return sink
        self.left -= 1
        return _Limited(sink, lambda data: len(data) // 2, errno.EIO)


class DiskFull(Disk):
    """Files whose kind contains `what` share `room_bytes`; after that no space is left on the device."""

    def __init__(self, what: str = "", room_bytes: int = 0, *, for_good: bool = False) -> None:
        self.what = what
        self.room_bytes = room_bytes
        self.for_good = for_good
        self.refused: list[str] = []

    def _take(self, path: Path, data: bytes) -> int:
        taken = min(len(data), self.room_bytes)
        self.room_bytes -= taken
        if taken < len(data):
            self.refused.append(kind(path))
        return taken

    def write(self, path: Path, fill: Callable[[BinaryIO], object]) -> Written:
        def limited(sink: BinaryIO) -> Any:
            return _Limited(sink, lambda data: self._take(path, data), errno.ENOSPC)

        return super().write(path, (lambda sink: fill(limited(sink))) if self.what in kind(path) else fill)

    def put(self, file: BinaryIO, data: bytes) -> None:
        path = Path(file.name)
        taken = self._take(path, data) if self.what in kind(path) else len(data)
        super().put(file, data[:taken])
        if taken < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def remove(self, path: Path) -> None:
        """A removed file frees its bytes, unless the disk stays full (`for_good`)."""
        self.room_bytes += path.stat().st_size if path.is_file() and not self.for_good else 0
        super().remove(path)


class FsyncFails(Disk):
    """After `after` fsyncs that succeed, `times` fsyncs are I/O errors."""

    def __init__(self, times: int, after: int = 0) -> None:
        self.times = times
        self.after = after

    def fsync(self, descriptor: int) -> None:
        if self.after > 0:
            self.after -= 1
        elif self.times > 0:
            self.times -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync(descriptor)


class RenameFails(Disk):
    """The first `times` renames to a name whose kind contains `what` fail with `error`."""

    def __init__(self, what: str, times: int = 1 << 30, error: int = errno.EIO) -> None:
        self.what = what
        self.times = times
        self.error = error

    def rename(self, old: Path, new: Path) -> None:
        if self.what in kind(new) and self.times > 0:
            self.times -= 1
            raise OSError(self.error, os.strerror(self.error))
        super().rename(old, new)


class ReadOnly(Disk):
    """A filesystem mounted read-only: every write fails."""

    def _refuse(self, path: Path) -> None:
        with storage_errors(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def write(self, path: Path, fill: Callable[[BinaryIO], object]) -> Written:
        self._refuse(path)
        raise AssertionError

    def append(self, path: Path, data: bytes) -> None:
        self._refuse(path)

    def make_folder(self, folder: Path, mode: int | None = None, *, must_be_new: bool = False) -> None:
        if not folder.exists():
            self._refuse(folder)


class NoHardLinks(Disk):
    """A filesystem without hard links (exFAT, some FUSE)."""

    def link(self, old: Path, new: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


class NoSymlinks(Disk):
    """A filesystem without symlinks."""

    def symlink(self, target: str, link: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


class VanishingFile:
    """A stop signal that never stops the run, but deletes a file when the run polls it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> int | None:
        self.path.unlink(missing_ok=True)
        return None


class GrowingFile:
    """A stop signal that never stops the run, but appends to a file when the run first polls it."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text

    def __call__(self) -> int | None:
        with self.path.open("a") as file:
            file.write(self.text)
        self.text = ""
        return None


class ClockJumps:
    """A clock that advances only by `sleep`, which also calls `meanwhile`, or when a test sets `now`."""

    def __init__(self, meanwhile: Callable[[float], None] = lambda _: None, *, now: float = 0.0) -> None:
        self.now = now
        self.meanwhile = meanwhile

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile(self.now)


class SlowReader(ReadingWork):
    """Takes two seconds longer for the file named `fault`, and reads it."""

    outcome = ("indexed", None)

    def __call__(self, task: Source, beat: Beat, *, with_forms: bool) -> Reading:
        if task.path.startswith("fault"):
            time.sleep(2)
        return super().__call__(task, beat, with_forms=with_forms)


class ReaderHangs(ReadingWork):
    """Does not come back from the file named `fault`; beside the root it leaves a file `hangs` when it has begun it."""

    def __call__(self, task: Source, beat: Beat, *, with_forms: bool) -> Reading:
        if task.path.startswith("fault"):
            (Path(task.file).parents[1] / "hangs").touch()
            time.sleep(600)
        return super().__call__(task, beat, with_forms=with_forms)


class ReaderSegfaults(ReadingWork):
    """Dies whenever it reads the file named `fault`."""

    outcome = ("failed", "reader_crashed")

    def __call__(self, task: Source, beat: Beat, *, with_forms: bool) -> Reading:
        if task.path.startswith("fault"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().__call__(task, beat, with_forms=with_forms)


class FileVanishes(ReadingWork):
    """The file named `fault` is deleted just before it is opened."""

    outcome = ("failed", "vanished")

    def __call__(self, task: Source, beat: Beat, *, with_forms: bool) -> Reading:
        if task.path.startswith("fault"):
            os.unlink(task.file)
        return super().__call__(task, beat, with_forms=with_forms)


class FileGrowsOnce(ReadingWork):
    """The file named `fault` grows after it was read and before its stat is checked, once in each process."""

    outcome: tuple[str, str | None] = ("indexed", None)
    times = 1

    def _rows(self, task: Source, *read: Any) -> Reading:
        if task.path.startswith("fault") and self.times:
            self.times -= 1
            with open(task.file, "a") as file:
                file.write("One line more.\n")
        return super()._rows(task, *read)


class FileGrowsForEver(FileGrowsOnce):
    """The file grows at every reading, as a log does."""

    outcome = ("failed", "changed_while_reading")
    times = 1_000


class ReaderRefuses(ReadingWork):
    """Refuses every file that is named after a reason, for that reason, and logs each attempt in `refused.log`."""

    def __call__(self, task: Source, beat: Beat, *, with_forms: bool) -> Reading:
        file = Path(task.file)
        if file.stem in REASONS:
            with (file.parents[1] / "refused.log").open("a") as log:
                log.write(f"{file.name}\n")
            raise UnreadableSource(file.stem)
        return super().__call__(task, beat, with_forms=with_forms)
