"""Durable file operations, and the seam at which tests make them fail.

In: paths and bytes. Out: files that are whole or absent, every OSError turned into StorageError (exit 14).
A file or folder is as open to other users as the folder in which it is made, whatever the umask: so the mode of the
index's own folder decides for all of it.
Invariant: temporary name, write, fsync, rename, fsync folder, in this order; after a failed write or fsync the file is
deleted, never used.
Not here: which files make an index (index/).
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from embedcli.errors import StorageError, storage_errors
from embedcli.paths import exists, is_folder, is_link

if TYPE_CHECKING:
    from embedcli.vault.lease import Term

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_SECOND_TRY = _FULL | {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


SPARE = 1.05
"""Free space must exceed an estimate by this factor."""


@dataclass(frozen=True, slots=True)
class Written:
    """The size of a completely written file and the sha256 of its bytes (hex)."""

    size_bytes: int
    sha256: str


class _Hashing:
    """A writable file that computes the digest of its bytes; it has only the methods that pyarrow and numpy call."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._state = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self._state.update(data)
        self.size_bytes += len(data)
        self._file.write(data)
        return len(data)

    def tell(self) -> int:
        return self.size_bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Do nothing: whoever opened the file closes it."""

    def result(self) -> Written:
        return Written(self.size_bytes, self._state.hexdigest())


def mode_of(path: Path) -> int:
    """The nine bits that say who may read, write and execute. Raises OSError."""
    return stat.S_IMODE(os.stat(path).st_mode) & 0o777


def open_file(path: str | Path, flags: int) -> int:
    """As os.open, and an `opener` for `open`: a new file is as open to other users as its folder. Raises OSError."""
    mode = 0o666 & mode_of(Path(path).parent)
    new = not os.path.lexists(path)
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
    if new:
        set_mode(descriptor, mode)
    return descriptor


def set_mode(path: Path | int, mode: int) -> None:
    """Give a file or folder of ours these bits; not where the filesystem has none, or the folder is another user's."""
    found = stat.S_IMODE(os.stat(path).st_mode)
    if found & 0o777 != mode:
        with suppress(OSError):
            os.chmod(path, (found & ~0o777) | mode)


def temporary_file(*, buffering: int = -1) -> IO[bytes]:
    """A file without a name that is no part of an index, where the system keeps such. Raises StorageError."""
    with storage_errors(Path("/tmp")):
        return tempfile.TemporaryFile(buffering=buffering)


