"""A vault in a folder that several machines mount: no symlinks and no hard links are needed, flock or one writer is.

In: a folder. Out: the calls of contract.py.
Not here: an index in a folder of this machine, which its readers open by its links (index/).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedcli.errors import storage_errors
from embedcli.vault.contract import Overtaken, Stored, Version
from embedcli.vault.disk import Disk, open_file

LOCK = ".lock"


class FolderVault:
    """Keys are paths below the folder. Objects are replaced by rename, so a version is the file's inode and time."""

    def __init__(self, folder: Path, *, disk: Disk | None = None) -> None:
        self.folder = folder
        self.url = f"file://{folder}"
        self._disk = disk or Disk()

    def put_new(self, key: str, content: bytes | Path) -> Version:
        data = content.read_bytes() if isinstance(content, Path) else content
        with self._alone():
            try:
                found, version = self.read(key)
            except FileNotFoundError:
                return self._write(key, data)
        if found != data:
            raise Overtaken(key, self.url)
        return version

    def swap(self, key: str, expected: Version | None, content: bytes) -> Version:
        with self._alone():
            try:
                found = self.stat(key).version
            except FileNotFoundError:
                found = None
            if found != expected:
                raise Overtaken(key, self.url)
            return self._write(key, content)

    def _write(self, key: str, data: bytes) -> Version:
        path = self.folder / key
        self._disk.make_folder(path.parent)
        self._disk.write(path, lambda sink: sink.write(data))
        return self.stat(key).version

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Between comparing and writing nobody else writes."""
        self._disk.make_folder(self.folder)
        with storage_errors(self.folder):
            descriptor = open_file(self.folder / LOCK, os.O_RDWR | os.O_CREAT)
        try:
            with storage_errors(self.folder / LOCK):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self, key: str) -> tuple[bytes, Version]:
        with (self.folder / key).open("rb") as file:
            return file.read(), _version(os.fstat(file.fileno()))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        with (self.folder / key).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def stat(self, key: str) -> Stored:
        return _stored(key, os.stat(self.folder / key))

    def list(self, prefix: str = "") -> Iterator[Stored]:
        for folder, _, names in os.walk(self.folder / prefix):
            for name in names:
                if name != LOCK and not name.endswith(".tmp"):
                    path = Path(folder, name)
                    with suppress(FileNotFoundError):
                        yield _stored(path.relative_to(self.folder).as_posix(), path.stat())

    def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._disk.remove(self.folder / key)


def _version(stat: os.stat_result) -> Version:
    return f"{stat.st_ino}-{stat.st_mtime_ns}"


def _stored(key: str, stat: os.stat_result) -> Stored:
    return Stored(key, stat.st_size, stat.st_mtime, _version(stat))