def digest_of(path: Path) -> str:
    """The sha256 of a file's bytes (hex). Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_full(error: StorageError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


def _is_held(folder: Path) -> bool:
    """Whether nothing is left in a folder but files that were removed and are still open: NFS gives them other names,
    and they can only be removed when they are closed."""
    left = [name for _, _, names in os.walk(folder) for name in names]
    return bool(left) and all(name.startswith(".nfs") for name in left)


class Disk:
    """The real file operations. Tests use subclasses that fail or die at a named step.

    The calls of its first group do nothing here: an index in a folder is all that there is, and its lock decides who
    writes. The disk of a mirror (index/mirror/mirror.py) talks to a vault in them.
    """

    def refresh(self) -> None:
        """Bring the folder up to date with what other machines have published, for a reader."""

    def leased(self, warn: Callable[[str], None]) -> AbstractContextManager[Callable[[], bool]]:
        """Be the one writer over all machines, with the folder up to date; yields whether we still are it."""
        return nullcontext(lambda: True)

    def leaseholder(self) -> Term | None:
        """The writer on another machine; None where there is none."""
        return None

    def release(self, warn: Callable[[str], None], sleep: Callable[[float], None]) -> Term | None:
        """Release the lease that a dead machine left; returns whose it was. Raises Locked while its run lives."""
        return None

    def collect(self) -> None:
        """Remove what other machines do not need any more."""

    @property
    def fence(self) -> int:
        """The number of this run among all that had the lease."""
        return 0

    def join(self, fence: int, run: str, leftovers: Collection[str]) -> None:
        """Write for the run on another machine that has the lease under this number, into a folder below its folder
        `run`; `leftovers`: those of killed runs that are to be up to date. Every write raises Locked from the moment at
        which the run does not have the lease any more."""

    def update(self, writer: Path) -> None:
        """Bring the folder of a writer up to date with what it has stored from another machine."""

    def expect(self, path: Path, size_bytes: int | None, sha256: str) -> None:
        """Take note of a file that a writer on another machine has stored; `size_bytes`: None where it is not known."""

    def leave(self, writer: Path) -> None:
        """A worker ends: remove what nobody needs from this machine of the folder in which it wrote."""

    def shown(self, folder: Path) -> str:
        """The name of the index in messages and hints."""
        return str(folder)

    def uri(self, shard: Path) -> str:
        """Where other programs read a shard."""
        return str(shard.absolute())

    # ---- files

    def step(self, name: str) -> None:
        """Called at each named step of the write order; does nothing here."""

    def write(self, path: Path, fill: Callable[[BinaryIO], object]) -> Written:
        """Write `path` whole and durably, or leave it absent; `fill` writes the content and may be called twice.

        Raises StorageError.
        """
        with storage_errors(path):
            try:
                return self._write_once(path, fill)
            except OSError as error:
                if error.errno in _NO_SECOND_TRY:
                    raise
            return self._write_once(path, fill)  # the kernel drops pages whose fsync failed: write all of them again

    def _write_once(self, path: Path, fill: Callable[[BinaryIO], object]) -> Written:
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with open(temporary, "wb", opener=open_file) as file:
                sink = _Hashing(file)
                fill(cast(BinaryIO, sink))
                file.flush()
                self.fsync(file.fileno())
            self.step(f"written {path.name}")
            self.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        self._fsync_folder(path.parent)
        return sink.result()

    def append(self, path: Path, data: bytes) -> None:
        """Append to `path` and fsync, all or nothing; only a kill leaves a torn last line. Raises StorageError."""
        with storage_errors(path), open(path, "ab", buffering=0, opener=open_file) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            try:
                self.put(file, data)
                self.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(size_bytes)
                raise

    def put(self, file: BinaryIO, data: bytes) -> None:
        """Write all of `data` to an unbuffered file."""
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def fsync_folder(self, folder: Path) -> None:
        with storage_errors(folder):
            self._fsync_folder(folder)

    def _fsync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def link(self, old: Path, new: Path) -> None:
        os.link(old, new)

    def symlink(self, target: str, link: Path) -> None:
        os.symlink(target, link)

    def carry(self, old: Path, new: Path) -> None:
        """Make `new` the same file as `old`: a hard link, or a durable copy where the filesystem has none."""
        with storage_errors(new):
            try:
                self.link(old, new)
            except FileExistsError:
                return
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                with old.open("rb") as source:
                    self._write_once(new, lambda sink: shutil.copyfileobj(source, sink, 1 << 20))

    def point(self, link: Path, target: str) -> None:
        """Make the symlink `link` point to `target` by one rename; a folder in its place, the copy of a backup that
        followed links, goes. Raises StorageError."""
        temporary, trash = link.with_name(f".{link.name}.tmp"), link.with_name(f".trash-{link.name}")
        with storage_errors(link):
            with suppress(FileNotFoundError):
                temporary.unlink()
            self.symlink(target, temporary)
            if is_folder(link) and not is_link(link):
                shutil.rmtree(trash, ignore_errors=True)
                self.rename(link, trash)
            self.rename(temporary, link)
            shutil.rmtree(trash, ignore_errors=True)

    def check_symlinks(self, folder: Path) -> None:
        """Raise StorageError where the filesystem has no symlinks: nothing could be published there."""
        link = folder / ".link.tmp"
        with storage_errors(link):
            try:
                link.unlink(missing_ok=True)
                self.symlink("nowhere", link)
                link.unlink()
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise StorageError(
                    f"`{folder}` is on a filesystem without symbolic links, which an index needs",
                    "put the index elsewhere with `--index`: ext4, xfs, btrfs, zfs and APFS have them, FAT does not",
                ) from error

    def has_hard_links(self, folder: Path) -> bool:
        """Whether the filesystem of `folder` has hard links; without them `carry` copies."""
        file, link = folder / ".file.tmp", folder / ".link.tmp"
        with storage_errors(file):
            file.touch()
            try:
                self.link(file, link)
                link.unlink()
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return False
            finally:
                file.unlink()
        return True

    def free_bytes(self, folder: Path) -> int:
        return shutil.disk_usage(folder).free

    def has_room(self, folder: Path, needed_bytes: float) -> bool:
        """Whether the disk of `folder` has room for `needed_bytes`, with 5 % to spare."""
        return needed_bytes * SPARE <= self.free_bytes(folder)

    def check_room(self, folder: Path, needed_bytes: float, *, purpose: str, hint: str) -> None:
        """Raise StorageError with both figures where the disk has no room. The message begins with `purpose`."""
        if not self.has_room(folder, needed_bytes):
            raise StorageError(
                f"{purpose} needs about {needed_bytes * SPARE / 1e6:,.2f} MB in `{folder}`,"
                f" {self.free_bytes(folder) / 1e6:,.2f} MB are free",
                hint,
            )

    def make_folder(self, folder: Path, mode: int | None = None, *, must_be_new: bool = False) -> None:
        """Make a folder, unless it is there already and may be, as open as `mode` or else the folder it lies in."""
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            mode = mode_of(folder.parent) if mode is None else mode
            try:
                folder.mkdir(mode)
            except FileExistsError:
                if must_be_new or not is_folder(folder):
                    raise
                return
            set_mode(folder, mode)

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with its contents; a folder is renamed first, so that no run uses half of it. What
        NFS keeps of it, because this process still has it mapped, goes with the trash of the next run."""
        with storage_errors(path):
            if is_folder(path) and not is_link(path):
                trash = path.with_name(f".trash-{path.name.removeprefix('.trash-')}")
                if trash != path:
                    shutil.rmtree(trash, ignore_errors=True)
                    os.rename(path, trash)
                shutil.rmtree(trash, ignore_errors=True)
                if exists(trash) and not _is_held(trash):
                    shutil.rmtree(trash)  # says what is in the way
            else:
                path.unlink(missing_ok=True)
